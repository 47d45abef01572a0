//! PID 1 reads its units again, or executes itself anew: what the kernel enforces stays.

use crate::host::{control, script, stand};
use nspawn_tests::stand::Running;
use nspawn_tests::vm::inside;
use std::collections::BTreeMap;

const FILES: [&str; 5] = ["memory.max", "memory.low", "cpu.weight", "cpu.max", "pids.max"];

fn limits(task: &Running<'_>) -> BTreeMap<&'static str, String> {
    FILES.into_iter().map(|file| (file, control(task, file))).collect()
}

fn survives(command: &str) {
    let stand = stand();
    let config = script("echo here; while :; do sleep 1; done");
    let resources = crate::host::resources(96, 700);
    let mut task = stand.start(&config, resources).unwrap().unwrap();
    task.wait_output("here").unwrap();
    let (before, leader) = (limits(&task), task.leader().unwrap());
    assert_eq!(before["memory.max"], (96 * crate::host::MIB).to_string());
    stand.rig.run(&["systemctl", command]).unwrap();
    assert_eq!(limits(&task), before, "after {command}");
    assert_eq!(task.leader().unwrap(), leader);
    // PID 1 applies what it knows again when something of the unit changes.
    let unit = task.unit();
    stand.rig.run(&["systemctl", "set-property", "--runtime", &unit, "IOWeight=50"]).unwrap();
    assert_eq!(limits(&task), before, "after {command} and a change");
    task.stop("SIGKILL").unwrap();
}

#[test]
fn limits_survive_a_daemon_reload() {
    inside(|| survives("daemon-reload"));
}

#[test]
fn limits_survive_a_daemon_reexec() {
    inside(|| survives("daemon-reexec"));
}
