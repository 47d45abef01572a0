//! What `nomad alloc status` shows of a task's life, and `nomad node status` of the driver.

use crate::{LIMIT, RIG, Service, TASK, alone, busybox, host};
use nspawn_tests::wait;
use serde_json::json;

/// The events as a person sees them.
fn status(service: &Service) -> String {
    RIG.run(&["nomad", "alloc", "status", &service.alloc.id]).unwrap()
}

#[test]
fn a_start_and_a_kill_are_told_in_alloc_status() {
    let _host = host();
    let mut config = busybox();
    // Nothing ends it but the kill.
    config["command"] = json!(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]);
    let service = Service::start("events", config);
    let text = status(&service);
    let machine = format!("{TASK}-{}", service.alloc.id);
    for part in [
        format!("Started container {machine} in "),
        "image busybox, ephemeral root on disk, ".to_owned(),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    service.job.stop().unwrap();
    service.alloc.wait_done(LIMIT).unwrap();
    let text = status(&service);
    let killed = "Killed: it had not ended 100ms after signal 15; raise kill_timeout";
    assert!(text.contains(killed), "{text}");
    service.purge();
}

#[test]
fn a_long_start_names_what_it_waits_for() {
    let _host = host();
    let mut config = busybox();
    config["ready"] = json!({ "mode": "notify", "timeout": "4s" });
    let service = Service::register("waits", config, json!({}));
    service.alloc.wait_status("failed", LIMIT).unwrap();
    let text = status(&service);
    let waits = "Ready: waits until the task sends READY=1, at most 4 s";
    assert!(text.contains(waits), "{text}");
    service.purge();
}

#[test]
fn a_refusal_is_told_with_its_rule() {
    let _host = host();
    let mut config = busybox();
    config["bind"] = json!([{ "/etc/shadow": "/shadow" }]);
    let service = Service::register("refused", config, json!({}));
    service.alloc.wait_status("failed", LIMIT).unwrap();
    let text = status(&service);
    assert!(text.contains("the nspawn helper refused: decide: ") && text.contains("/etc/shadow"));
    service.purge();
}

#[test]
fn the_node_shows_what_the_driver_can() {
    let host = host();
    let node = host.node().unwrap();
    let attributes = &node["Attributes"];
    assert_eq!(attributes["driver.nspawn.exec"], "true", "{attributes}");
    let controllers = attributes["driver.nspawn.controllers"].as_str().unwrap();
    let file = host.read_file("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let file = String::from_utf8_lossy(&file).into_owned();
    let mut expected: Vec<_> = file.split_whitespace().collect();
    expected.sort_unstable();
    let expected = if expected.is_empty() { "none".to_owned() } else { expected.join(" ") };
    assert_eq!(controllers, expected);
    // Names of the older driver.
    for name in ["driver.nspawn", "driver.nspawn.version", "driver.nspawn.volumes"] {
        assert!(attributes[name].is_string(), "{name}: {attributes}");
    }
}

#[test]
fn the_node_shows_that_the_policy_forbids_commands() {
    let host = alone();
    let wait_for = |value: &str| {
        wait::true_within("the node's attribute", LIMIT, || {
            Ok(host.node()?["Attributes"]["driver.nspawn.exec"] == value)
        })
        .unwrap();
    };
    let service = Service::start("forbidden", busybox());
    let policy = "[userns]\nrequire = false\n";
    host.set_policy(format!("{policy}[exec]\nallow = false\n")).unwrap();
    wait_for("false");
    let out = service.sh("true");
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.code() != 0 && error.contains("exec"), "{error}");
    host.set_policy(policy).unwrap();
    wait_for("true");
    assert_eq!(service.sh("exit 3").code(), 3);
    service.purge();
}
