//! Capabilities, system calls, kernel settings and limits, as the kernel reports them inside.

use crate::*;

/// The bounding set inside.
fn bounding(more: Value) -> u64 {
    let text = says(more, "grep CapBnd /proc/self/status");
    u64::from_str_radix(text.trim_start_matches("CapBnd:").trim(), 16).unwrap()
}

const SYS_TIME: u64 = 1 << 25;
const CHOWN: u64 = 1;

#[test]
fn key_capability() {
    let with = |names: Value| bounding(json!({ "capability": names }));
    let default = with(json!([]));
    assert_eq!(default & (SYS_TIME | CHOWN), CHOWN);
    for names in [json!(["sys_time"]), json!(["CAP_SYS_TIME"]), json!(["chown,SYS_TIME"])] {
        assert_eq!(with(names.clone()), default | SYS_TIME, "{names}");
    }
    assert!(with(json!(["all"])).count_ones() >= 40);
    // What it is for, where the network is container root's own.
    let own = |names: Value| {
        let keys = json!({ "capability": names, "user_namespacing": false });
        let script = "ip link set lo mtu 1400 2>/dev/null; cat /sys/class/net/lo/mtu";
        says(keys, script)
    };
    assert_eq!(
        (own(json!([])).as_str(), own(json!(["net_admin"])).as_str()),
        ("65536\n", "1400\n")
    );
    refusals(&[(json!({ "capability": ["sys_nothing"] }), &["capability", "is not a capability"])]);
    strict_refusals(&[
        (json!({ "capability": ["sys_time"] }), &["sys_time", "[caps] allow"]),
        (json!({ "capability": ["all"] }), &["[caps] allow"]),
    ]);
}

#[test]
fn key_cap_drop() {
    let default = bounding(json!({}));
    for names in [json!(["chown"]), json!(["CAP_CHOWN"])] {
        assert_eq!(bounding(json!({ "cap_drop": names })), default & !CHOWN, "{names}");
    }
    assert_eq!(bounding(json!({ "cap_drop": ["all"] })), 0);
    let both = json!({ "capability": ["sys_time"], "cap_drop": ["sys_time", "chown"] });
    assert_eq!(bounding(both), default & !CHOWN);
    let script = "chown 5 /etc/passwd 2>/dev/null || echo held";
    assert_eq!(says(json!({ "cap_drop": ["chown"] }), script), "held\n");
    refusals(&[(json!({ "cap_drop": ["x"] }), &["cap_drop", "is not a capability"])]);
}

#[test]
fn key_no_new_privileges() {
    let script = "grep NoNewPrivs /proc/self/status";
    effects(&[
        (json!({ "no_new_privileges": true }), script, "NoNewPrivs:\t1\n"),
        (json!({ "no_new_privileges": false }), script, "NoNewPrivs:\t0\n"),
        (json!({}), script, "NoNewPrivs:\t0\n"),
    ]);
}

#[test]
fn key_syscall_filter() {
    let filter = |rules: Value| json!({ "syscall_filter": rules });
    let made = "mkdir /tmp/x 2>/dev/null && echo made || echo refused";
    let mounted = "mount -t tmpfs x /mnt 2>/dev/null && echo mounted || echo refused";
    effects(&[
        (filter(json!([])), made, "made\n"),
        (filter(json!(["~mkdir", "~mkdirat"])), made, "refused\n"),
        (filter(json!(["~mkdir", "~mkdirat", "mkdir"])), made, "refused\n"),
        (filter(json!([])), mounted, "mounted\n"),
        (filter(json!(["~@mount"])), mounted, "refused\n"),
    ]);
    // keyctl(2) is in no container's list: EPERM (1) is the filter's.
    let number = if cfg!(target_arch = "aarch64") { 219 } else { 250 };
    let script = format!("perl -e '$! = 0; syscall({number}, 0, -3, 0); print $! + 0'");
    let error = |rules: Value| says(with(filter(rules), json!({ "image": "debian" })), &script);
    assert_eq!(error(json!([])), "1");
    assert_ne!(error(json!(["@keyring"])), "1");
    assert_ne!(error(json!(["keyctl"])), "1");
    refusals(&[
        (filter(json!(["no such"])), &["syscall_filter = \"no such\"", "e.g. \"@clock\""]),
        (filter(json!(["~@privileged"])), &["syscall_filter ~@privileged"]),
    ]);
    strict_refusals(&[(filter(json!(["@keyring"])), &["@keyring", "[syscalls] allow_extra"])]);
}

#[test]
fn key_sysctl() {
    let sysctl = |name: &str, value: &str| json!({ "sysctl": [{ name: value }] });
    let all = [
        ("net.core.somaxconn", "321"),
        ("net.ipv4.ip_local_port_range", "20000 20100"),
        ("net.ipv4.ip_unprivileged_port_start", "500"),
        ("kernel.shmmax", "123456"),
        ("kernel.msgmax", "9000"),
        ("kernel.sem", "100 200 30 40"),
        ("fs.mqueue.msg_max", "17"),
    ];
    let files = all.map(|(name, _)| format!("/proc/sys/{}", name.replace('.', "/")));
    let read = format!("cat {} | tr '\\t' ' '", files.join(" "));
    let before = stand().rig.sh(&read).unwrap();
    let keys: Vec<Value> = all.iter().map(|(name, value)| json!({ *name: value })).collect();
    let values: String = all.iter().map(|(_, value)| format!("{value}\n")).collect();
    assert_eq!(says(json!({ "sysctl": keys }), &read), values);
    assert_eq!(stand().rig.sh(&read).unwrap(), before);
    assert!(before.lines().zip(values.lines()).all(|(host, task)| host != task), "{before}");
    refusals(&[
        (sysctl("vm.swappiness", "1"), &["sysctl \"vm.swappiness\"", "the whole host's"]),
        (sysctl("kernel.core_pattern", "x"), &["sysctl \"kernel.core_pattern\""]),
        (
            with(sysctl("net.core.somaxconn", "1"), json!({ "network_veth": false })),
            &["sysctl \"net.core.somaxconn\"", "needs a private network"],
        ),
    ]);
    for (name, value, word) in
        [("net.ipv4.none", "1", "no such setting"), ("net.core.somaxconn", "x", "take this value")]
    {
        let text = stand().refusal(&sh(sysctl(name, value), "true")).unwrap().text;
        assert!(text.contains(name) && text.contains(word), "{text}");
    }
}

#[test]
fn key_selinux_context() {
    assert!(
        !stand().rig.exists("/sys/fs/selinux/enforce"),
        "this host has SELinux: write that test"
    );
    refusals(&[(
        json!({ "selinux_context": "system_u:system_r:container_t:s0" }),
        &["selinux_context = \"system_u", "SELinux is off on this node", "remove it"],
    )]);
    effects(&[(json!({ "selinux_context": "" }), "echo runs", "runs\n")]);
}

#[test]
fn key_ulimit() {
    let shown = |limits: &[Value]| says(json!({ "ulimit": limits }), "cat /proc/self/limits");
    let of = |text: &str, line: &str| {
        let found = text.lines().find_map(|one| one.strip_prefix(line)).unwrap();
        found.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    for (name, value, seen) in [
        ("nofile", "100", "100 100"),
        ("nofile", "100:200", "100 200"),
        ("NOFILE", "50:60", "50 60"),
    ] {
        let text = shown(&[json!({ name: value })]);
        assert_eq!(of(&text, "Max open files"), seen, "{name} = {value}");
    }
    let all = [
        ("core", "0", "Max core file size", "0 0"),
        ("nproc", "50:60", "Max processes", "50 60"),
        ("memlock", "100000:200000", "Max locked memory", "100000 200000"),
        ("cpu", "3600:infinity", "Max cpu time", "3600 unlimited"),
        ("fsize", "1000000:unlimited", "Max file size", "1000000 unlimited"),
        ("stack", "infinity", "Max stack size", "unlimited unlimited"),
        ("data", "1000000000:-1", "Max data size", "1000000000 unlimited"),
        ("as", "1000000000", "Max address space", "1000000000 1000000000"),
        ("sigpending", "100", "Max pending signals", "100 100"),
        ("msgqueue", "8192", "Max msgqueue size", "8192 8192"),
        ("rss", "1000000", "Max resident set", "1000000 1000000"),
        ("locks", "100", "Max file locks", "100 100"),
        ("nice", "0", "Max nice priority", "0 0"),
        ("rtprio", "0", "Max realtime priority", "0 0"),
        ("rttime", "5:6", "Max realtime timeout", "5 6"),
    ];
    let text = shown(&all.map(|(name, value, ..)| json!({ name: value })));
    for (name, value, line, seen) in all {
        assert_eq!(of(&text, line), seen, "{name} = {value}");
    }
    let ulimit = |name: &str, value: &str| json!({ "ulimit": [{ name: value }] });
    refusals(&[
        (ulimit("files", "1"), &["ulimit.files", "is not a process limit", "nofile"]),
        (ulimit("nofile", "2:1"), &["ulimit.nofile = \"2:1\"", "above the hard limit"]),
        (ulimit("nofile", "many"), &["ulimit.nofile", "soft or soft:hard"]),
        (json!({ "ulimit": [{ "nofile": "1", "NOFILE": "2" }] }), &["ulimit.nofile", "twice"]),
    ]);
    refusals(&[(ulimit("rtprio", "0:99"), &["rtprio = 99", "[limits] ulimit"])]);
}

/// What jobs ask for that lock memory and hold many connections.
#[test]
fn a_ulimit_above_what_a_unit_gets_is_as_asked() {
    let rig = &stand().rig;
    let keys = json!({ "ulimit": [{ "memlock": "infinity", "nofile": "65536:1048576" }] });
    let script = "echo $(ulimit -l) $(ulimit -n) $(ulimit -Hn)";
    let seen = says(keys, script);
    // A host that is a container itself may not raise what it has been given.
    let of_pid_1 = |line: &str| {
        let text = rig.sh("cat /proc/1/limits").unwrap();
        let found = text.lines().find_map(|one| one.strip_prefix(line)).unwrap();
        found.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap_or(u64::MAX)
    };
    let able = |limit: &str| rig.exec(&["prlimit", limit, "true"]).unwrap().success();
    let memory = match of_pid_1("Max locked memory") {
        most if most < u64::MAX && !able("--memlock=unlimited") => (most / 1024).to_string(),
        _ => "unlimited".to_owned(),
    };
    let files = of_pid_1("Max open files");
    let files = if able("--nofile=1048576") { u64::MAX } else { files };
    let expected = format!("{memory} {} {}\n", files.min(65_536), files.min(1_048_576));
    assert_eq!(seen, expected);
}

/// The unit has it; whether it is felt depends on the host's cgroup controllers.
#[test]
fn key_pids_limit() {
    // Three more are for systemd-nspawn itself.
    for (limit, most) in [(json!(7), "10"), (json!("8"), "11"), (json!(4_194_304), "4194307")] {
        let task = started(&sh(json!({ "pids_limit": limit }), "echo up; sleep 1000"));
        let show = ["systemctl", "show", "-P", "TasksMax", &task.unit()];
        assert_eq!(stand().rig.run(&show).unwrap(), most);
        task.stop("SIGKILL").unwrap();
    }
    if stand().rig.exists("/sys/fs/cgroup/machine.slice/pids.max") {
        let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done 2>&1 | grep -c fork; true";
        assert_ne!(says(json!({ "pids_limit": 5 }), script), "0\n");
    }
    refusals(&[
        (json!({ "pids_limit": 0 }), &["pids_limit = 0", "must be 1 to 4194304"]),
        (json!({ "pids_limit": -1 }), &["pids_limit = -1"]),
        (json!({ "pids_limit": 4_194_305 }), &["pids_limit"]),
        (json!({ "pids_limit": "x" }), &["pids_limit = \"x\"", "must be a whole number"]),
    ]);
}
