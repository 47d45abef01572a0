//! Jobs that break one rule each about files, isolation, network, resources and logs, with the problem
//! that must be named.

use super::cases::Case;
use super::*;

/// All of them.
pub(super) fn all() -> Vec<Case> {
    let one = |key, value: Value, problem| (vec![(key, value)], problem);
    let command = || ("boot", Value::from(false));
    vec![
        // Files and devices.
        one("bind", pairs(&[("", "/a")]), r#"bind "" = "": the source must not be empty"#),
        one("bind", pairs(&[("+/a", "/a")]), "sources inside the image are not supported"),
        one("bind", pairs(&[("../a", "/a")]), "a relative source is below the task's directory"),
        one("bind", pairs(&[("private", "/a")]), "private part are not for the task"),
        one("bind", pairs(&[("/a", "b")]), r#"bind "/a" = "b": must be an absolute path"#),
        one(
            "bind",
            pairs(&[("/a", "/b:ro")]),
            r#"bind "/a" = "ro": knows no such option (rbind, norbind"#,
        ),
        one(
            "bind",
            pairs(&[("/a", "/b:rbind:x")]),
            "must be a target, and options behind one colon",
        ),
        one(
            "bind",
            pairs(&[("/a", "/proc/x")]),
            "nothing is mounted at or below /proc, /sys and /run/host",
        ),
        one("bind", pairs(&[("/a", "/alloc")]), "the task has a mount of its own there"),
        one(
            "bind",
            pairs(&[("/a", "/x"), ("/b", "/x")]),
            "is mounted at the same place (leave one out)",
        ),
        one("bind_idmap", "all".into(), "must be one of auto, none, idmap, rootidmap, owneridmap"),
        one("mount", blocks(&[]), "mount[0].target: is required"),
        one(
            "mount",
            blocks(&[("target", "/a".into())]),
            r#"mount[0].source = "": the source must not be empty"#,
        ),
        one(
            "mount",
            blocks(&[("type", "nfs".into()), ("target", "/a".into())]),
            "must be one of bind, tmpfs, overlay",
        ),
        one(
            "mount",
            blocks(&[
                ("source", "/a".into()),
                ("target", "/a".into()),
                ("propagation", "bidirectional".into()),
            ]),
            r#"mount[0].propagation = "bidirectional": a container has a mount namespace of its own"#,
        ),
        one(
            "mount",
            blocks(&[("type", "tmpfs".into()), ("source", "/a".into()), ("target", "/a".into())]),
            "mount[0].source: has no meaning for a mount of type tmpfs",
        ),
        one(
            "mount",
            blocks(&[
                ("type", "overlay".into()),
                ("source", "/up".into()),
                ("target", "/a".into()),
            ]),
            "mount[0]: lacks a lower layer",
        ),
        one(
            "tmpfs",
            list(&["/a:size=50%"]),
            r#"tmpfs "/a:size=50%" = "size=50%": knows no such option"#,
        ),
        one("tmpfs", list(&["/a:mode=17777"]), "knows no such option (size=BYTES"),
        one("tmpfs", list(&["a"]), "must be an absolute path"),
        one("inaccessible", list(&["a"]), r#"inaccessible = "a": must be an absolute path"#),
        one("device", blocks(&[]), "device[0].host_path: is required"),
        one(
            "device",
            blocks(&[("host_path", "/srv/x".into())]),
            "must lie below /dev (use bind for other files)",
        ),
        one(
            "device",
            blocks(&[("host_path", "/dev/fuse".into()), ("permissions", "rx".into())]),
            r#"device[0]: permissions = "rx": must be some of the letters r, w and m"#,
        ),
        one(
            "credential",
            blocks(&[("name", "a".into())]),
            "credential[0]: needs exactly one of source and value",
        ),
        one(
            "credential",
            blocks(&[("name", "a".into()), ("value", "x".into()), ("source", "secrets/a".into())]),
            "needs exactly one of source and value",
        ),
        one(
            "credential",
            blocks(&[("name", "a/b".into()), ("value", "canary".into())]),
            r#"credential[0].name = "a/b": not a valid credential name"#,
        ),
        one(
            "credential",
            blocks(&[("name", "a".into()), ("source", "private/x".into())]),
            "must be a file below the task's secrets or local directory",
        ),
        // Isolation.
        one("capability", list(&["FLY"]), r#"capability = "FLY": is not a capability"#),
        one("cap_drop", list(&["FLY"]), r#"cap_drop = "FLY": is not a capability"#),
        one("syscall_filter", list(&["~"]), r#"syscall_filter = "~": not a valid system call"#),
        one(
            "sysctl",
            pairs(&[("kernel.panic", "1")]),
            r#"sysctl "kernel.panic": is the whole host's"#,
        ),
        one("sysctl", pairs(&[("net", "1")]), r#"sysctl "net": not a valid sysctl"#),
        (
            vec![("network_veth", false.into()), ("sysctl", pairs(&[("net.core.somaxconn", "1")]))],
            "needs a private network: this one is shared",
        ),
        one(
            "selinux_context",
            "system_u:system_r:container_t:s0".into(),
            "SELinux is off on this node (remove it, or constrain the job to nodes with SELinux)",
        ),
        // Network.
        (
            vec![("network_zone", "a".into()), ("network_bridge", "b".into())],
            r#"network_zone = "a": excludes network_bridge"#,
        ),
        (
            vec![("private_network", true.into()), ("network_veth", false.into())],
            "private_network = true: excludes network_veth = false, the host's network",
        ),
        one("network_zone", "a b".into(), r#"network_zone = "a b": not a valid zone name"#),
        one("network_zone", "-a".into(), "beginning with a letter or digit"),
        one("ipv4_address", "10.0.0.1/24".into(), "must be an address without a prefix length"),
        one("ipv4_address", "fd00::1".into(), r#"ipv4_address = "fd00::1": must be"#),
        one("ipv6_address", "10.0.0.1".into(), r#"ipv6_address = "10.0.0.1": must be"#),
        one("mac_address", "02-00-00-00-00-01".into(), "joined by colons"),
        one("mac_address", "01:00:5e:00:00:01".into(), "must be of one interface"),
        (
            vec![("network_zone", "a".into()), ("network_veth", false.into())],
            r#"network_zone = "a": excludes network_veth = false, the host's network"#,
        ),
        (
            vec![("ipv4_address", "10.0.0.9".into()), ("private_network", true.into())],
            "excludes private_network = true, which is loopback alone (remove one of them)",
        ),
        one("extra_hosts", list(&["db"]), r#"extra_hosts = "db": must be name:address"#),
        one(
            "extra_hosts",
            list(&["db:x"]),
            r#"extra_hosts = "db:x": the address must be an IP address"#,
        ),
        one("extra_hosts", list(&["d_b:::1"]), "not a valid host name"),
        // Resources.
        one("pids_limit", 0.into(), "pids_limit = 0: must be 1 to 4194304"),
        one("oom_score_adj", 1001.into(), "oom_score_adj = 1001: must be -1000 to 1000"),
        one("io_weight", 0.into(), "io_weight = 0: must be 1 to 10000"),
        one("memory_swap", "much".into(), "memory_swap = \"much\": must be a size of at most 64t"),
        one("memory_swap", "-1".into(), "memory_swap = \"-1\": must be a size"),
        one("cpu_boost", 1.into(), "cpu_boost = 1: must be 2 to 100"),
        one("cpu_boost", 4.into(), "cpu_boost = 4: ends when the task is ready"),
        one("oom", "kill".into(), "oom = \"kill\": must be one of process, task"),
        one("slice", "batch".into(), "slice = \"batch\": "),
        one("egress", list(&["10.0.0.0/8"]), "egress = \"10.0.0.0/8\": must begin with deny"),
        one("egress", list(&["deny", "10.0.0.1/8"]), "egress = \"10.0.0.1/8\": is not an address"),
        one("egress", list(&["deny"; 130]), "129 addresses, but at most 128"),
        one(
            "properties",
            pairs(&[("TasksMax", "5")]),
            "properties.TasksMax = \"5\": is not one of MemoryHigh, IOReadBandwidthMax",
        ),
        one("properties", pairs(&[("TasksMax", "5")]), "(write pids_limit)"),
        one(
            "properties",
            pairs(&[("MemoryHigh", "0")]),
            "MemoryHigh = \"0\": must be a size above",
        ),
        one(
            "properties",
            pairs(&[("IOReadIOPSMax", "/dev/vda 9,/srv 1")]),
            "must be DEVICE MOST (e.g. \"/dev/vda 10m\")",
        ),
        one(
            "ulimit",
            pairs(&[("files", "1")]),
            "ulimit.files: is not a process limit (one of as, core, cpu",
        ),
        one(
            "ulimit",
            pairs(&[("nofile", "2:1")]),
            r#"ulimit.nofile = "2:1": the soft limit is above the hard limit"#,
        ),
        one(
            "ulimit",
            pairs(&[("nofile", "many")]),
            "must be soft or soft:hard, numbers or infinity",
        ),
        one("ulimit", pairs(&[("nofile", "1"), ("NOFILE", "1")]), "is there twice"),
        // Logs and labels.
        one(
            "logging",
            map(&[("driver", "syslog".into())]),
            "must be one of nomad, journald, both, none",
        ),
        one("logging", map(&[("priority", "loud".into())]), "must be one of err, emerg"),
        (
            vec![command(), ("logging", map(&[("journal", true.into())]))],
            "logging.journal = true: needs boot: a command has no journal of its own",
        ),
        one(
            "logging",
            map(&[("journal", true.into()), ("driver", "none".into())]),
            "logging.journal = true: fills Nomad's log, and this task has none",
        ),
        one("labels", pairs(&[("team", "x")]), r#"labels.team = "x": not a valid label name"#),
        one("labels", pairs(&[("NOMAD_X", "x")]), "must not begin as a field of systemd's"),
        one("labels", pairs(&[("A", "x\n")]), "not a valid label value"),
        one(
            "logging",
            map(&[("drivr", "x".into())]),
            "logging.drivr: is not a key of this version of the nspawn driver (correct",
        ),
    ]
}
