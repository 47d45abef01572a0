//! What confines the units beside a task's own, and what a task may do with its devices.

use crate::{POLICY, SOON, alone, host, next_life, started};
use nspawn_tests::hostile::Handmade;
use nspawn_tests::{Rig, wait};
use proto::path::Absolute;
use proto::target::Target;
use proto::task_spec::files::{Device, DeviceAccess};
use proto::task_spec::{Logs, Users};
use std::time::Duration;

/// Properties that have no effect which a test could see at once.
const PROPERTIES: [(&str, &str); 12] = [
    ("ProtectSystem", "strict"),
    ("ProtectProc", "invisible"),
    ("PrivateNetwork", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectClock", "yes"),
    ("RestrictNamespaces", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("LimitCORE", "0"),
    ("DevicePolicy", "closed"),
];

fn show(rig: &Rig, unit: &str, property: &str) -> String {
    rig.run(&["systemctl", "show", "-P", property, unit]).unwrap()
}

/// What the kernel holds of a process of the unit, and what the unit says of the rest.
fn check_confined(rig: &Rig, unit: &str, pid: &str, capabilities: u64, writable: &str) {
    let status = rig.run(&["cat", &format!("/proc/{pid}/status")]).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_start_matches(':').trim().to_owned()
    };
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), capabilities, "{unit}: {set}");
    }
    assert_eq!((field("NoNewPrivs").as_str(), field("Seccomp").as_str()), ("1", "2"), "{unit}");
    for (property, value) in PROPERTIES {
        assert_eq!(show(rig, unit, property), value, "{unit}: {property}");
    }
    let calls = show(rig, unit, "SystemCallFilter");
    for (call, allowed) in [
        ("openat2", true),
        ("unlinkat", true),
        ("mount", false),
        ("setns", false),
        ("bpf", false),
        ("ptrace", false),
        ("setuid", false),
        ("keyctl", false),
        ("io_uring_setup", false),
    ] {
        assert_eq!(calls.split(' ').any(|word| word == call), allowed, "{unit}: {call}");
    }
    // Root of the host with every capability, in the unit's mounts.
    let inside = |namespaces: &str, script: &str| {
        let all = ["nsenter", "-t", pid, namespaces, "sh", "-c", script];
        rig.exec(&all).unwrap()
    };
    for place in ["/etc", "/usr", "/run", "/var/lib/nomad/alloc", "/var/lib/machines", "/tmp"] {
        let out = inside("-m", &format!("echo x >{place}/confined"));
        assert!(!out.success(), "{unit} may write to {place}");
        let error = String::from_utf8_lossy(&out.stderr);
        assert!(error.contains("Read-only"), "{unit}: {place}: {error}");
    }
    assert!(inside("-m", &format!("touch {writable}/own && rm {writable}/own")).success());
    // PID 1 obeys uid 0, with or without capabilities.
    for socket in ["/run/dbus/system_bus_socket", "/run/systemd/private"] {
        // It is gone, or a socket of systemd's without mode that nobody listens at.
        let open = format!("test -S {socket} && test \"$(stat -c %a {socket})\" != 0");
        assert!(!inside("-m", &open).success(), "{unit} reaches {socket}");
    }
    let links = inside("-n", "cat /proc/net/dev").text();
    let links: Vec<_> = links.lines().filter(|l| l.contains(':') && !l.contains("lo:")).collect();
    assert!(links.is_empty(), "{unit}: {links:?}");
}

#[test]
fn s6_what_carries_output_can_do_no_more_than_that() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "carried").unwrap();
    let mut spec = task.spec(&["/bin/sh", "-c", "echo out; sleep 1000"]).unwrap();
    spec.logs = Logs::Both;
    let unit = started(&client, &spec).unit;
    let relay = unit.replace("nomad-nspawn-", "nomad-nspawn-log-");
    let pid = show(rig, &relay, "MainPID");
    let id = unit.trim_start_matches("nomad-nspawn-").trim_end_matches(".service");
    check_confined(rig, &relay, &pid, 0b11, &format!("/var/lib/nomad-nspawn/{id}"));
    assert_eq!(show(rig, &relay, "RestrictAddressFamilies"), "AF_UNIX");
    assert_eq!(show(rig, &relay, "ProtectHome"), "read-only");
    // Its lines bear what names the task, not the rest of the record.
    wait::true_within("the line with its fields", SOON, || {
        let words = ["journalctl", "-q", "-o", "export", "-u", &unit, "MESSAGE=out"];
        let line = rig.run(&words)?;
        assert!(!line.contains("NSPAWN_"), "{line}");
        Ok(line.contains(&format!("NOMAD_ALLOC_ID={}", task.key.alloc)))
    })
    .unwrap();
    let written = || Ok(task.written(0)? == b"out\n");
    wait::true_within("the line in the FIFO", SOON, written).unwrap();
    task.remove(&client).unwrap();
}

/// A tree that a payload leaves: owners of its range and of the host, modes that let nobody in,
/// sticky directories, whiteouts, odd names, and deeper than a path can be long.
const TREE: &str = r#"
set -e
cd "$1"; mkdir upper; cd upper
mkdir closed closed/in sticky sticky/of-another; touch closed/in/file sticky/of-another/file
ln -s /etc link; mkfifo fifo; mknod whiteout c 0 0; touch set-uid "$(printf 'a\nb')" -- -rf
chmod 4755 set-uid; chown -R 524288:524288 closed; chown -R 590000:590000 sticky/of-another
chmod 1777 sticky; chown 700000:700000 sticky; chmod 0000 closed/in closed
perl -e 'for (1..3000) { mkdir "d" or die; chdir "d" or die }'
"#;

#[test]
fn s6_a_clean_up_is_confined_and_deletes_a_hostile_tree() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    drop(client);
    let alloc = rig.read_file("/proc/sys/kernel/random/uuid").unwrap();
    let id = format!("{}-00000001", String::from_utf8(alloc).unwrap().trim().replace('-', ""));
    let directory = format!("/var/lib/nomad-nspawn/{id}");
    let lock = "/run/systemd/nspawn/locks/inode-confined";
    rig.run(&["mkdir", "-p", "/run/systemd/nspawn/locks", &directory]).unwrap();
    rig.run(&["sh", "-c", TREE, "sh", &directory]).unwrap();
    rig.run(&["touch", lock, &format!("{directory}/inode-confined")]).unwrap();
    // Before it begins there is time to look at it; what the unit executes is confined alike.
    let drop_in = "/run/systemd/system/nomad-nspawn-clean-.service.d";
    rig.run(&["mkdir", "-p", drop_in]).unwrap();
    let wait_first = "[Service]\nExecStartPre=/bin/sleep 1000\n";
    rig.write_file(&format!("{drop_in}/wait.conf"), wait_first, 0o644).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    drop(next_life(rig));
    let unit = format!("nomad-nspawn-clean-{id}.service");
    let pid = wait::until("the clean-up", SOON, || {
        let pid = show(rig, &unit, "ControlPID");
        // PID 1 sets it up before it becomes `sleep`.
        let name = rig.exec(&["cat", &format!("/proc/{pid}/comm")])?.text();
        Ok((name == "sleep\n").then_some(pid))
    })
    .unwrap();
    check_confined(rig, &unit, &pid, 0b1010, "/var/lib/nomad-nspawn");
    rig.run(&["kill", &pid]).unwrap();
    rig.run(&["rm", "-r", drop_in]).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    // Killed before it began, it is asked for once more.
    wait::true_within("the end of that clean-up", SOON, || {
        Ok(show(rig, &unit, "LoadState") == "not-found")
    })
    .unwrap();
    drop(next_life(rig));
    wait::true_within("the tree to be gone", Duration::from_secs(60), || {
        Ok(!rig.exists(&directory) && !rig.exists(lock))
    })
    .unwrap();
    host.world.assert_same(rig).unwrap();
}

/// The launcher makes the node, and needs more for that than the payload may do with it.
#[test]
fn s12_no_more_may_be_done_with_a_device_than_the_policy_says() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    rig.run(&["mknod", "/dev/confined", "c", "10", "237"]).unwrap();
    let allow = POLICY.replace("allow = [", "allow = [\"/dev/confined:rm\", ");
    rig.set_policy(&allow).unwrap();
    let task = Handmade::new(rig, "node").unwrap();
    let script = "mknod /made c 10 237 2>/dev/null && echo made || echo refused; sleep 1000";
    let mut spec = task.spec(&["/bin/sh", "-c", script]).unwrap();
    spec.users = Users::Host;
    for (instance, mknod, rule, said) in
        [(1, false, "/dev/confined r", "refused\n"), (2, true, "/dev/confined rm", "made\n")]
    {
        spec.key.instance = proto::name::Instance(instance);
        let path = |text: &str| Absolute::parse(text).unwrap();
        let access = DeviceAccess { read: true, write: false, mknod };
        let (host, target) = (path("/dev/confined"), Target::parse("/dev/asked").unwrap());
        spec.files.devices = vec![Device { host, target, access }];
        let unit = started(&client, &spec).unit;
        let rules = show(rig, &unit, "DeviceAllow");
        assert!(rules.lines().any(|line| line == rule), "{rules}");
        let mut all = Vec::new();
        wait::true_within(said, SOON, || {
            all.extend(task.written(0)?);
            Ok(String::from_utf8_lossy(&all) == said)
        })
        .unwrap_or_else(|e| panic!("{e:#}: {:?}", String::from_utf8_lossy(&all)));
        crate::removed(&client, &spec.key);
    }
    rig.set_policy(POLICY).unwrap();
    rig.run(&["rm", "/dev/confined"]).unwrap();
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}
