//! Many tasks: twenty at once, two hundred one after another.

use crate::{Host, rig};
use nspawn_tests::job::Task;
use nspawn_tests::shell::ShellJob;
use nspawn_tests::{Alloc, World, wait};
use std::time::{Duration, Instant};

/// Time for twenty tasks.
const LIMIT: Duration = Duration::from_secs(60);

/// Tasks that run until they are stopped, or end at once.
fn hcl(name: &str, kind: &str, count: usize, restarts: usize, command: &str) -> String {
    let job = ShellJob {
        name,
        kind,
        count,
        restarts,
        process_two: false,
        port: false,
        kill_timeout: "5s",
        script: command,
    };
    job.hcl()
}

#[test]
fn twenty_tasks_started_at_once_all_run() {
    let (rig, _turn) = rig(Host::Rest);
    let before = World::snapshot(rig).unwrap();
    let start = Instant::now();
    let run = "trap 'exit 0' TERM; echo up; while :; do sleep 60 & wait; done";
    let job = rig.run_job(&hcl("twenty", "service", 20, 0, run)).unwrap();
    let allocs = job.wait_allocs(20).unwrap();
    for alloc in &allocs {
        alloc.wait_running().unwrap();
        alloc.wait_logs("t", "stdout", LIMIT, |text| text == b"up\n").unwrap();
    }
    eprintln!("20 tasks run after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(rig.containers().len(), 20);
    job.purge().unwrap();
    before.assert_same(rig).unwrap();
}

/// Ten tasks end by themselves, ten are stopped by `nomad alloc restart`; each is started ten times.
#[test]
fn two_hundred_starts_and_stops_leave_nothing() {
    let (rig, _turn) = rig(Host::Rest);
    let before = World::snapshot(rig).unwrap();
    let start = Instant::now();
    let ends = rig.run_job(&hcl("ends", "batch", 10, 9, "exit 5")).unwrap();
    let run = "trap 'exit 0' TERM; echo up; sleep 60 & wait";
    let stops = rig.run_job(&hcl("stops", "service", 10, 9, run)).unwrap();
    let running = stops.wait_allocs(10).unwrap();
    std::thread::scope(|scope| {
        for alloc in &running {
            scope.spawn(|| (1..10).for_each(|starts| restart(alloc, starts)));
        }
    });
    for alloc in &running {
        wait_up(alloc, 10);
        // The log comes from the client, the count from the server, which learns of it later.
        let counted = |value: &_| Ok(Task::of(value, "t").ok().filter(|task| task.restarts() >= 9));
        assert_eq!(alloc.wait("nine restarts", LIMIT, counted).unwrap().restarts(), 9);
    }
    for alloc in ends.wait_allocs(10).unwrap() {
        alloc.wait_status("failed", LIMIT).unwrap();
        let task = alloc.task("t").unwrap();
        assert_eq!((task.exit(), task.restarts()), (Some((5, 0)), 9));
    }
    stops.purge().unwrap();
    ends.purge().unwrap();
    eprintln!("200 starts and ends in {:.1} s", start.elapsed().as_secs_f64());
    before.assert_same(rig).unwrap();
}

/// Waits until a task has come up so often.
fn wait_up(alloc: &Alloc, starts: usize) {
    let wanted = "up\n".repeat(starts);
    alloc.wait_logs("t", "stdout", LIMIT, |text| text == wanted.as_bytes()).unwrap();
}

/// Restarts a task when its payload is up, and Nomad knows it.
fn restart(alloc: &Alloc, starts: usize) {
    wait_up(alloc, starts);
    let mut last = String::new();
    wait::true_within("a task to be restarted", LIMIT, || {
        let done = alloc.restart("t");
        last = format!("{done:?}");
        Ok(done.is_ok())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {last}"));
}
