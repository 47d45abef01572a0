//! D43 to D52: time, descriptors, connections, files, messages.

use crate::{script, stand, with};
use nspawn_tests::stand::Stand;
use nspawn_tests::wait;
use nspawn_tests::world::FD_SLACK;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn d43_a_start_waits_for_no_network_and_no_machined() {
    let begun = Instant::now();
    let mut running = stand().start(&script("echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    running.wait_output("up").unwrap();
    running.stop("SIGKILL").unwrap();
}

/// Descriptors of plugin and helper, and connections on the bus.
fn held(stand: &Stand) -> (usize, usize, usize) {
    let rig = &stand.rig;
    let count = |script: &str| rig.sh(script).unwrap().trim().parse::<usize>().unwrap();
    let of = |unit: &str| count(&format!("ls /proc/$({unit})/fd | wc -l"));
    let helper = of("systemctl show -P MainPID nomad-nspawn-helper.service");
    let plugin = count(&format!("ls /proc/{}/fd | wc -l", stand.plugin_pid()));
    (helper, plugin, count("busctl list --unique --no-legend | wc -l"))
}

/// On a host of their own: tasks of other tests have descriptors too, and a start that waits for PID 1
/// when the bus is restarted would be told to come again.
#[test]
fn d44_d45_d49_no_start_and_no_restart_of_the_bus_leaves_or_costs_anything() {
    let stand = Stand::up("").unwrap();
    starts_leave_no_connection_and_no_descriptor(&stand);
    a_bus_that_is_restarted_costs_nothing(&stand);
}

fn starts_leave_no_connection_and_no_descriptor(stand: &Stand) {
    // Caches and idle connections fill up first.
    for _ in 0..3 {
        stand.run(&script("true")).unwrap();
    }
    let before = held(stand);
    for _ in 0..12 {
        stand.run(&script("true")).unwrap();
    }
    let mut now = before;
    wait::true_within("as little to be held as before", Duration::from_secs(20), || {
        now = held(stand);
        Ok([(now.0, before.0), (now.1, before.1), (now.2, before.2)]
            .iter()
            .all(|(now, before)| *now <= before + FD_SLACK))
    })
    .unwrap_or_else(|error| panic!("{error:#}: before {before:?}, now {now:?}"));
}

fn a_bus_that_is_restarted_costs_nothing(stand: &Stand) {
    let mut running = stand.start(&script("echo up; sleep 2; exit 8"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    stand.rig.run(&["systemctl", "restart", "dbus.service"]).unwrap();
    assert_eq!(stand.run(&script("exit 5")).unwrap().code, 5);
    assert_eq!(running.finish().unwrap().code, 8);
}

#[test]
fn d46_a_task_without_resources_runs() {
    let outcome = stand().run_with(&script("echo ok"), |task| task.resources = None).unwrap();
    assert_eq!(outcome.stdout, "ok\n");
}

#[test]
fn d47_an_error_holds_nothing_of_other_tasks_logs() {
    let allocation = stand().allocation("t").unwrap();
    let rig = &stand().rig;
    let log = format!("{}/alloc/logs/t-other.stderr.0", allocation.dir());
    rig.write_file(&log, "canary-d47\n".repeat(100_000), 0o644).unwrap();
    let bad = with(script("true"), json!({ "image": "no-such-image" }));
    let refused = stand().start_in(allocation, 1, &bad, |_| {}).unwrap().unwrap_err();
    assert!(!refused.text.contains("canary"), "{}", refused.text);
    assert!(refused.text.len() < 4096);
}

#[test]
fn d48_no_answer_of_machined_harms_the_plugin() {
    let rig = &stand().rig;
    rig.run(&["systemctl", "mask", "--runtime", "--now", "systemd-machined.service"]).unwrap();
    let outcome = stand().run(&script("echo ok"));
    rig.run(&["systemctl", "unmask", "--runtime", "systemd-machined.service"]).unwrap();
    assert_eq!(outcome.unwrap().stdout, "ok\n");
}

#[test]
fn d50_recovery_of_a_host_network_task_logs_no_error() {
    let host = with(script("echo up; sleep 1000"), json!({ "network_veth": false }));
    let mut running = stand().start(&host, |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let other = stand().another_plugin().unwrap();
    running.recover_by(&other).unwrap();
    let mut log = String::new();
    wait::true_within("the recovery to be logged", Duration::from_secs(20), || {
        log = other.log();
        Ok(log.contains("recovered"))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {log}"));
    assert!(!log.contains("\"@level\":\"error\"") && !log.contains("[ERROR]"), "{log}");
    running.stop("SIGKILL").unwrap();
}

#[test]
fn d51_nothing_is_written_into_the_allocation() {
    let allocation = stand().allocation("t").unwrap();
    let rig = &stand().rig;
    let list = format!("cd {} && find . -printf '%p %m %U\\n' | sort", allocation.dir());
    let before = rig.sh(&list).unwrap();
    let running = stand().start_in(allocation.clone(), 1, &script("echo x"), |_| {}).unwrap();
    let (outcome, allocation) = running.unwrap().finish_run().unwrap();
    assert_eq!(outcome.stdout, "x\n");
    assert_eq!(rig.sh(&list).unwrap(), before);
    allocation.remove(rig).unwrap();
}

#[test]
fn d52_each_reason_for_ill_health_has_its_words() {
    use nomad_proto::drivers::fingerprint_response::HealthState;
    let rig = &stand().rig;
    assert_eq!(stand().health(HealthState::Healthy).unwrap(), "Healthy");
    let other = stand().another_plugin_with(&json!({ "helper_socket": "/run/none.sock" })).unwrap();
    let text = other.health(HealthState::Unhealthy).unwrap();
    assert!(text.contains("is not running") && text.contains("systemctl enable"), "{text}");
    let off = stand().another_plugin_with(&json!({ "enabled": false })).unwrap();
    assert_eq!(off.health(HealthState::Undetected).unwrap(), "disabled");
    assert!(rig.exists("/run/nomad-nspawn/helper.sock"));
}
