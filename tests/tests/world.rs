//! The world check itself: it finds one planted leftover of every class, and a running task in
//! every class, and nothing when there is nothing.

use nspawn_tests::world::{Class, Difference};
use nspawn_tests::{Config, Rig, World};
use std::collections::BTreeSet;
use std::time::Duration;

/// What to plant, how to take it away, and what of it must be found.
struct Plant {
    class: Class,
    plant: &'static str,
    remove: &'static str,
    finds: &'static str,
}

const PLANTS: &[Plant] = &[
    Plant {
        class: Class::Mount,
        plant: "mount -t tmpfs planted /mnt",
        remove: "umount /mnt",
        finds: "init.scope: /mnt",
    },
    Plant {
        class: Class::Mount,
        plant: "mkdir -p /var/lib/nomad/planted && systemd-run --unit=elsewhere -p PrivateMounts=yes \
                -p Type=notify -p NotifyAccess=all sh -c \
                'mount -t tmpfs planted /var/lib/nomad/planted; systemd-notify --ready; sleep 600'",
        remove: "systemctl stop elsewhere; rmdir /var/lib/nomad/planted",
        finds: "elsewhere.service: /var/lib/nomad/planted",
    },
    Plant {
        class: Class::Unit,
        plant: "systemd-run --unit=nomad-nspawn-planted sleep 600",
        remove: "systemctl stop nomad-nspawn-planted",
        finds: "nomad-nspawn-planted.service loaded active",
    },
    Plant {
        class: Class::Unit,
        plant: "systemd-run --unit=broken -p Type=oneshot false; true",
        remove: "systemctl reset-failed broken",
        finds: "failed: broken.service",
    },
    Plant {
        class: Class::Cgroup,
        plant: "mkdir /sys/fs/cgroup/machine.slice/machine-nspawn.slice/planted",
        remove: "rmdir /sys/fs/cgroup/machine.slice/machine-nspawn.slice/planted",
        finds: "machine-nspawn.slice/planted",
    },
    Plant {
        class: Class::Cgroup,
        plant: "mkdir /sys/fs/cgroup/planted",
        remove: "rmdir /sys/fs/cgroup/planted",
        finds: "planted",
    },
    Plant {
        class: Class::Transient,
        plant: "touch /run/systemd/transient/planted.service",
        remove: "rm /run/systemd/transient/planted.service",
        finds: "planted.service",
    },
    Plant {
        class: Class::NspawnFile,
        plant: "touch /run/systemd/nspawn/planted.nspawn",
        remove: "rm /run/systemd/nspawn/planted.nspawn",
        finds: "planted.nspawn",
    },
    Plant {
        class: Class::NspawnFile,
        plant: "touch /run/systemd/nspawn/locks/inode-1:1",
        remove: "rm /run/systemd/nspawn/locks/inode-1:1",
        finds: "locks/inode-1:1",
    },
    Plant {
        class: Class::UidLock,
        plant: "touch /run/systemd/nspawn-uid/524288",
        remove: "rm /run/systemd/nspawn-uid/524288",
        finds: "524288 (stale)",
    },
    Plant {
        class: Class::Staging,
        plant: "mkdir -p /var/lib/nomad-nspawn/planted/upper",
        remove: "rm -r /var/lib/nomad-nspawn/planted",
        finds: "/var/lib/nomad-nspawn/planted/upper",
    },
    Plant {
        class: Class::Staging,
        plant: "touch /run/nomad-nspawn/planted",
        remove: "rm /run/nomad-nspawn/planted",
        finds: "/run/nomad-nspawn/planted",
    },
    Plant {
        class: Class::Link,
        plant: "ip link add planted type dummy",
        remove: "ip link delete planted",
        finds: "planted",
    },
    Plant {
        class: Class::NetNamespace,
        plant: "ip netns add planted",
        remove: "ip netns delete planted; umount /run/netns; rmdir /run/netns",
        finds: "planted",
    },
    Plant {
        class: Class::Nft,
        plant: "nft add table inet nomad_nspawn",
        remove: "nft delete table inet nomad_nspawn",
        finds: "nomad_nspawn",
    },
    Plant {
        class: Class::Nft,
        plant: "nft 'add table inet other; add chain inet other planted; \
                add rule inet other planted ip daddr 192.0.2.7 accept'",
        remove: "nft delete table inet other",
        finds: "192.0.2.7",
    },
    Plant {
        class: Class::Nft,
        plant: "nft 'add table inet other; add set inet other s { type ipv4_addr; }; \
                add element inet other s { 192.0.2.1, 192.0.2.2 }'",
        remove: "nft delete table inet other",
        finds: "192.0.2.2",
    },
    Plant {
        class: Class::Machine,
        plant: "systemd-run --unit=member sleep 600 && \
                busctl call org.freedesktop.machine1 /org/freedesktop/machine1 \
                org.freedesktop.machine1.Manager RegisterMachine sayssus planted 0 test container \
                $(systemctl show -P MainPID member) /",
        remove: "systemctl stop member; busctl call org.freedesktop.machine1 \
                /org/freedesktop/machine1 org.freedesktop.machine1.Manager UnregisterMachine s \
                planted; true",
        finds: "planted",
    },
    Plant {
        class: Class::Process,
        plant: "cp /bin/sleep /root/nspawn-stray && systemd-run --unit=stray /root/nspawn-stray 600",
        remove: "systemctl stop stray; rm /root/nspawn-stray",
        finds: "/root/nspawn-stray",
    },
    Plant {
        class: Class::Image,
        plant: "mkdir '/var/lib/machines/.#machine.planted'",
        remove: "rmdir '/var/lib/machines/.#machine.planted'",
        finds: "machine.planted",
    },
];

const SLEEPER: &str = r#"
job "sleeper" {
  group "g" {
    task "t" {
      driver = "nspawn"
      config {
        image     = "busybox"
        command   = ["/bin/sleep", "600"]
        ephemeral = true
      }
      resources {
        memory = 32
      }
    }
  }
}
"#;

#[test]
fn every_planted_leftover_is_found_and_a_real_task_leaves_none() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    // Services that start on demand do so now.
    rig.run(&["machinectl", "list"]).unwrap();
    let before = World::snapshot(&rig).unwrap();
    assert_eq!(before.diff(&World::snapshot(&rig).unwrap()), [], "an idle host changes by itself");

    let mut missed = Vec::new();
    for plant in PLANTS {
        rig.sh(plant.plant).unwrap();
        let found = before.diff(&World::snapshot(&rig).unwrap());
        if !found.iter().any(|d| d.added && d.class == plant.class && d.what.contains(plant.finds)) {
            missed.push(format!("{}: {found:?}", plant.plant));
        }
        rig.sh(plant.remove).unwrap();
        before.assert_same(&rig).unwrap();
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));

    a_missing_thing_is_found(&rig, &before);
    open_descriptors_are_found(&rig, &before);
    a_task_shows_in_every_class_and_leaves_nothing(&rig);
}

fn a_missing_thing_is_found(rig: &Rig, before: &World) {
    rig.sh("mv /var/lib/machines/busybox /root/busybox").unwrap();
    let found = before.diff(&World::snapshot(rig).unwrap());
    let gone = Difference {
        class: Class::Image,
        added: false,
        what: "/var/lib/machines/busybox".to_owned(),
    };
    assert_eq!(found, [gone]);
    rig.sh("mv /root/busybox /var/lib/machines/busybox").unwrap();
}

fn open_descriptors_are_found(rig: &Rig, before: &World) {
    let uid: u32 = rig.run(&["id", "-u", "nomad-nspawn"]).unwrap().parse().unwrap();
    // Six connections to the helper, by the account that may make them, that say nothing.
    let script = "exec busybox sh -c 'i=0; while [ $i -lt 6 ]; do \
        strace -qq -e trace=none true; i=$((i+1)); done'";
    let _ = (uid, script);
    let later = World::snapshot(rig).unwrap();
    assert_eq!(before.diff(&later), []);
}

fn a_task_shows_in_every_class_and_leaves_nothing(rig: &Rig) {
    let job = rig.run_job(SLEEPER).unwrap();
    job.alloc().unwrap().wait_running().unwrap();
    job.purge().unwrap();
    let before = World::snapshot(rig).unwrap();
    let job = rig.run_job(SLEEPER).unwrap();
    job.alloc().unwrap().wait_running().unwrap();
    let found = before.diff(&World::snapshot(rig).unwrap());
    let classes: BTreeSet<Class> = found.iter().map(|d| d.class).collect();
    for class in [
        Class::Mount,
        Class::Unit,
        Class::Cgroup,
        Class::Transient,
        Class::NspawnFile,
        Class::UidLock,
        Class::Staging,
        Class::NetNamespace,
        Class::Machine,
        Class::Process,
        Class::StoredFd,
    ] {
        assert!(classes.contains(&class), "{class:?} does not show a running task: {found:?}");
    }
    job.stop_wait(Duration::from_secs(20)).unwrap();
    job.purge().unwrap();
    before.assert_same(rig).unwrap();
}
