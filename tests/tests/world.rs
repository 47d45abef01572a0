//! The world check itself: it finds one planted leftover of every class, and a running task in
//! every class, and nothing when there is nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use nspawn_tests::world::{Class, Difference};
use nspawn_tests::{Config, Rig, World, wait};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
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
        plant: "mkdir -p /sys/fs/cgroup/machine.slice/machine-nspawn.slice/planted",
        remove: "rmdir /sys/fs/cgroup/machine.slice/machine-nspawn.slice/planted",
        finds: "machine-nspawn.slice/planted",
    },
    Plant {
        class: Class::Cgroup,
        plant: "mkdir /sys/fs/cgroup/topmost",
        remove: "rmdir /sys/fs/cgroup/topmost",
        finds: "topmost",
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
        plant: "ip link add planted type bridge",
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
        plant: "nft add table ip nomad_nspawn",
        remove: "nft delete table ip nomad_nspawn",
        finds: "table ip nomad_nspawn",
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
        plant: "nft 'add table inet sets; add set inet sets s { type ipv4_addr; }; \
                add element inet sets s { 192.0.2.1, 192.0.2.2 }'",
        remove: "nft delete table inet sets",
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
        boot      = false
        command   = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait"]
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

    planted_leftovers_are_found(&rig, &before);
    a_missing_thing_is_found(&rig, &before);
    open_descriptors_are_found(&rig, &before);
    a_task_shows_and_leaves_nothing(&rig);
    a_group_network_leaves_only_what_nomad_keeps(&rig);
}

fn planted_leftovers_are_found(rig: &Rig, before: &World) {
    PLANTS.iter().for_each(|plant| drop(rig.sh(plant.plant).unwrap()));
    let (mut missed, mut found) = (Vec::new(), Vec::new());
    // A program that systemd-run has asked for runs a moment later.
    wait::true_within("all leftovers to be found", Duration::from_secs(20), || {
        found = before.diff(&World::snapshot(rig)?);
        let is = |plant: &Plant, d: &Difference| {
            d.added && d.class == plant.class && d.what.contains(plant.finds)
        };
        let is_missed = |plant: &&Plant| !found.iter().any(|d| is(plant, d));
        missed = PLANTS.iter().filter(is_missed).map(|plant| plant.plant).collect();
        Ok(missed.is_empty())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {missed:#?} in {found:#?}"));
    PLANTS.iter().for_each(|plant| drop(rig.sh(plant.remove).unwrap()));
    before.assert_same(rig).unwrap();
}

/// Bridge, tables and chains that Nomad's CNI plugins make once are no leftovers.
fn a_group_network_leaves_only_what_nomad_keeps(rig: &Rig) {
    let before = World::snapshot(rig).unwrap();
    let file = nspawn_tests::product::workspace().join("example/jobs/bridge.nomad.hcl");
    let job = rig.run_job(&std::fs::read_to_string(file).unwrap()).unwrap();
    job.alloc().unwrap().wait_running().unwrap();
    let found = before.diff(&World::snapshot(rig).unwrap());
    for class in [Class::Link, Class::Nft, Class::NetNamespace] {
        assert!(found.iter().any(|d| d.class == class), "{class:?}: {found:?}");
    }
    job.purge().unwrap();
    before.assert_same(rig).unwrap();
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

/// Connections that say nothing, by the account that may make them.
const CONNECT: &str = r#"
$SIG{ALRM} = "DEFAULT"; alarm 60;
for (1..6) {
    socket(my $s, PF_UNIX, SOCK_SEQPACKET, 0) or die;
    connect($s, sockaddr_un("/run/nomad-nspawn/helper.sock")) or die;
    push @keep, $s;
}
sleep 60;
"#;

fn open_descriptors_are_found(rig: &Rig, before: &World) {
    let uid: u32 = rig.run(&["id", "-u", "nomad-nspawn"]).unwrap().parse().unwrap();
    let mut client = rig.command_as(uid, &["perl", "-MSocket", "-e", CONNECT]);
    let mut client = client.process_group(0).spawn().unwrap();
    wait::true_within("the helper's descriptors to be found", Duration::from_secs(10), || {
        let found = before.diff(&World::snapshot(rig)?);
        Ok(found.iter().any(|d| d.added && d.class == Class::OpenFd && d.what.contains("helper")))
    })
    .unwrap();
    let group = format!("-{}", client.id());
    assert!(Command::new("kill").args(["-KILL", "--", &group]).status().unwrap().success());
    client.wait().unwrap();
    before.assert_same(rig).unwrap();
}

/// Classes in which a running task shows for as long as it runs.
const EVERY: [Class; 10] = [
    Class::Mount,
    Class::Unit,
    Class::Cgroup,
    Class::Transient,
    Class::UidLock,
    Class::Staging,
    Class::NetNamespace,
    Class::Machine,
    Class::Process,
    Class::StoredFd,
];

fn a_task_shows_and_leaves_nothing(rig: &Rig) {
    let job = rig.run_job(SLEEPER).unwrap();
    job.alloc().unwrap().wait_running().unwrap();
    job.purge().unwrap();
    let before = World::snapshot(rig).unwrap();
    let job = rig.run_job(SLEEPER).unwrap();
    job.alloc().unwrap().wait_running().unwrap();
    let mut missing = Vec::new();
    // machined hears of a task a moment after it runs.
    wait::true_within("every class to show a running task", Duration::from_secs(10), || {
        let found = before.diff(&World::snapshot(rig)?);
        let classes: BTreeSet<Class> = found.iter().map(|d| d.class).collect();
        missing = EVERY.into_iter().filter(|class| !classes.contains(class)).collect();
        Ok(missing.is_empty())
    })
    .unwrap_or_else(|error| panic!("{error:#}: not by {missing:?}"));
    job.stop_wait(Duration::from_secs(20)).unwrap();
    job.purge().unwrap();
    before.assert_same(rig).unwrap();
}
