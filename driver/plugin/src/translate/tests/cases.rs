//! Jobs that break one rule each, with the problem that must be named.

use super::*;

/// Keys of a job, and a part of its refusal.
pub(super) type Case = (Vec<(&'static str, Value)>, &'static str);

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [payload(), rest()].concat()
}

/// Rules about image, root and process, those of the older driver first.
fn payload() -> Vec<Case> {
    let one = |key, value: Value, problem| (vec![(key, value)], problem);
    let command = || ("boot", Value::from(false));
    vec![
        // What the older driver checked.
        one(
            "volatile",
            "maybe".into(),
            r#"volatile = "maybe": must be one of no, yes, state, overlay"#,
        ),
        one(
            "console",
            "tty".into(),
            r#"console = "tty": must be one of read-only, interactive, passive, pipe, autopipe"#,
        ),
        one(
            "resolv_conf",
            "copy".into(),
            r#"resolv_conf = "copy": must be one of auto, off, delete, copy-host, "#,
        ),
        one(
            "private_users",
            "some".into(),
            r#"private_users = "some": must be yes, no, pick, identity, uid or uid:count (e.g. 524288:65536)"#,
        ),
        one("private_users", "1:0".into(), "the range must have 1 to 65536 ids"),
        one("private_users", "1:65537".into(), "the range must have 1 to 65536 ids"),
        one("private_users", "4294967295:2".into(), "the range ends above the largest uid"),
        one("private_users", "70000".into(), "must begin at a multiple of 65536 from 524288"),
        one(
            "private_users_ownership",
            "mine".into(),
            r#"private_users_ownership = "mine": must be one of auto, map, chown, off, foreign"#,
        ),
        one(
            "process_two",
            true.into(),
            "process_two = true: excludes boot: init must be PID 1 (set boot = false, or remove process_two)",
        ),
        (
            vec![("volatile", "no".into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": excludes volatile: the owners are rewritten on disk (write map, which changes nothing on disk)"#,
        ),
        (
            vec![("read_only", true.into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": excludes read_only"#,
        ),
        (
            vec![("image", "x.raw".into()), ("private_users_ownership", "chown".into())],
            r#"private_users_ownership = "chown": needs an image that is a directory"#,
        ),
        one(
            "working_directory",
            "srv".into(),
            r#"working_directory = "srv": must be an absolute path (write the path from / on, without ..)"#,
        ),
        one("pivot_root", "a".into(), r#"pivot_root = "a": must be an absolute path"#),
        one("pivot_root", "/a:b".into(), r#"pivot_root = "b": must be an absolute path"#),
        one("pivot_root", "/a:/b:/c".into(), "one or two absolute paths joined by a colon"),
        one("pivot_root", "/".into(), "/ is the root already"),
        one("pivot_root", "/a:/run/host".into(), r#"pivot_root = "/run/host": nothing is mounted"#),
        one("pivot_root", "/a:/run".into(), "the task has a mount of its own there"),
        (
            vec![("pivot_root", "/a:/b".into()), ("bind", pairs(&[("/a", "/b")]))],
            "pivot_root is mounted at the same place (leave one out)",
        ),
        one(
            "image",
            "/".into(),
            r#"image = "/": the host's own root would be changed (add ephemeral = true, or volatile = "yes" or "state")"#,
        ),
        (
            vec![("image", "/".into()), ("volatile", "overlay".into())],
            "the host's own root would be changed",
        ),
        one("image", "".into(), r#"image = "": must not be empty"#),
        one("image", "a/../b".into(), "must not hold .. components"),
        one("image", "./".into(), "the agent's own directory is not an image"),
        one("image", "a\nb".into(), "must not hold control characters"),
        one("image", "docker://x".into(), "cannot download images yet"),
        one("image", "none/here".into(), "there is no such file or directory below"),
        one("image", "a b".into(), "letters, digits and ._-+ only"),
        one(
            "image_download",
            map(&[("url", "x".into()), ("type", "zip".into())]),
            r#"image_download.type = "zip": must be one of tar, raw, docker"#,
        ),
        one(
            "image_download",
            map(&[("url", "x".into()), ("verify", "yes".into())]),
            r#"image_download.verify = "yes": must be one of no, checksum, signature"#,
        ),
        one("image_download", map(&[]), "image_download.url: is required"),
        one("port_map", pairs(&[("http", "0")]), "port_map.http = 0: must be 1 to 65535"),
        (
            vec![("port_map", pairs(&[("http", "1")])), ("ports", list(&["http"]))],
            "port_map: excludes ports (remove port_map, which is deprecated)",
        ),
        // Image and root.
        one(
            "ephemeral_mode",
            "tmpfs".into(),
            r#"ephemeral_mode = "tmpfs": has no effect without ephemeral"#,
        ),
        one("ephemeral_mode", "snapshot".into(), "must be one of auto, overlay, tmpfs"),
        one(
            "persist",
            "alloc".into(),
            "keeps the changes of an ephemeral root, which this task does not have",
        ),
        (
            vec![
                ("persist", "alloc".into()),
                ("ephemeral", true.into()),
                ("ephemeral_mode", "tmpfs".into()),
            ],
            r#"persist = "alloc": excludes ephemeral_mode = "tmpfs": memory keeps nothing"#,
        ),
        one("persist", "job".into(), "must be one of none, alloc"),
        one(
            "overlay",
            list(&["/a"]),
            r#"overlay "/a": must be at least two paths joined by colons"#,
        ),
        one("overlay", list(&["::/t"]), "the source must not be empty"),
        one("overlay_ro", list(&["/a:t"]), r#"overlay_ro "/a:t" = "t": must be an absolute path"#),
        // Process.
        one("user", "www".into(), r#"user = "www": excludes boot: init must run as root"#),
        (
            vec![command(), ("user", "-x".into())],
            r#"user = "-x": not a valid user: no leading dash"#,
        ),
        one("command", list(&["a\0"]), "command[0]: must be without NUL"),
        (vec![command(), ("command", list(&[""]))], "command: its first word is empty"),
        (
            vec![("args", list(&["a"])), ("command", list(&["b"]))],
            "args: excludes command (remove one of them)",
        ),
        one("environment", pairs(&[("a-b", "c")]), r#"environment variable "a-b": not a valid"#),
        one(
            "hostname",
            "a_b".into(),
            r#"hostname = "a_b": not a valid host name: labels of letters"#,
        ),
        one(
            "stop_signal",
            "SIGFOO".into(),
            r#"stop_signal = "SIGFOO": is not a signal (write a name like SIGTERM"#,
        ),
        one(
            "ready",
            map(&[("mode", "soon".into())]),
            "must be one of started, notify, network, exec",
        ),
        one(
            "ready",
            map(&[("mode", "exec".into())]),
            r#"ready.mode = "exec": this version of the nspawn driver cannot"#,
        ),
        one(
            "ready",
            map(&[("mode", "exec".into())]),
            "cannot do it yet (write started, notify or network)",
        ),
        one("ready", map(&[("command", list(&["x"]))]), "ready.command: this version"),
        one("ready", map(&[("timeout", "0".into())]), "ready.timeout = 0ns: must be 1s to 1h"),
        one("ready", map(&[("timeout", "1h1ms".into())]), "must be 1s to 1h"),
        one(
            "ready",
            map(&[("timeout", "soon".into())]),
            r#"must be a duration like "30s" or "1h30m""#,
        ),
        (
            vec![
                command(),
                ("process_two", true.into()),
                ("ready", map(&[("mode", "notify".into())])),
            ],
            "ready.mode: notify excludes process_two: PID 1 must say READY=1",
        ),
        (
            vec![("private_network", true.into()), ("ready", map(&[("mode", "network".into())]))],
            "ready.mode: network excludes private_network: loopback has no address",
        ),
        one("timezone", "utc".into(), "must be one of off, copy, bind, symlink, delete, auto"),
    ]
}

/// Rules about files, isolation, network, resources and logs.
fn rest() -> Vec<Case> {
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
        one("memory_swap", "much".into(), "must be a size like"),
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
