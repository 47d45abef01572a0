//! Restarts by policy and by hand, and signals by hand.

use crate::work::{Host, LIMIT, TASK, Work, both_modes, says};
use nspawn_tests::{job::Task, wait};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn ten_restarts_in_a_row_work_without_delay() {
    let host = Host::shared();
    let script = "echo run on $(hostname) >>/alloc/data/runs; \
        [ $(wc -l </alloc/data/runs) -le 10 ] && exit 5; echo enough; sleep 600";
    let policy = json!({
        "Attempts": 10, "Interval": 600_000_000_000_u64, "Delay": 1_000_000, "Mode": "fail",
    });
    let start = Instant::now();
    let work = Work::sh(script).service().group("RestartPolicy", policy);
    let task = work.task("KillTimeout", 100_000_000).run(&host, "policy");
    task.wait_says("enough\n");
    let took = start.elapsed();
    println!("eleven starts in {took:?}");
    // Any wait for a name or a lock to become free would show ten times.
    assert!(took < Duration::from_secs(30), "took {took:?}");
    // Nomad's server learns of restarts up to a second later.
    let state = task.alloc.wait("ten restarts", LIMIT, |alloc| {
        Ok(Task::of(alloc, TASK).ok().filter(|task| task.restarts() >= 10))
    });
    let state = state.unwrap();
    // A start that failed would have cost a restart and left no line.
    assert_eq!(state.restarts(), 10, "{:?}", state.events());
    assert_eq!(task.events("Driver Failure"), "");
    let runs = format!("/var/lib/nomad/alloc/{}/alloc/data/runs", task.alloc.id);
    let runs = String::from_utf8(host.read_file(&runs).unwrap()).unwrap();
    let lines: Vec<&str> = runs.lines().collect();
    assert_eq!(lines.len(), 11, "{runs}");
    assert!(lines.iter().all(|line| *line == lines[0]), "the machine's name changed: {runs}");
    task.job.purge().unwrap();
}

#[test]
fn a_restart_by_hand_gives_a_new_payload() {
    let host = Host::shared();
    let script = "trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.05; done";
    let task = Work::sh(script).service().run(&host, "by-hand");
    task.wait_says("hello\n");
    task.alloc.wait_running().unwrap();
    let first = task.leader(&host);
    // As a user does it.
    host.run(&["nomad", "alloc", "restart", &task.alloc.id, TASK]).unwrap();
    let twice = task.wait_says("hello\nbye\nhello\n");
    assert_eq!(twice, "hello\nbye\nhello\n");
    wait::true_within("the second payload to run", LIMIT, || Ok(task.state().state() == "running"))
        .unwrap();
    assert_ne!(task.leader(&host), first);
    assert_eq!(task.events("Driver Failure"), "");
    task.job.purge().unwrap();
}

#[test]
fn signals_reach_the_payload_and_unknown_ones_are_refused() {
    let host = Host::shared();
    let script = "trap 'echo got hup' HUP; trap 'echo got usr1' USR1; trap 'exit 0' TERM; \
        echo ready; while :; do sleep 0.05; done";
    for task in both_modes(&host, "signal", &Work::sh(script).service()) {
        task.wait_says("ready\n");
        task.alloc.wait_running().unwrap();
        task.alloc.signal(TASK, "SIGHUP").unwrap();
        task.wait_says("got hup\n");
        host.run(&["nomad", "alloc", "signal", "-s", "SIGUSR1", &task.alloc.id, TASK]).unwrap();
        task.wait_says("got usr1\n");
        let error = task.alloc.signal(TASK, "SIGNOPE").unwrap_err();
        assert!(format!("{error:#}").contains("SIGNOPE"), "{error:#}");
        // None of them ended it, and none came twice.
        let all = says(&task.alloc, "stdout", "usr1");
        assert_eq!(all, "ready\ngot hup\ngot usr1\n");
        assert_eq!(task.state().state(), "running");
        task.job.purge().unwrap();
    }
}
