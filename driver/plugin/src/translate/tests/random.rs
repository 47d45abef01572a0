//! Random configurations: no panic, nothing unknown taken, every valid one can be sent.

use super::*;
use proptest::prelude::*;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, TestRunner};
use proto::codec;

/// Values of each key that are valid alone, and together as well.
fn good() -> Vec<(&'static str, Vec<Value>)> {
    let texts = |texts: &[&str]| texts.iter().map(|text| Value::from(*text)).collect();
    let truths = || vec![true.into(), false.into(), Value::Nil];
    vec![
        ("image", texts(&["debian", "/srv/images/x", "disk.raw", "/dev/vg/root"])),
        ("boot", vec![false.into(), true.into(), Value::Nil]),
        ("command", vec![list(&["sh", "-c", "true"]), list(&[]), Value::Nil]),
        ("ephemeral", truths()),
        ("read_only", truths()),
        ("volatile", texts(&["yes", "no", "state", "overlay", ""])),
        ("pivot_root", texts(&["/new", "/new:/old"])),
        ("overlay", vec![list(&["/a:/b:/mnt/o1", "local/x::/mnt/o2"])]),
        ("overlay_ro", vec![list(&[r"/a\:b:/c:/mnt/o3"])]),
        ("working_directory", texts(&["/", "/srv"])),
        ("environment", vec![pairs(&[("A", "1"), ("B", "two\nlines")]), Value::List(vec![])]),
        ("hostname", texts(&["web", "a-b.c"])),
        ("stop_signal", texts(&["SIGTERM", "rtmin+3", "9"])),
        ("shutdown_timeout", texts(&["5s", "1m", "90s"])),
        ("timezone", texts(&["off", "auto", "bind"])),
        ("bind", vec![pairs(&[("/a", "/mnt/b1:rootidmap"), ("local/x", "/mnt/b2")])]),
        ("bind_read_only", vec![map(&[("/a", r"/mnt/b\:3:norbind,idmap".into())])]),
        ("bind_idmap", texts(&["auto", "none", "owneridmap"])),
        ("mount", vec![blocks(&[("type", "tmpfs".into()), ("target", "/mnt/m".into())])]),
        ("tmpfs", vec![list(&["/mnt/t:size=64m,mode=1777"])]),
        ("inaccessible", vec![list(&["/mnt/i"])]),
        ("device", vec![blocks(&[("host_path", "/dev/fuse".into())])]),
        ("credential", vec![blocks(&[("name", "x".into()), ("value", "y".into())])]),
        ("user_namespacing", truths()),
        ("private_users", texts(&["yes", "no", "pick", "identity", "524288", "65536000:10"])),
        ("private_users_ownership", texts(&["auto", "map", "off"])),
        ("capability", vec![list(&["all"]), list(&["cap_net_admin", "SYS_TIME"])]),
        ("cap_drop", vec![list(&["mknod"])]),
        ("no_new_privileges", truths()),
        ("syscall_filter", vec![list(&["@clock", "~@mount"])]),
        ("sysctl", vec![pairs(&[("kernel.shmmax", "1")])]),
        ("network_veth", truths()),
        ("resolv_conf", texts(&["off", "copy-host", "replace-uplink", ""])),
        ("extra_hosts", vec![list(&["a:1.2.3.4", "b:[::1]"])]),
        ("pids_limit", vec![1.into(), 4096.into(), "10".into()]),
        ("memory_swap", texts(&["0", "64m", "unlimited", ""])),
        ("oom_score_adj", vec![0.into(), 1000.into(), (-1000).into()]),
        ("oom", texts(&["process", "task"])),
        ("io_weight", vec![1.into(), 10_000.into()]),
        ("properties", vec![pairs(&[("MemoryHigh", "1g"), ("IOReadIOPSMax", "/dev/vda 1")])]),
        ("slice", texts(&["machine-nspawn-a.slice", ""])),
        ("egress", vec![list(&["deny", "10.0.0.0/8", "::1"]), list(&[])]),
        ("cpu_hard_limit", truths()),
        ("ulimit", vec![pairs(&[("nofile", "1:2"), ("core", "infinity")])]),
        ("console", texts(&["pipe", "read-only", "autopipe"])),
        ("logging", vec![map(&[("driver", "journald".into())]), map(&[])]),
        ("labels", vec![pairs(&[("TEAM", "a")])]),
        ("ready", vec![map(&[("timeout", "10s".into())])]),
    ]
}

fn wild() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(|n| Value::Integer(n.into())),
        any::<f64>().prop_map(Value::Float),
        "[a-z/:.~@=\\\\0-9,-]{0,12}".prop_map(Value::Text),
        ".{0,8}".prop_map(Value::Text),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
            proptest::collection::vec(("[a-z_]{1,8}|/[a-z:]{0,6}", inner), 0..4)
                .prop_map(Value::Map),
        ]
    })
}

/// Some good values; half of the time a few keys have wild ones instead.
fn configuration() -> impl Strategy<Value = Vec<(String, Value)>> {
    let table = good();
    let count = table.len();
    let picks = proptest::collection::btree_map(0..count, any::<prop::sample::Index>(), 0..12);
    let spoiled = prop_oneof![
        Just(Vec::new()),
        proptest::collection::vec((any::<prop::sample::Index>(), wild()), 1..4),
    ];
    (picks, spoiled).prop_map(move |(picks, spoiled)| {
        let mut entries: Vec<(String, Value)> = picks
            .into_iter()
            .map(|(key, value)| {
                let (name, values) = &table[key];
                ((*name).to_owned(), value.get(values).clone())
            })
            .collect();
        for (key, value) in spoiled {
            let (name, _) = key.get(&table);
            entries.retain(|(other, _)| other != name);
            entries.push(((*name).to_owned(), value));
        }
        entries
    })
}

fn run(entries: &[(String, Value)]) -> Result<TaskSpec, String> {
    let entries: Vec<_> =
        entries.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    try_keys(&entries)
}

#[test]
fn random_configurations_are_read_or_refused() {
    const CASES: u32 = 4_000;
    let mut runner = TestRunner::new(Config::default());
    let strategy = configuration();
    let mut valid = 0;
    for _ in 0..CASES {
        let entries = strategy.new_tree(&mut runner).unwrap().current();
        let Ok(spec) = run(&entries) else { continue };
        valid += 1;
        let bytes = codec::encode_whole(&spec).unwrap();
        assert_eq!(codec::decode_whole::<TaskSpec>(&bytes), Ok(spec), "{entries:?}");
    }
    println!("{valid} of {CASES} random configurations are valid");
    assert!((CASES / 5..CASES * 9 / 10).contains(&valid), "{valid} of {CASES} are valid");
}

proptest! {
    #![proptest_config(Config::with_cases(400))]

    #[test]
    fn no_unknown_key_is_taken(entries in configuration(), name in "[a-z_]{1,12}", value in wild()) {
        let mut rows = Vec::new();
        <crate::config::task::TaskKeys as crate::config::table::Table>::rows("", false, &mut rows);
        prop_assume!(!rows.iter().any(|row| row.name == name));
        let mut entries = entries;
        entries.push((name.clone(), value));
        let refused = run(&entries).expect_err("an unknown key");
        let problem = format!("{name}: is not a key of this version");
        // A very long message is cut.
        prop_assert!(refused.contains(&problem) || refused.len() > 4_000, "{refused}");
    }

    #[test]
    fn hostile_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let task = TaskConfig { msgpack_driver_config: bytes, ..task(&[]) };
        if let Ok(spec) = try_task(&task) {
            prop_assert!(codec::encode_whole(&spec).is_ok());
        }
    }
}
