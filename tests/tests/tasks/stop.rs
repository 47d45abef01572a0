//! Stopping: a clean power-off, the job's own signal, and the kill after the time limit.

use crate::work::{Host, LIMIT, TASK, Work, both_modes};
use nspawn_tests::wait;
use serde_json::json;
use std::time::{Duration, Instant};

/// Nomad's JSON has nanoseconds.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

#[test]
fn a_booted_debian_runs_and_powers_off() {
    let host = Host::shared();
    let limit = Duration::from_secs(30);
    let work = Work::new(json!({ "image": "debian", "boot": true, "ephemeral": true }))
        .service()
        .task("KillTimeout", nanoseconds(limit))
        .task("Resources", json!({ "CPU": 100, "MemoryMB": 256 }));
    let task = work.run(&host, "debian");
    task.alloc.wait_running().unwrap();
    let unit = task.unit(&host);
    let leader = task.leader(&host).to_string();
    let mut state = String::new();
    wait::true_within("the container to be up", LIMIT, || {
        let ask = ["nsenter", "-t", &leader, "-a", "systemctl", "is-system-running"];
        state = host.exec(&ask)?.text();
        Ok(["running", "degraded"].contains(&state.trim()))
    })
    .unwrap();
    let failed = ["nsenter", "-t", &leader, "-a", "systemctl", "--failed", "--no-legend"];
    assert_eq!(state.trim(), "running", "{}", host.run(&failed).unwrap());
    // The getty hangs the console up before it asks: what was not read by then is lost.
    task.wait_says("login:");

    let start = Instant::now();
    task.job.stop().unwrap();
    assert_eq!(task.end(), ("complete".to_owned(), 0, 0));
    let took = start.elapsed();
    assert!(took < limit, "took {took:?}");
    println!("stopped in {took:?}");
    // Everything inside was stopped in order; nobody had to be killed from outside.
    let console = task.wait_says("Halting system.");
    for target in ["umount.target", "shutdown.target", "final.target"] {
        assert!(console.contains(&format!("Reached target {target}")), "{target}: {console}");
    }
    let mut journal = String::new();
    wait::true_within("the last line about the unit", LIMIT, || {
        journal = host.journal(&unit)?;
        Ok(journal.contains(&format!("{unit}: Deactivated successfully")))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {journal}"));
    assert!(!journal.contains("SIGKILL") && !journal.contains("timed out"), "{journal}");
    task.job.purge().unwrap();
}

#[test]
fn kill_signal_reaches_the_handler_and_its_output_and_code_arrive() {
    let host = Host::shared();
    let script = "trap 'echo bye; echo error >&2; exit 3' USR1; echo ready; \
        while :; do sleep 0.05; done";
    let work = Work::sh(script).service().task("KillSignal", "SIGUSR1");
    for task in both_modes(&host, "handler", &work) {
        task.wait_says("ready\n");
        task.job.stop().unwrap();
        let (_, code, signal) = task.end();
        assert_eq!((code, signal), (3, 0));
        task.assert_stream("stdout", b"ready\nbye\n");
        task.assert_stream("stderr", b"error\n");
        task.job.purge().unwrap();
    }
}

#[test]
fn without_kill_signal_a_command_gets_sigterm() {
    let host = Host::shared();
    let script = "trap 'echo term; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    for task in both_modes(&host, "sigterm", &Work::sh(script).service()) {
        task.wait_says("ready\n");
        task.job.stop().unwrap();
        assert_eq!(task.end(), ("complete".to_owned(), 0, 0));
        task.assert_stream("stdout", b"ready\nterm\n");
        task.job.purge().unwrap();
    }
}

#[test]
fn who_ignores_the_signal_is_killed_after_the_time_limit() {
    let host = Host::shared();
    let limit = Duration::from_millis(1500);
    let script =
        "trap '' TERM; (trap '' TERM; sleep 600) & echo ready; while :; do sleep 0.05; done";
    let work = Work::sh(script).service().task("KillTimeout", nanoseconds(limit));
    let tasks = both_modes(&host, "deaf", &work);
    for task in &tasks {
        task.wait_says("ready\n");
    }
    let start = Instant::now();
    for task in &tasks {
        task.job.stop().unwrap();
    }
    for task in &tasks {
        let (_, code, signal) = task.end();
        assert_eq!((code, signal), (137, 9), "{:?}", task.alloc.task(TASK));
        let took = start.elapsed();
        assert!(took >= limit, "killed too early, after {took:?}");
        assert!(took < Duration::from_secs(20), "killed only after {took:?}");
        task.assert_stream("stdout", b"ready\n");
    }
    for task in &tasks {
        task.job.purge().unwrap();
    }
}
