//! A start that waits until the payload says that it is ready.

use crate::{alone, host, next_life, refused, removed, started, status};
use nspawn_tests::hostile::{Door, Handmade};
use nspawn_tests::{Rig, wait};
use proto::error::Code;
use proto::name::ImageName;
use proto::task_spec::process::Ready;
use proto::task_spec::{Image, Payload, TaskSpec};
use proto::wire::{Phase, State};
use std::time::{Duration, Instant};

fn notify(task: &Handmade<'_>, script: &str, timeout_s: u32) -> TaskSpec {
    let mut spec = task.spec(&["/bin/sh", "-c", script]).unwrap();
    spec.image = Image::Named(ImageName::new("debian").unwrap());
    spec.process.ready = Ready::Notify { timeout_s };
    spec
}

fn sockets(rig: &Rig) -> String {
    rig.sh("ls /run/nomad-nspawn | grep ready- || true").unwrap()
}

#[test]
fn the_answer_comes_when_the_payload_is_ready() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "ready").unwrap();
    let begun = Instant::now();
    let spec = notify(&task, "sleep 1.5; exec systemd-notify --ready", 30);
    started(&client, &spec);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(10), "{took:?}");
    let unit = status(&client, &task.key).unit;
    let access = rig.run(&["systemctl", "show", "-P", "NotifyAccess", &unit]).unwrap();
    assert_eq!(access, "none");
    let socket = format!("/run/nomad-nspawn/ready-{}", unit.trim_start_matches("nomad-nspawn-"));
    assert!(!rig.exists(socket.trim_end_matches(".service")));
    task.remove(&client).unwrap();
}

#[test]
fn a_booted_system_is_ready_when_it_has_booted() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "booted").unwrap();
    let mut spec = notify(&task, "", 60);
    spec.payload = Payload::Boot { arguments: vec![] };
    let task_ready = started(&client, &spec);
    let leader = task_ready.leader.unwrap().to_string();
    let words = ["nsenter", "-t", &leader, "-a", "systemctl", "is-system-running"];
    let state = rig.exec(&words).unwrap().text();
    assert!(["running", "degraded", "starting"].contains(&state.trim()), "{state}");
    assert_ne!(state.trim(), "starting", "said to be ready while it booted");
    task.remove(&client).unwrap();
}

#[test]
fn who_says_nothing_in_time_has_not_started() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "silent").unwrap();
    for (script, limit, text) in
        [("sleep 1000", 1, "within 1 s"), ("sleep 0.5; exit 3", 10, "before it said READY=1")]
    {
        let refusal = refused(&client, &notify(&task, script, limit));
        assert_eq!((refusal.code, refusal.step.as_str()), (Code::Failed, "ready"), "{refusal}");
        assert!(refusal.is_retryable() && refusal.reason.contains(text), "{refusal}");
        let units = rig.run(&["systemctl", "list-units", "--all", "--plain", "--no-legend"]);
        let alloc = task.key.alloc.simple();
        assert!(!units.unwrap().contains(&alloc), "{script}: the unit is still there");
    }
    task.remove(&client).unwrap();
}

/// The limit of a whole start gives way to the longer one; a removal ends the wait at once; a
/// helper that is killed while it waits leaves no socket, and the task counts as started.
#[test]
fn a_wait_ends_with_the_helper_or_with_the_task() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "waiting").unwrap();
    let spec = &notify(&task, "sleep 1000", 300);
    std::thread::scope(|scope| {
        let starting = scope.spawn(move || client.start(spec));
        wait::true_within("the wait", crate::SOON, || Ok(!sockets(rig).is_empty())).unwrap();
        let second = Door::of(rig).unwrap().enter().unwrap();
        wait::true_within("the payload", crate::SOON, || {
            Ok(status(&second, &task.key).leader.is_some())
        })
        .unwrap();
        assert_eq!(status(&second, &task.key).state, State::Starting(Phase::Ready));
        let next = next_life(rig);
        assert!(starting.join().unwrap().is_err(), "an answer from a dead helper");
        assert_eq!(sockets(rig), "");
        wait::true_within("the start to count as done", crate::SOON, || {
            Ok(status(&next, &task.key).state == State::Running)
        })
        .unwrap();
        removed(&next, &task.key);
        // Removed while it is waited for.
        let other = Door::of(rig).unwrap().enter().unwrap();
        let starting = scope.spawn(move || other.start(spec));
        wait::true_within("the wait", crate::SOON, || Ok(!sockets(rig).is_empty())).unwrap();
        let begun = Instant::now();
        removed(&next, &task.key);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(starting.join().unwrap().unwrap().is_err());
        assert_eq!(sockets(rig), "");
        task.remove(&next).unwrap();
    });
    host.world.assert_same(rig).unwrap();
}
