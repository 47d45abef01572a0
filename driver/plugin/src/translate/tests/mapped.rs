//! What each key becomes in the specification.

use super::*;
use crate::translate::Node;
use proto::capability::Capabilities;
use proto::path::Absolute;
use proto::secret::Secret;
use proto::target::Target;
use proto::task_spec::process::{Console, LimitName, Ready};
use proto::task_spec::resources::{IoLimit, OomScope, Property, Swap};
use proto::task_spec::{
    Image, ImageKind, Layer, Logs, Network, Ownership, Payload, Root, RootFs, Users, Volatile,
};

fn path(text: &str) -> Absolute {
    Absolute::parse(text).unwrap()
}

#[test]
fn a_plain_job_becomes_a_specification() {
    let spec = spec(&[]);
    assert_eq!(spec.key.to_string(), format!("{ALLOC}/web/00c0ffee"));
    assert_eq!(spec.root, RootFs::tree(Root::Plain));
    assert_eq!(spec.network, Network::with_ports(vec![]));
    assert_eq!(spec.logs, Logs::Fifos);
    assert_eq!(spec.payload, Payload::Boot { arguments: vec![] });
    assert!(spec.users.isolates() && spec.stop_signal.is_none());
    assert_eq!(spec.files, proto::task_spec::Files::default());
    assert_eq!(spec.isolation, proto::task_spec::Isolation::default());
    assert_eq!(spec.process, proto::task_spec::Process::default());
    let loopback = super::spec(&[("private_network", true.into())]);
    assert_eq!(loopback.network, Network::Loopback);
    assert_eq!(loopback.names, proto::task_spec::Names::default());
}

#[test]
fn start_modes_follow_two_keys() {
    let words = || vec![Secret::new("true")];
    let mode = |boot, two| {
        let entries = [("boot", boot), ("process_two", two), ("command", list(&["true"]))];
        try_keys(&entries).map(|spec| spec.payload)
    };
    let (yes, no) = (|| Value::from(true), || Value::from(false));
    assert_eq!(mode(Value::Nil, no()), Ok(Payload::Boot { arguments: words() }));
    assert_eq!(mode(yes(), no()), Ok(Payload::Boot { arguments: words() }));
    assert_eq!(mode(no(), no()), Ok(Payload::Command { words: words() }));
    assert_eq!(mode(no(), yes()), Ok(Payload::ProcessTwo { words: words() }));
}

#[test]
fn roots_follow_four_keys() {
    let mode = |entries: &[(&str, Value)]| spec(entries).root.mode;
    let yes = Value::from(true);
    let ephemeral = ("ephemeral", yes.clone());
    assert_eq!(mode(std::slice::from_ref(&ephemeral)), Root::Ephemeral(Layer::Disk));
    for (word, layer) in [("overlay", Layer::Disk), ("tmpfs", Layer::Memory)] {
        let entries = [ephemeral.clone(), ("ephemeral_mode", word.into())];
        assert_eq!(mode(&entries), Root::Ephemeral(layer));
    }
    let kept = mode(&[ephemeral.clone(), ("persist", "alloc".into())]);
    assert_eq!(kept, Root::Ephemeral(Layer::Kept));
    let read_only = ("read_only", yes);
    assert_eq!(mode(&[read_only.clone(), ephemeral.clone()]), Root::ReadOnly);
    for (word, root) in [
        ("yes", Root::Volatile(Volatile::Yes)),
        ("state", Root::Volatile(Volatile::State)),
        ("overlay", Root::Volatile(Volatile::Overlay)),
        ("no", Root::ReadOnly),
        ("", Root::ReadOnly),
    ] {
        let entries = [("volatile", word.into()), read_only.clone(), ephemeral.clone()];
        assert_eq!(mode(&entries), root, "{word}");
    }
    let Payload::Boot { arguments } = spec(&[("volatile", "yes".into())]).payload else { panic!() };
    assert_eq!(arguments, [Secret::new("systemd.firstboot=no")]);
    let root = spec(&[("pivot_root", "/new:/old".into())]).root.pivot.unwrap();
    assert_eq!((root.new, root.old), (path("/new"), Some(Target::parse("/old").unwrap())));
    let host = spec(&[("image", "/".into()), ("ephemeral", true.into())]);
    assert_eq!(host.image, Image::Path(path("/")));
    assert_eq!(spec(&[("image", "debian.raw".into())]).root.kind, ImageKind::Disk);
}

#[test]
fn users_follow_three_keys() {
    let users = |text: &str| spec(&[("private_users", text.into())]).users;
    assert_eq!(users("yes"), Users::Pick);
    assert_eq!(users("pick"), Users::Pick);
    assert_eq!(users("identity"), Users::Identity);
    assert_eq!(users("no"), Users::Host);
    assert_eq!(users("524288"), Users::Fixed { base: 524_288, width: 65_536 });
    assert_eq!(users("524288:1000"), Users::Fixed { base: 524_288, width: 1000 });
    assert_eq!(users("0"), Users::Fixed { base: 0, width: 65_536 });
    let void = [("user_namespacing", false.into()), ("private_users", Value::from("pick"))];
    assert_eq!(spec(&void).users, Users::Host);
    for (word, ownership) in [
        ("auto", Ownership::Map),
        ("map", Ownership::Map),
        ("off", Ownership::Off),
        ("chown", Ownership::Chown),
    ] {
        let own = ("private_users_ownership", Value::from(word));
        assert_eq!(spec(std::slice::from_ref(&own)).root.ownership, ownership);
        let void = [own, ("user_namespacing", false.into())];
        assert_eq!(spec(&void).root.ownership, Ownership::Map);
    }
    let copy = [("private_users_ownership", Value::from("chown")), ("ephemeral", true.into())];
    assert_eq!(spec(&copy).root.ownership, Ownership::Map);
}

#[test]
fn the_process_is_as_asked() {
    let spec = spec(&[
        ("boot", false.into()),
        ("user", "www-data".into()),
        ("working_directory", "/srv".into()),
        ("hostname", "web-1.example".into()),
        ("stop_signal", "SIGUSR1".into()),
        ("shutdown_timeout", "45s".into()),
        ("console", "autopipe".into()),
        ("ready", map(&[("mode", "notify".into()), ("timeout", "1500ms".into())])),
        ("pids_limit", 100.into()),
        ("cpu_boost", 4.into()),
    ]);
    let process = spec.process;
    assert_eq!(process.user.unwrap().to_string(), "www-data");
    assert_eq!(process.directory, Some(path("/srv")));
    assert_eq!(process.hostname.unwrap().as_str(), "web-1.example");
    assert_eq!((process.console, spec.stop_signal), (Console::Pipe, Some(10)));
    assert_eq!(spec.kill_timeout_ms, 45_000);
    assert_eq!(process.ready, Ready::Notify { timeout_s: 2 });
    assert_eq!((spec.resources.tasks_max, spec.resources.cpu_boost), (Some(100), Some(4)));
}

#[test]
fn resources_are_as_asked() {
    let resources = spec(&[
        ("memory_swap", "64m".into()),
        ("oom_score_adj", (-7).into()),
        ("oom", "task".into()),
        ("io_weight", 200.into()),
        ("slice", "machine-nspawn-batch.slice".into()),
        ("egress", list(&["deny", "10.0.0.0/8", "fd00::1"])),
        (
            "properties",
            pairs(&[("MemoryHigh", "32m"), ("IOReadIOPSMax", "/dev/vda 9, /dev/vdb 1k")]),
        ),
    ])
    .resources;
    assert_eq!((resources.swap, resources.oom), (Swap::Bytes(64 << 20), OomScope::Task));
    assert_eq!((resources.oom_score, resources.io_weight), (-7, Some(200)));
    assert_eq!(resources.slice.unwrap().as_str(), "machine-nspawn-batch.slice");
    let ranges: Vec<_> = resources.egress.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.0.0.0/8", "fd00::1/128"]);
    let io =
        |device, most| Property::Io { limit: IoLimit::ReadOperations, device: path(device), most };
    let expected = [io("/dev/vda", 9), io("/dev/vdb", 1024), Property::MemoryHigh(32 << 20)];
    assert_eq!(resources.properties, expected);
    assert_eq!(spec(&[("memory_swap", "unlimited".into())]).resources.swap, Swap::Unlimited);
    assert_eq!(spec(&[("memory_swap", "0".into())]).resources.swap, Swap::None);
    assert_eq!(spec(&[("egress", list(&["deny"]))]).resources.egress, Some(vec![]));
    assert_eq!(spec(&[("egress", list(&[]))]).resources.egress, None);
}

#[test]
fn the_tasks_user_runs_commands_alone() {
    let user = |boot: bool, key: &str| {
        let mut task = task(&[("boot", boot.into()), ("user", key.into())]);
        task.user = "nobody".to_owned();
        let user = try_task(&task).unwrap().process.user;
        user.map(|user| user.to_string())
    };
    assert_eq!(user(false, ""), Some("nobody".to_owned()));
    assert_eq!(user(false, "daemon"), Some("daemon".to_owned()));
    assert_eq!(user(false, "1000:media"), Some("1000:media".to_owned()));
    assert_eq!(user(true, ""), None);
}

#[test]
fn consoles_keep_their_names() {
    for (word, console) in [
        ("interactive", Console::Interactive),
        ("read-only", Console::ReadOnly),
        ("passive", Console::Passive),
        ("pipe", Console::Pipe),
        ("", Console::Automatic),
    ] {
        assert_eq!(spec(&[("console", word.into())]).process.console, console);
    }
}

#[test]
fn isolation_is_as_asked() {
    let isolation = spec(&[
        ("capability", list(&["CAP_NET_ADMIN", "sys_time,bpf"])),
        ("cap_drop", list(&["all"])),
        ("no_new_privileges", true.into()),
        ("syscall_filter", list(&["@clock", "~@mount", "~ptrace"])),
        ("sysctl", pairs(&[("net.core.somaxconn", "1024"), ("kernel.sem", "1 2 3 4")])),
        ("ulimit", pairs(&[("nofile", "100:200"), ("CORE", "infinity"), ("nproc", "5")])),
    ])
    .isolation;
    let named = |name: &str| Capabilities::named(name).unwrap();
    let expected = named("NET_ADMIN").with(named("SYS_TIME")).with(named("BPF"));
    assert_eq!((isolation.add, isolation.drop), (expected, Capabilities::ALL));
    assert!(isolation.no_new_privileges);
    let rules: Vec<_> =
        isolation.syscalls.iter().map(|rule| (rule.allow, rule.name.as_str())).collect();
    assert_eq!(rules, [(true, "@clock"), (false, "@mount"), (false, "ptrace")]);
    assert_eq!(isolation.sysctls.len(), 2);
    let limits: Vec<_> =
        isolation.limits.iter().map(|it| (it.resource, it.soft, it.hard)).collect();
    assert!(limits.contains(&(LimitName::OpenFiles, Some(100), Some(200))));
    assert!(limits.contains(&(LimitName::Core, None, None)));
    assert!(limits.contains(&(LimitName::Processes, Some(5), Some(5))));
    let config = PluginConfig::default();
    let with = Node { selinux: true, ..node(&config) };
    let context = "system_u:system_r:container_t:s0";
    let selinux = build(&task(&[("selinux_context", context.into())]), &with).unwrap();
    assert_eq!(selinux.isolation.selinux.unwrap().as_str(), context);
}

#[test]
fn logs_follow_job_and_plugin() {
    let logging = |entries: &[(&str, Value)]| ("logging", map(entries));
    let logs = |entries: &[(&str, Value)]| spec(entries).logs;
    for (word, expected) in [
        ("nomad", Logs::Fifos),
        ("journald", Logs::Journal),
        ("both", Logs::Both),
        ("none", Logs::Discard),
    ] {
        assert_eq!(logs(&[logging(&[("driver", word.into())])]), expected);
        let mut silent = task(&[logging(&[("driver", word.into())])]);
        silent.stdout_path = "/dev/null".to_owned();
        silent.stderr_path = "/dev/null".to_owned();
        let expected = match expected {
            Logs::Fifos => Logs::Discard,
            Logs::Both => Logs::Journal,
            other => other,
        };
        assert_eq!(try_task(&silent).unwrap().logs, expected);
    }
    let own = logging(&[("journal", true.into()), ("priority", "warning".into())]);
    assert_eq!(logs(&[own]), Logs::Container { priority: 4 });
    let mut config = PluginConfig::default();
    config.logging.0 = Some(crate::config::plugin::PluginLogging {
        driver: crate::config::words::LogDriver::Journald,
    });
    assert_eq!(build(&task(&[]), &node(&config)).unwrap().logs, Logs::Journal);
}

#[test]
fn labels_are_the_jobs_and_the_operators() {
    let config =
        PluginConfig { extra_labels: vec!["job_n*".to_owned()], ..PluginConfig::default() };
    let task = task(&[("labels", pairs(&[("TEAM", "search"), ("TIER", "2")]))]);
    let labels = build(&task, &node(&config)).unwrap().labels;
    let text: Vec<_> = labels.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
    assert_eq!(text, ["TEAM=search", "TIER=2", "JOB_NAME=shop _"]);
}

#[test]
fn s5_labels_have_a_bound_together_with_the_operators() {
    let config =
        PluginConfig { extra_labels: vec!["job_n*".to_owned()], ..PluginConfig::default() };
    let named: Vec<_> = (0..32).map(|n| format!("L{n:02}")).collect();
    let labels = |count: usize, value: &str| {
        let all: Vec<_> = named.iter().take(count).map(|name| (name.as_str(), value)).collect();
        build(&task(&[("labels", pairs(&all))]), &node(&config)).map(|spec| spec.labels.len())
    };
    assert_eq!(labels(31, "x").unwrap(), 32);
    let text = labels(32, "x").unwrap_err().to_string();
    assert!(text.contains("labels: 33 with ") && text.contains("at most 32 with 4096"), "{text}");
    let text = labels(31, &"x".repeat(200)).unwrap_err().to_string();
    assert!(text.contains("labels: 32 with ") && text.contains("leave some out"), "{text}");
}

#[test]
fn an_unknown_version_refuses_nothing() {
    let config = PluginConfig::default();
    let unknown = Node { systemd: 0, host_users: None, ..node(&config) };
    let task = task(&[("bind_idmap", "owneridmap".into()), ("private_users", "70000:1".into())]);
    let spec = build(&task, &unknown).unwrap();
    assert_eq!(spec.users, Users::Fixed { base: 70_000, width: 1 });
}
