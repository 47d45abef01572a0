//! SIGSTOP and SIGCONT freeze and thaw a whole task (`nomad alloc signal`).

use crate::{SOON, ended, host, removed, run_of, started, status};
use nix::sys::signal::Signal as Number;
use nspawn_tests::hostile::{Client, Handmade};
use nspawn_tests::{Rig, wait};
use proto::name::TaskKey;
use proto::wire::{Answer, Signal, State, Verb};
use std::time::Duration;

/// A child writes, so that a signal to the first process alone would not be enough.
const WRITES: &str = "trap 'exit 9' TERM; trap 'echo cont > /tmp/cont' CONT; \
                      while :; do echo x >> /tmp/count; sleep 0.02; done & \
                      while :; do wait; done";

fn send(client: &Client, key: &TaskKey, signal: Number) {
    let signal = Signal { key: key.clone(), signal: u8::try_from(signal as i32).unwrap() };
    assert_eq!(client.ask(Verb::Signal(signal)).unwrap(), Ok(Answer::Signaled));
}

/// How much the task has written; its root is that of its first process.
fn written(rig: &Rig, leader: u32) -> u64 {
    let size = rig.run(&["stat", "-c", "%s", &format!("/proc/{leader}/root/tmp/count")]).unwrap();
    size.parse().unwrap()
}

/// Looked at by the host's own numbers of processes.
fn has(rig: &Rig, leader: u32, file: &str) -> bool {
    let path = format!("/proc/{leader}/root/tmp/{file}");
    rig.exec(&["test", "-e", &path]).unwrap().success()
}

fn freezer(rig: &Rig, unit: &str) -> String {
    rig.run(&["systemctl", "show", "-P", "FreezerState", unit]).unwrap()
}

#[test]
fn a_frozen_task_stands_still_goes_on_and_can_be_ended() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "frozen").unwrap();
    let spec = run_of(&task, &["/bin/sh", "-c", WRITES], 1);
    let begun = started(&client, &spec);
    let (unit, leader) = (begun.unit, begun.leader.unwrap());
    wait::true_within("the first line", SOON, || Ok(has(rig, leader, "count"))).unwrap();
    send(&client, &spec.key, Number::SIGSTOP);
    assert_eq!(freezer(rig, &unit), "frozen");
    let held = written(rig, leader);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(written(rig, leader), held);
    // Neither a reload nor another signal lets it run; the state is no end.
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    send(&client, &spec.key, Number::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((written(rig, leader), freezer(rig, &unit)), (held, "frozen".to_owned()));
    assert_eq!(status(&client, &spec.key).state, State::Running);
    // The signal that waited arrives with the thaw.
    send(&client, &spec.key, Number::SIGCONT);
    ended(&client, &spec.key);
    let State::Ended(exit) = status(&client, &spec.key).state else { panic!() };
    assert_eq!((exit.code, exit.signal), (9, 0), "{exit:?}");
    removed(&client, &spec.key);

    // One that is not frozen gets SIGCONT as any other signal.
    let spec = run_of(&task, &["/bin/sh", "-c", WRITES], 2);
    let leader = started(&client, &spec).leader.unwrap();
    wait::true_within("the payload's CONT", SOON, || {
        send(&client, &spec.key, Number::SIGCONT);
        Ok(has(rig, leader, "cont"))
    })
    .unwrap();
    send(&client, &spec.key, Number::SIGSTOP);
    send(&client, &spec.key, Number::SIGCONT);
    let leader = status(&client, &spec.key).leader.unwrap();
    let before = written(rig, leader);
    wait::true_within("the task to write", SOON, || Ok(written(rig, leader) > before)).unwrap();

    // A kill ends it as soon as any other.
    send(&client, &spec.key, Number::SIGSTOP);
    assert_eq!(client.ask(Verb::Kill(spec.key.clone())).unwrap(), Ok(Answer::Killed));
    ended(&client, &spec.key);
    removed(&client, &spec.key);

    // And so does a removal.
    let spec = run_of(&task, &["/bin/sh", "-c", WRITES], 3);
    let unit = started(&client, &spec).unit;
    send(&client, &spec.key, Number::SIGSTOP);
    let begun = std::time::Instant::now();
    removed(&client, &spec.key);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(rig.run(&["systemctl", "show", "-P", "LoadState", &unit]).unwrap(), "not-found");
    task.remove(&client).unwrap();
}
