//! Capabilities, system calls, limits and kernel settings, as the kernel reports them inside.

use crate::{debian, host, refusal, run, says, start};
use nspawn_tests::hostile::Door;
use nspawn_tests::wait;
use proto::capability::Capabilities;
use proto::task_spec::process::{
    LimitName, ProcessLimit, SelinuxContext, SyscallName, SyscallRule, Sysctl, SysctlName,
    SysctlValue, User,
};
use proto::task_spec::{Network, Payload, TaskSpec, Users};
use proto::wire::Answer;
use std::time::Duration;

/// The bounding set inside.
fn bounding(add: &str, drop: &str) -> u64 {
    let set = |names: &str| {
        names
            .split_whitespace()
            .fold(Capabilities::default(), |all, name| all.with(Capabilities::named(name).unwrap()))
    };
    let text = says("grep CapBnd /proc/self/status", |spec| {
        spec.isolation.add = set(add);
        spec.isolation.drop = set(drop);
    });
    u64::from_str_radix(text.trim_start_matches("CapBnd:").trim(), 16).unwrap()
}

#[test]
fn capabilities_are_added_and_dropped() {
    const SYS_TIME: u64 = 1 << 25;
    const CHOWN: u64 = 1;
    let default = bounding("", "");
    assert_eq!(default & (SYS_TIME | CHOWN), CHOWN);
    assert_eq!(bounding("sys_time", ""), default | SYS_TIME);
    assert_eq!(bounding("", "chown"), default & !CHOWN);
    // Dropping wins.
    assert_eq!(bounding("sys_time", "sys_time chown"), default & !CHOWN);
    assert_eq!(bounding("", "all"), 0);
    assert!(bounding("all", "").count_ones() >= 40);
}

/// A file's own inheritable set would give them to any user inside (capabilities(7)). The others
/// are what systemd-nspawn makes of its options.
#[test]
fn no_capability_is_inheritable() {
    const USERNS: &str = "00000000fdecabff";
    const NONE: &str = "0000000000000000";
    let sets = |change: &dyn Fn(&mut TaskSpec)| {
        let text = says("grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status", |s| change(s));
        let words = text.split_whitespace().filter(|word| !word.starts_with("Cap"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let all = |set: &'static str| [NONE, set, set, set, NONE];
    let named = |name: &str| Capabilities::named(name).unwrap();
    assert_eq!(sets(&|_| ()), all(USERNS));
    assert_eq!(sets(&|s| s.isolation.add = named("sys_time")), all("00000000ffecabff"));
    assert_eq!(sets(&|s| s.isolation.drop = named("chown")), all("00000000fdecabfe"));
    assert_eq!(sets(&|s| s.isolation.drop = named("all")), all(NONE));
    // The network is the host's: the payload could not bind, so it is not to believe that it can.
    assert_eq!(sets(&|s| s.isolation.add = named("net_bind_service")), all(USERNS));
    let stub = |s: &mut TaskSpec| {
        if let Payload::Command { words } = &s.payload {
            s.payload = Payload::ProcessTwo { words: words.clone() };
        }
    };
    assert_eq!(sets(&stub), all(USERNS));
    // A set-uid program still has a bounding set to work in.
    let user = |s: &mut TaskSpec| {
        debian(s);
        s.process.user = Some(User::parse("daemon").unwrap());
    };
    assert_eq!(sets(&user), [NONE, NONE, NONE, USERNS, NONE]);
    // Without user namespace no more than the host has.
    let host = sets(&|s| s.users = Users::Host);
    assert_eq!((host[0].as_str(), host[4].as_str()), (NONE, NONE), "{host:?}");
    let own = u64::from_str_radix(&host[3], 16).unwrap();
    assert!(own & !0xfdec_afff == 0 && own & 0x20_0000 != 0, "{host:?}");
    sets(&|s| (s.users, s.isolation.add) = (Users::Host, Capabilities::ALL));
}

#[test]
fn no_new_privileges_is_set() {
    let state =
        |on| says("grep NoNewPrivs /proc/self/status", |s| s.isolation.no_new_privileges = on);
    assert_eq!(
        (state(false).as_str(), state(true).as_str()),
        ("NoNewPrivs:\t0\n", "NoNewPrivs:\t1\n")
    );
}

fn rules(rules: &'static [(bool, &str)]) -> impl Fn(&mut TaskSpec) {
    move |spec| {
        let rule = |(allow, name): &(bool, &str)| SyscallRule {
            allow: *allow,
            name: SyscallName::new(*name).unwrap(),
        };
        spec.isolation.syscalls = rules.iter().map(rule).collect();
    }
}

#[test]
fn system_calls_are_taken_out_and_added() {
    let script = "mkdir /tmp/x && echo made || echo refused; ls / >/dev/null && echo listed";
    let outcome = |with: &'static [(bool, &str)]| run(script, rules(with)).stdout;
    assert_eq!(outcome(&[]), "made\nlisted\n");
    assert_eq!(outcome(&[(false, "mkdir"), (false, "mkdirat")]), "refused\nlisted\n");
    // What is taken out stays out, whatever the order.
    assert_eq!(
        outcome(&[(false, "mkdir"), (false, "mkdirat"), (true, "mkdir")]),
        "refused\nlisted\n"
    );
    // A whole group; the shell itself needs none of it.
    let mounts = |with| run("mount -t tmpfs x /mnt && echo mounted", rules(with)).stdout;
    assert_eq!(mounts(&[]), "mounted\n");
    assert_eq!(mounts(&[(false, "@mount")]), "");
    // A group that systemd-nspawn would leave in without a word.
    let text = refusal(rules(&[(false, "@privileged")]));
    assert!(text.contains("syscall_filter ~@privileged"), "{text}");
}

/// keyctl(2) is in no container's list: EPERM (1) is the filter's, ENOKEY (126) the call's own.
#[test]
fn a_system_call_can_be_added() {
    let number = if cfg!(target_arch = "aarch64") { 219 } else { 250 };
    let script = format!("perl -e '$! = 0; syscall({number}, 0, -3, 0); print $! + 0'");
    let error = |with: &'static [(bool, &str)]| {
        says(&script, |spec| {
            debian(spec);
            rules(with)(spec);
        })
    };
    assert_eq!(error(&[]), "1");
    assert_ne!(error(&[(true, "@keyring")]), "1");
    assert_ne!(error(&[(true, "keyctl")]), "1");
    // Taking out wins.
    assert_eq!(error(&[(false, "keyctl"), (true, "keyctl")]), "1");
}

fn limits(all: &[(LimitName, Option<u64>, Option<u64>)]) -> Vec<ProcessLimit> {
    all.iter().map(|&(resource, soft, hard)| ProcessLimit { resource, soft, hard }).collect()
}

#[test]
fn limits_are_those_that_were_asked_for() {
    let text = says("cat /proc/self/limits", |spec| {
        spec.isolation.limits = limits(&[
            (LimitName::OpenFiles, Some(100), Some(200)),
            (LimitName::Core, Some(0), Some(0)),
            (LimitName::Processes, Some(50), Some(60)),
            (LimitName::LockedMemory, Some(100_000), Some(200_000)),
            (LimitName::Cpu, Some(3600), None),
            (LimitName::RealtimeTime, Some(5), Some(6)),
            (LimitName::Stack, None, None),
            (LimitName::FileSize, Some(1_000_001), None),
        ]);
    });
    for (name, values) in [
        ("Max open files", "100 200"),
        ("Max core file size", "0 0"),
        ("Max processes", "50 60"),
        ("Max locked memory", "100000 200000"),
        ("Max cpu time", "3600 unlimited"),
        ("Max realtime timeout", "5 6"),
        ("Max stack size", "unlimited unlimited"),
        ("Max file size", "1000001 unlimited"),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(words.join(" "), values, "{name}: {text}");
    }
}

/// The hard limit of PID 1, which none of its units can be above on a host that is a container.
fn most(line: &str) -> Option<u64> {
    let text = host().sh("cat /proc/1/limits").unwrap();
    let found = text.lines().find_map(|one| one.strip_prefix(line)).unwrap();
    found.split_whitespace().nth(1).unwrap().parse().ok()
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or("unlimited".to_owned(), |limit| limit.to_string())
}

/// PID 1 gives its units less than it has, as distributions have it.
#[test]
fn a_limit_above_the_units_own_is_as_asked() {
    const DROP_IN: &str = "/etc/systemd/system.conf.d/limits.conf";
    let small = "[Manager]\nDefaultLimitNOFILE=1024:2048\nDefaultLimitMEMLOCK=64K\n";
    host().run(&["mkdir", "-p", "/etc/systemd/system.conf.d"]).unwrap();
    host().write_file(DROP_IN, small, 0o644).unwrap();
    host().run(&["systemctl", "daemon-reload"]).unwrap();
    let (files, memory) = (most("Max open files"), most("Max locked memory"));
    let text = says("cat /proc/self/limits", |spec| {
        spec.isolation.limits = limits(&[
            (LimitName::OpenFiles, Some(1500), files),
            (LimitName::LockedMemory, memory, memory),
        ]);
    });
    host().run(&["rm", DROP_IN]).unwrap();
    host().run(&["systemctl", "daemon-reload"]).unwrap();
    for (name, values) in [
        ("Max open files", format!("1500 {}", shown(files))),
        ("Max locked memory", format!("{} {}", shown(memory), shown(memory))),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(words.join(" "), values, "{name}: {text}");
    }
}

#[test]
fn an_selinux_context_needs_selinux() {
    assert!(!host().exists("/sys/fs/selinux/enforce"), "this host has SELinux: write that test");
    let text = refusal(|spec| {
        spec.isolation.selinux =
            Some(SelinuxContext::new("system_u:system_r:container_t:s0").unwrap());
    });
    assert!(text.contains("SELinux is not active on this host"), "{text}");
}

fn sysctls(all: &[(&str, &str)]) -> Vec<Sysctl> {
    let one = |(name, value): &(&str, &str)| Sysctl {
        name: SysctlName::new(*name).unwrap(),
        value: SysctlValue::new(*value).unwrap(),
    };
    all.iter().map(one).collect()
}

#[test]
fn kernel_settings_are_the_tasks_own() {
    const NAMES: [&str; 6] = [
        "net/core/somaxconn",
        "net/ipv4/ip_local_port_range",
        "net/ipv4/ip_unprivileged_port_start",
        "kernel/shmmax",
        "kernel/sem",
        "fs/mqueue/msg_max",
    ];
    let read = NAMES.map(|name| format!("/proc/sys/{name}")).join(" ");
    let outside = || host().sh(&format!("cat {read}; cd /proc/sys; readlink /proc/self/ns/ipc"));
    let before = outside().unwrap();
    let set = sysctls(&[
        ("net.core.somaxconn", "321"),
        ("net.ipv4.ip_local_port_range", "20000 20100"),
        ("net.ipv4.ip_unprivileged_port_start", "500"),
        ("kernel.shmmax", "123456"),
        ("kernel.sem", "100 200 30 40"),
        ("fs.mqueue.msg_max", "17"),
    ]);
    let script = format!("cat {read}; touch /dev/mqueue/q && ls /dev/mqueue");
    let text = says(&script, |spec| spec.isolation.sysctls = set);
    let lines: Vec<_> = text.lines().map(|line| line.replace('\t', " ")).collect();
    let expected = ["321", "20000 20100", "500", "123456", "100 200 30 40", "17", "q"];
    assert_eq!(lines[..7], expected, "{text}");
    assert_eq!(outside().unwrap(), before);
}

#[test]
fn a_booted_container_keeps_its_message_queues() {
    let client = Door::of(host()).unwrap().enter().unwrap();
    let (task, answer) = start(&client, "", |spec| {
        debian(spec);
        spec.payload = Payload::Boot { arguments: vec![] };
        spec.isolation.sysctls =
            sysctls(&[("kernel.msgmax", "9000"), ("net.core.somaxconn", "99")]);
    });
    let Ok(Answer::Started(started)) = answer else { panic!("{answer:?}") };
    let leader = started.leader.unwrap().to_string();
    let inside = |script: &str| {
        host().exec(&["nsenter", "--target", &leader, "--all", "sh", "-c", script]).unwrap().text()
    };
    wait::true_within("the container's boot", Duration::from_secs(30), || {
        let state = inside("systemctl is-system-running");
        Ok(["running\n", "degraded\n"].contains(&state.as_str()))
    })
    .unwrap();
    let failed = inside("systemctl --failed --plain --no-legend");
    assert_eq!(failed, "");
    let text = inside(
        "cat /proc/sys/kernel/msgmax; mount | grep mqueue; touch /dev/mqueue/a; ls /dev/mqueue",
    );
    assert!(text.starts_with("9000\n") && text.ends_with("\na\n"), "{text}");
    assert!(text.contains("on /dev/mqueue type mqueue"), "{text}");
    task.remove(&client).unwrap();
}

#[test]
fn other_kernel_settings_are_refused_by_name() {
    let one = |name: &'static str, value: &'static str| {
        refusal(move |spec| spec.isolation.sysctls = sysctls(&[(name, value)]))
    };
    for (name, value, words) in [
        ("kernel.core_pattern", "x", "sysctl kernel.core_pattern"),
        ("vm.swappiness", "1", "sysctl vm.swappiness"),
        ("kernel.sem_next_id", "1", "sysctl kernel.sem_next_id"),
        ("net.ipv4.no_such", "1", "no such setting in a namespace of the task's own"),
        ("net.core.somaxconn", "many", "the kernel does not take this value"),
        ("kernel.shmmax_x", "1", "no such setting"),
        ("net.ipv4", "1", "sysctl net.ipv4"),
    ] {
        let text = one(name, value);
        assert!(text.contains(words) && text.contains(name), "{name}: {text}");
    }
    let text = refusal(|spec| {
        spec.network = Network::Host;
        spec.isolation.sysctls = sysctls(&[("net.core.somaxconn", "1")]);
    });
    assert!(text.contains("net.core.somaxconn"), "{text}");
}
