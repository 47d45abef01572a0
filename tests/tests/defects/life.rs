//! D30 to D40: names, short lives, signals, ends, recovery.

use crate::{script, stand, with};
use nspawn_tests::plugin::Allocation;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn d30_every_task_name_has_a_machine_name() {
    for task in ["with_underscore", "a-name-of-more-than-27-characters-in-all", "ümlaut", "a b"] {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let allocation = Allocation::create(&stand().rig, id.trim(), task).unwrap();
        let show = script("hostname; echo $container");
        let running = stand().start_in(allocation, 1, &show, |_| {}).unwrap().unwrap();
        let outcome = running.finish().unwrap();
        assert_eq!(outcome.code, 0, "{task}: {outcome:?}");
        let host = outcome.stdout.lines().next().unwrap();
        assert!(host.ends_with(id.trim()) && host.len() <= 64, "{task}: {host}");
    }
}

#[test]
fn d31_a_task_that_ends_at_once_is_no_failure_of_the_driver() {
    let begun = Instant::now();
    for code in [0, 3] {
        let outcome = stand().run(&script(&format!("exit {code}"))).unwrap();
        assert_eq!((outcome.code, outcome.signal), (code, 0));
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn d32_errors_say_whether_another_try_may_help() {
    // The job or the policy must change.
    for more in [
        json!({ "image": "no-such-image" }),
        json!({ "image": "/etc" }),
        json!({ "console": "loud" }),
        json!({ "no_such_key": 1 }),
    ] {
        let refused = stand().refusal(&with(script("true"), more.clone())).unwrap();
        assert!(!refused.recoverable, "{more}: {}", refused.text);
    }
    // Somebody else has it now.
    let plain = with(script("echo up; sleep 1000"), json!({ "ephemeral": false }));
    let mut holder = stand().start(&plain, |_| {}).unwrap().unwrap();
    holder.wait_output("up").unwrap();
    let refused = stand().refusal(&plain).unwrap();
    assert!(refused.recoverable && refused.text.contains("writes to it"), "{}", refused.text);
    holder.stop("SIGKILL").unwrap();
    assert_eq!(stand().run(&with(plain, json!({ "command": ["/bin/true"] }))).unwrap().code, 0);
}

#[test]
fn d33_a_command_gets_its_stop_signal_and_its_time() {
    let trap = "trap 'sleep 0.3; echo bye; exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let mut running = stand().start(&script(trap), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let outcome = running.stop("SIGTERM").unwrap();
    assert_eq!((outcome.code, outcome.signal), (9, 0), "{outcome:?}");
    assert!(outcome.stdout.ends_with("bye\n"), "{outcome:?}");
}

#[test]
fn d34_signals_reach_the_payload() {
    let trap = "trap 'echo hup' HUP; trap 'echo usr1' USR1; echo up; while :; do sleep 0.1; done";
    let mut running = stand().start(&script(trap), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    for (signal, word) in [("SIGHUP", "hup"), ("SIGUSR1", "usr1")] {
        running.signal(signal).unwrap().unwrap();
        running.wait_output(word).unwrap();
    }
    let refused = running.signal("SIGNOSUCH").unwrap().unwrap_err();
    assert!(refused.text.contains("SIGNOSUCH"), "{}", refused.text);
    running.stop("SIGKILL").unwrap();
}

#[test]
fn d35_the_end_is_told_as_it_was() {
    for two in [false, true] {
        let more = json!({ "process_two": two });
        let coded = stand().run(&with(script("sleep 0.2; exit 133"), more.clone())).unwrap();
        assert_eq!((coded.code, coded.signal), (133, 0), "process_two = {two}");
        let mut running =
            stand().start(&with(script("echo up; sleep 1000"), more), |_| {}).unwrap().unwrap();
        running.wait_output("up").unwrap();
        let killed = running.stop("SIGKILL").unwrap();
        assert_eq!((killed.code, killed.signal), (137, 9), "process_two = {two}");
    }
}

#[test]
fn d36_a_reboot_inside_is_an_end() {
    let booted = json!({ "image": "debian", "ephemeral": true });
    let mut running = stand().start(&booted, |_| {}).unwrap().unwrap();
    running.wait_output("Reached target").unwrap();
    let leader = running.leader().unwrap();
    // It may be killed with all the others before it has heard that its call went well.
    stand().rig.exec(&["nsenter", "-t", &leader, "-a", "systemctl", "reboot", "--force"]).unwrap();
    let outcome = running.finish().unwrap();
    assert_eq!(outcome.code, 133, "{outcome:?}");
}

#[test]
fn d37_a_forced_destroy_leaves_no_container() {
    let mut running = stand().start(&script("echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let leader = running.leader().unwrap();
    let allocation = running.destroy().unwrap();
    assert!(!stand().rig.exists(&format!("/proc/{leader}")));
    // The name is free at once.
    let again = stand().start_in(allocation, 2, &script("echo again"), |_| {}).unwrap().unwrap();
    assert_eq!(again.finish().unwrap().stdout, "again\n");
}

#[test]
fn d38_recovery_needs_no_process_of_ours() {
    let mut running =
        stand().start(&script("echo up; sleep 0.5; exit 6"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    // Another plugin process, as after a crash, knows nothing but the handle.
    let other = stand().another_plugin().unwrap();
    running.recover_by(&other).unwrap();
    let outcome = running.finish().unwrap();
    assert_eq!((outcome.code, outcome.signal), (6, 0));
}

#[test]
fn d39_an_end_while_nobody_watched_is_told_at_once() {
    let mut running = stand().start(&script("echo up; exit 4"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let leader_gone = || stand().rig.exec(&["systemctl", "is-active", &running.unit()]);
    nspawn_tests::wait::true_within("the unit's end", Duration::from_secs(10), || {
        Ok(!leader_gone()?.success())
    })
    .unwrap();
    let other = stand().another_plugin().unwrap();
    let begun = Instant::now();
    running.recover_by(&other).unwrap();
    let outcome = running.finish().unwrap();
    assert_eq!(outcome.code, 4);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn d40_a_task_costs_no_process_beside_nspawn() {
    let mut running = stand().start(&script("echo up; exec sleep 1000"), |_| {}).unwrap().unwrap();
    running.wait_output("up").unwrap();
    let unit = running.unit();
    let tree = stand().rig.run(&["systemd-cgls", "--unit", &unit, "--full", "--no-pager"]).unwrap();
    let processes: Vec<&str> = tree
        .lines()
        .filter(|line| line.contains("sleep 1000") || line.contains("nspawn --"))
        .collect();
    let all =
        tree.lines().filter(|line| line.contains("─") && line.chars().any(|c| c.is_ascii_digit()));
    assert_eq!(processes.len(), 2, "{tree}");
    assert!(all.count() <= 4, "{tree}");
    running.stop("SIGKILL").unwrap();
}
