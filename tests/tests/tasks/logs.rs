//! Output: complete, in the right stream, and independent of Nomad's log collector.

use crate::work::{Host, LIMIT, Running, TASK, Work, both_modes, says};
use nspawn_tests::processes::Part;
use nspawn_tests::{Rig, wait};
use std::collections::BTreeSet;

#[test]
fn fifty_megabytes_arrive_complete() {
    let host = Host::shared();
    let script = "head -c 52428800 /dev/urandom >/tmp/all; sha256sum /tmp/all >&2; cat /tmp/all";
    let task = Work::sh(script).run(&host, "fifty");
    assert_eq!(task.end(), ("complete".to_owned(), 0, 0));
    let line = says(&task.alloc, "stderr", "\n");
    let expected = line.split(' ').next().unwrap();
    assert_eq!(expected.len(), 64, "{line}");
    // As a user reads it.
    let read = format!("nomad alloc logs {} {TASK} | sha256sum", task.alloc.id);
    let mut found = String::new();
    wait::true_within("all bytes to be collected", LIMIT, || {
        found = host.run(&["sh", "-c", &read])?;
        Ok(found.starts_with(expected))
    })
    .unwrap_or_else(|e| panic!("{e:#}: {found}, not {expected}"));
    task.job.purge().unwrap();
}

#[test]
fn a_payload_can_open_its_streams_again() {
    let host = Host::shared();
    let script = "echo x > /dev/stdout; echo y > /dev/stderr; echo z >> /proc/self/fd/1";
    for task in both_modes(&host, "reopen", &Work::sh(script)) {
        assert_eq!(task.end(), ("complete".to_owned(), 0, 0));
        task.assert_stream("stdout", b"x\nz\n");
        task.assert_stream("stderr", b"y\n");
        task.job.purge().unwrap();
    }
}

/// Counts into its standard output and, as proof of life, into a file of the allocation.
const COUNT: &str = "i=0; trap 'exit 0' TERM; while :; do i=$((i+1)); echo $RUN line $i; \
    echo $i >/alloc/data/count.new; mv /alloc/data/count.new /alloc/data/count; sleep 0.02; done";

fn count(rig: &Rig, task: &Running) -> u32 {
    let path = format!("/var/lib/nomad/alloc/{}/alloc/data/count", task.alloc.id);
    let text = rig.read_file(&path).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().parse().unwrap_or(0)
}

fn wait_count(rig: &Rig, task: &Running, least: u32) {
    let what = format!("the payload to count to {least}");
    wait::true_within(&what, LIMIT, || Ok(count(rig, task) >= least)).unwrap();
}

/// Kills the log collector of one task as a crash would.
fn kill_collector(rig: &Rig, task: &Running) {
    let find = format!(
        "for p in $(pgrep -f 'nomad logmon'); do \
         ls -l /proc/$p/fd | grep -q {} && echo $p; done; true",
        task.alloc.id
    );
    let found = rig.run(&["sh", "-c", &find]).unwrap();
    assert_eq!(found.lines().count(), 1, "log collectors: {found:?}");
    rig.run(&["kill", "-9", found.trim()]).unwrap();
    let gone = format!("! kill -0 {} 2>/dev/null", found.trim());
    wait::true_within("the log collector's end", LIMIT, || {
        Ok(rig.exec(&["sh", "-c", &gone])?.success())
    })
    .unwrap();
}

/// Every line from `first` to `last` is there.
fn assert_lines(task: &Running, first: u32, last: u32) {
    let text = says(&task.alloc, "stdout", &format!("line {last}\n"));
    let lines: BTreeSet<&str> = text.lines().collect();
    let missing: Vec<u32> =
        (first..=last).filter(|i| !lines.contains(format!("line {i}").as_str())).collect();
    assert!(missing.is_empty(), "of {first}..={last} are missing: {missing:?}");
}

#[test]
fn a_killed_log_collector_costs_no_task_and_no_byte() {
    let host = Host::alone();
    let count_up = COUNT.replace("$RUN ", "");
    let task = Work::sh(&count_up).service().run(&host, "collector");
    task.alloc.wait_running().unwrap();
    wait_count(&host, &task, 20);
    let leader = task.leader(&host);
    kill_collector(&host, &task);
    let killed = count(&host, &task);
    wait_count(&host, &task, killed + 25);
    assert_eq!(task.leader(&host), leader, "the payload is another");
    assert_eq!(task.state().state(), "running");
    // What was written while the agent was away is among it.
    host.agent_restart().unwrap();
    let back = count(&host, &task);
    wait_count(&host, &task, back + 25);
    assert_eq!(task.leader(&host), leader, "the payload is another");
    assert_lines(&task, killed + 1, back + 25);

    // A restart of the task gives it a new collector as well, also when nobody remembers the run.
    restart_collects(&host, &task, 2, || {});
    restart_collects(&host, &task, 3, || {
        assert_eq!(host.kill_part(Part::Helper).unwrap(), 1);
    });
    task.job.purge().unwrap();
}

/// Kills the collector of a task, lets it write on, and restarts it: what the ended run wrote is
/// in front of what the new one, the task's `run`th, writes.
fn restart_collects(host: &Rig, task: &Running, run: usize, meanwhile: impl FnOnce()) {
    let leader = task.leader(host);
    kill_collector(host, task);
    let killed = count(host, task);
    wait_count(host, task, killed + 25);
    meanwhile();
    assert_eq!(task.leader(host), leader, "the payload is another");
    let last = count(host, task);
    task.alloc.restart(TASK).unwrap();
    wait::true_within("the payload to count anew", LIMIT, || Ok(count(host, task) < killed))
        .unwrap();
    wait_count(host, task, 25);
    let all_there = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let mut runs = text.split("line 1\n").skip(run - 1);
        let (ended, new) = (runs.next().unwrap_or_default(), runs.next().unwrap_or_default());
        let holds = |text: &str, i: u32| text.contains(&format!("line {i}\n"));
        (killed + 1..=last).all(|i| holds(ended, i)) && (2..=25).all(|i| holds(new, i))
    };
    task.alloc.wait_logs(TASK, "stdout", LIMIT, all_there).unwrap();
}
