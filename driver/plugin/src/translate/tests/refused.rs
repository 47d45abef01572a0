//! One refused case with its message for each rule.

use super::*;
use crate::translate::Node;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{Device, DnsConfig, Mount, NetworkIsolationSpec};

#[test]
fn each_rule_has_its_message() {
    for (entries, problem) in cases::all() {
        let refused = try_keys(&entries).expect_err(problem);
        assert!(refused.contains(problem), "{entries:?}\n{refused}\n{problem}");
        assert!(refused.starts_with("job not valid") && !refused.contains("canary"), "{refused}");
    }
}

#[test]
fn a_newer_systemd_is_named() {
    let config = PluginConfig::default();
    for (key, value, own, needed, then) in [
        ("private_users", Value::from("managed"), 257, 258, "cannot do it yet (write pick)"),
        ("private_users_ownership", "foreign".into(), 257, 258, "cannot do it yet (write auto)"),
        ("bind_idmap", "owneridmap".into(), 252, 256, ""),
        ("bind", pairs(&[("/a", "/b:owneridmap")]), 255, 256, ""),
    ] {
        let task = task(&[(key, value)]);
        let of = |systemd| build(&task, &Node { systemd, ..node(&config) });
        let refused = of(own).unwrap_err().text().to_owned();
        let versions = format!("needs systemd {needed}; this node runs systemd {own}");
        assert!(refused.contains(key) && refused.contains(&versions), "{refused}");
        match then {
            "" => assert!(of(needed).is_ok()),
            then => assert!(of(needed).unwrap_err().text().contains(then)),
        }
    }
}

#[test]
fn what_nomad_asks_for_is_refused_by_name() {
    let volume = || Mount {
        task_path: "/data".to_owned(),
        host_path: "/srv".to_owned(),
        request_name: "db".to_owned(),
        ..Mount::default()
    };
    let refused = |change: &dyn Fn(&mut TaskConfig)| {
        let mut task = task(&[]);
        change(&mut task);
        try_task(&task).unwrap_err()
    };
    let with = |change: fn(&mut Mount)| {
        let mut volume = volume();
        change(&mut volume);
        refused(&|task| task.mounts = vec![volume.clone()])
    };
    let dns = |servers: &[&str]| DnsConfig {
        servers: servers.iter().map(|text| (*text).to_owned()).collect(),
        options: vec!["x".to_owned()],
        ..DnsConfig::default()
    };
    let device = Device {
        host_path: "/dev/x".to_owned(),
        cgroup_permissions: "z".to_owned(),
        ..Device::default()
    };
    for (text, part) in [
        (
            with(|volume| volume.propagation_mode = "bidirectional".to_owned()),
            "volume_mount of \"db\": propagation_mode = \"bidirectional\": a container has",
        ),
        (with(|volume| volume.propagation_mode = "x".to_owned()), "propagation_mode is not known"),
        (with(|volume| volume.selinux_label = "z".to_owned()), "relabels no volumes"),
        (with(|volume| volume.task_path = "../x".to_owned()), "no slash, not . or .."),
        (with(|volume| volume.host_path = "x".to_owned()), "must be an absolute path"),
        (with(|volume| volume.task_path = "/secrets".to_owned()), "a mount of its own there"),
        (refused(&|task| task.devices = vec![device.clone()]), "must be some of the letters"),
        (refused(&|task| task.dns = Some(dns(&["x"]))), "dns.servers = \"x\": must be IP"),
        (refused(&|task| task.dns = Some(dns(&[]))), "the host's servers are not mixed in"),
        (refused(&|task| task.dns = Some(dns(&["::1"; 4]))), "4, but at most 3 are used"),
        (
            refused(&|task| {
                task.network_isolation_spec = Some(NetworkIsolationSpec {
                    mode: NetworkIsolationMode::Group.into(),
                    path: "x".to_owned(),
                    ..NetworkIsolationSpec::default()
                });
            }),
            "network namespace = \"x\"",
        ),
    ] {
        assert!(text.contains(part), "{text}\n{part}");
    }
    let config = PluginConfig { volumes: false, ..PluginConfig::default() };
    let mut task = task(&[]);
    task.mounts = vec![volume()];
    let text = build(&task, &node(&config)).unwrap_err().text().to_owned();
    assert!(text.contains("volume_mount: volumes are not enabled on this node"), "{text}");
}

#[test]
fn the_operators_settings_refuse_too() {
    let config = PluginConfig {
        disable_log_collection: true,
        extra_labels: vec!["*".to_owned()],
        ..PluginConfig::default()
    };
    let refused = |entries: &[(&str, Value)]| {
        build(&task(entries), &node(&config)).unwrap_err().text().to_owned()
    };
    let text = refused(&[("logging", map(&[("driver", "both".into())]))]);
    assert!(text.contains("Nomad collects no logs on this node"), "{text}");
    let text = refused(&[("labels", pairs(&[("JOB_NAME", "x")]))]);
    assert!(text.contains("labels.JOB_NAME: is set by this node's extra_labels"), "{text}");
    let mut task = task(&[("private_network", true.into())]);
    task.network_isolation_spec = Some(NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: "/run/netns/x".to_owned(),
        ..NetworkIsolationSpec::default()
    });
    let text = try_task(&task).unwrap_err();
    assert!(text.contains("private_network = true: excludes the group's own network"), "{text}");
}

#[test]
fn all_problems_are_in_one_message() {
    let mut task = task(&[
        ("image", "".into()),
        ("network_zone", "a zone".into()),
        ("bind", pairs(&[("/a", "b")])),
        ("ulimit", pairs(&[("x", "1")])),
        ("oops", 1.into()),
    ]);
    task.user = "-".to_owned();
    task.env.insert("a-b".to_owned(), "canary".to_owned());
    let text = try_task(&task).unwrap_err();
    assert!(text.starts_with("job not valid, 6 problems: [1] "), "{text}");
    for part in ["image", "network_zone", "bind", "ulimit.x", "oops", "a-b"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn the_id_must_belong_to_the_task() {
    for change in [
        |task: &mut TaskConfig| task.id = "x".to_owned(),
        |task: &mut TaskConfig| task.name = "other".to_owned(),
        |task: &mut TaskConfig| task.alloc_id = "other".to_owned(),
    ] {
        let mut task = task(&[]);
        change(&mut task);
        assert!(try_task(&task).is_err());
    }
}
