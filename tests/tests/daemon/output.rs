//! Output that goes to the host's journal, to both, or comes from a container's own journal.

use crate::{SOON, alone, host, next_life, removed, started};
use nspawn_tests::hostile::Handmade;
use nspawn_tests::{Rig, wait};
use proto::name::ImageName;
use proto::task_spec::{Image, Logs, Payload, Root, TaskSpec};
use std::time::Duration;

/// Lines of a task's unit in the journal, by priority.
fn journal(rig: &Rig, unit: &str, priority: &str) -> String {
    let words = ["journalctl", "-q", "-o", "cat", "-u", unit, &format!("PRIORITY={priority}")];
    let machine = rig.run(&words).unwrap();
    machine.lines().filter(|line| line.starts_with("says ")).collect::<Vec<_>>().join("|")
}

fn sh(task: &Handmade<'_>, script: &str, logs: Logs) -> TaskSpec {
    let mut spec = task.spec(&["/bin/sh", "-c", script]).unwrap();
    spec.logs = logs;
    spec
}

fn wait_journal(rig: &Rig, unit: &str) {
    wait::true_within("both lines in the journal", SOON, || {
        Ok(journal(rig, unit, "6") == "says out" && journal(rig, unit, "3") == "says err")
    })
    .unwrap();
}

/// Reads a stream until it holds the text.
fn wait_written(task: &Handmade<'_>, stream: usize, expected: &str) {
    let mut all = Vec::new();
    wait::true_within(expected, SOON, || {
        all.extend(task.written(stream)?);
        Ok(String::from_utf8_lossy(&all) == expected)
    })
    .unwrap_or_else(|e| panic!("{e:#}: {:?}", String::from_utf8_lossy(&all)));
}

#[test]
fn the_journal_alone_gets_both_streams_with_their_priorities() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "journal").unwrap();
    let spec = sh(&task, "echo says out; echo says err >&2; sleep 1000", Logs::Journal);
    let unit = started(&client, &spec).unit;
    wait_journal(rig, &unit);
    assert!(task.written(0).unwrap().is_empty() && task.written(1).unwrap().is_empty());
    task.remove(&client).unwrap();
}

#[test]
fn both_get_everything_to_the_last_line_and_nothing_stays() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "both").unwrap();
    // Also through the name, which container root may open anew.
    let script = "echo says out >/dev/stdout; echo says err >&2; \
                  i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done";
    let unit = started(&client, &sh(&task, script, Logs::Both)).unit;
    let mut expected = "says out\n".to_owned();
    (0..2000).for_each(|i| expected.push_str(&format!("line {i}\n")));
    wait_written(&task, 0, &expected);
    wait_written(&task, 1, "says err\n");
    wait_journal(rig, &unit);
    crate::ended(&client, &task.key);
    let relay = unit.replace("nomad-nspawn-", "nomad-nspawn-log-");
    wait::true_within("the relay's own end", SOON, || {
        let state = rig.run(&["systemctl", "show", "-P", "LoadState", &relay])?;
        Ok(state == "not-found")
    })
    .unwrap();
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}

/// The helper's death changes nothing, and a removal lets the last lines through; when nobody
/// takes them, it does not wait forever.
#[test]
fn a_relay_outlives_the_helper_and_ends_with_the_task() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "outlives").unwrap();
    let script = "trap 'echo says late; exit' TERM; echo says out; while :; do sleep 0.1; done";
    let mut spec = sh(&task, script, Logs::Both);
    // A root that needs no layer on disk: its pipes need the directory all the same.
    spec.root.mode = Root::ReadOnly;
    started(&client, &spec);
    wait_written(&task, 0, "says out\n");
    let client = next_life(rig);
    let signal = proto::wire::Signal { key: task.key.clone(), signal: 15 };
    client.ask(proto::wire::Verb::Signal(signal)).unwrap().unwrap();
    crate::ended(&client, &task.key);
    removed(&client, &task.key);
    wait_written(&task, 0, "says late\n");
    // A pipe that is full, and nobody reads it.
    let flood = sh(&task, "while :; do echo 0123456789012345678901234567890; done", Logs::Both);
    started(&client, &flood);
    std::thread::sleep(Duration::from_secs(1));
    let begun = std::time::Instant::now();
    removed(&client, &task.key);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    task.written(0).unwrap();
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}

#[test]
fn a_containers_own_journal_becomes_its_output() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "inner").unwrap();
    let mut spec = sh(&task, "", Logs::Container { priority: 3 });
    spec.payload = Payload::Boot { arguments: vec![] };
    spec.image = Image::Named(ImageName::new("debian").unwrap());
    let started = started(&client, &spec);
    let leader = started.leader.unwrap().to_string();
    let inside = |words: &[&str]| {
        let all = [&["nsenter", "-t", &leader, "-a"], words].concat();
        rig.exec(&all).unwrap()
    };
    wait::true_within("the container's boot", SOON, || {
        let state = inside(&["systemctl", "is-system-running"]).text();
        Ok(["running", "degraded"].contains(&state.trim()))
    })
    .unwrap();
    for (priority, text) in [("info", "all is well"), ("err", "all is lost")] {
        let words = ["systemd-cat", "-t", "inner", "-p", priority, "echo", text];
        assert!(inside(&words).success());
    }
    let mut all = [String::new(), String::new()];
    wait::true_within("both lines", SOON, || {
        for (stream, text) in all.iter_mut().enumerate() {
            text.push_str(&String::from_utf8_lossy(&task.written(stream)?));
        }
        Ok(all[0].contains("all is well") && all[1].contains("all is lost"))
    })
    .unwrap_or_else(|e| panic!("{e:#}: {all:?}"));
    let line = all[0].lines().find(|line| line.contains("all is well")).unwrap();
    assert!(line.contains("inner[") && !line.starts_with('<'), "{line}");
    assert!(!all[0].contains("all is lost"));
    assert!(all[0].contains("systemd"), "the boot is missing: {}", all[0]);
    // Its console is the host's business.
    wait::true_within("the console in the host's journal", SOON, || {
        let console = ["journalctl", "-q", "-o", "cat", "-u", &started.unit];
        Ok(rig.run(&console)?.contains("Welcome to"))
    })
    .unwrap();
    task.remove(&client).unwrap();
}
