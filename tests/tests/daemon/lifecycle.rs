//! Units whose record cannot be read, services that hang, and bounds of what a client may ask for.

use crate::{HELPER, SOON, alone, ended, host, next_life, removed, started, status};
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Rig, wait};
use proto::error::Code;
use proto::name::{AllocId, Instance, TaskKey, TaskName, VariableName};
use proto::secret::Secret;
use proto::task_spec::process::Ready;
use proto::task_spec::{TaskSpec, Variable};
use proto::wire::{Answer, State, Verb};
use std::time::{Duration, Instant};

fn unit(prefix: &str, key: &TaskKey) -> String {
    format!("nomad-nspawn-{prefix}{}-{}.service", key.alloc.simple(), key.instance)
}

/// Starts a unit that no helper has made.
fn plant(rig: &Rig, name: &str, properties: &[&str], words: &[&str]) {
    let mut command =
        vec!["systemd-run", "--quiet", "--slice=machine-nspawn.slice", "--unit", name];
    for property in properties {
        command.extend(["-p", property]);
    }
    command.extend(words);
    rig.run(&command).unwrap();
}

fn exists(rig: &Rig, name: &str) -> bool {
    let words = ["systemctl", "list-units", "--all", "--plain", "--no-legend", name];
    !rig.run(&words).unwrap().is_empty()
}

fn listed(client: &Client, key: &TaskKey) -> bool {
    match client.ask(Verb::List(None)).unwrap() {
        Ok(Answer::Page(page)) => {
            page.keys.iter().any(|k| (k.alloc, k.instance) == (key.alloc, key.instance))
        }
        other => panic!("{other:?}"),
    }
}

/// Sends a signal to the main process of a service; the guard sends SIGCONT.
struct Stopped<'a>(&'a Rig, &'static str);

impl<'a> Stopped<'a> {
    fn new(rig: &'a Rig, service: &'static str) -> Self {
        let pid = rig.main_pid(service).unwrap();
        assert_ne!(pid, 0, "{service}");
        rig.sh(&format!("kill -STOP {pid}")).unwrap();
        Self(rig, service)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        let pid = self.0.main_pid(self.1).unwrap();
        self.0.sh(&format!("kill -CONT {pid}")).unwrap();
    }
}

/// As after an upgrade, or a downgrade: the unit runs, its record is of a form that the helper does
/// not know, or there is none.
#[test]
fn c1_a_unit_without_a_readable_record_is_shown_killed_and_removed() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    let later = "LogExtraFields=NSPAWN_RECORD=99 NOMAD_TASK_NAME=unread";
    let keys: Vec<TaskKey> = ["later", "none"]
        .into_iter()
        .map(|which| {
            let task = Handmade::new(rig, "unread").unwrap();
            let properties: &[&str] = if which == "later" { &[later] } else { &[] };
            plant(rig, &unit("", &task.key), properties, &["/bin/sleep", "1000"]);
            let relay = unit("log-", &task.key);
            plant(rig, &relay, &["CollectMode=inactive-or-failed"], &["/bin/sleep", "1000"]);
            task.key.clone()
        })
        .collect();
    let client = next_life(rig);
    for key in &keys {
        assert!(listed(&client, key), "{key}");
        assert_eq!(status(&client, key).state, State::Running, "{key}");
        // A start of the same run stands back.
        assert_eq!(status(&client, key).unit, unit("", key));
    }
    let kill = Verb::Kill(keys[0].clone());
    assert_eq!(client.ask(kill).unwrap(), Ok(Answer::Killed));
    ended(&client, &keys[0]);
    for key in &keys {
        removed(&client, key);
        assert!(!exists(rig, &unit("", key)), "{key}: answered as removed");
        assert!(!exists(rig, &unit("log-", key)), "{key}: its output");
        assert!(!listed(&client, key));
        let status = client.ask(Verb::Status(key.clone())).unwrap();
        assert!(status.is_err(), "{status:?}");
        let dir = format!("/var/lib/nomad/alloc/{}", key.alloc);
        rig.sh(&format!("umount {dir}/*/secrets; rm -r {dir}")).unwrap();
    }
    host.world.assert_same(rig).unwrap();
}

/// A unit that came while the helper ran: "removed" means that PID 1 has none of this name.
#[test]
fn c1_removed_is_never_said_of_a_unit_that_runs() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "unknown").unwrap();
    let name = unit("", &task.key);
    plant(rig, &name, &[], &["/bin/sleep", "1000"]);
    removed(&client, &task.key);
    assert!(!exists(rig, &name), "answered as removed");
    // Another task's name does not remove this one's.
    started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    let other = TaskKey { task: TaskName::new("other").unwrap(), ..task.key.clone() };
    removed(&client, &other);
    assert_eq!(status(&client, &task.key).state, State::Running);
    task.remove(&client).unwrap();
}

/// A relay names its task's unit, which PID 1 then shows as `not-found` when it is gone.
#[test]
fn c2_a_name_that_only_another_unit_mentions_is_not_a_task() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    let alloc = AllocId([0xc2; 16]);
    let key = TaskKey { alloc, task: TaskName::new("gone").unwrap(), instance: Instance(2) };
    let (task, relay) = (unit("", &key), unit("log-", &key));
    let before = format!("Before={task}");
    let properties = [before.as_str(), "CollectMode=inactive-or-failed"];
    plant(rig, &relay, &properties, &["/bin/sleep", "1000"]);
    assert!(exists(rig, &task), "PID 1 shows no stub here: the test shows nothing");
    let client = next_life(rig);
    assert!(!listed(&client, &key));
    let stopped = wait::true_within("the end of the relay", SOON, || Ok(!exists(rig, &relay)));
    rig.exec(&["systemctl", "stop", &relay]).unwrap();
    stopped.unwrap();
    host.world.assert_same(rig).unwrap();
}

#[test]
fn c7_a_machined_that_hangs_costs_a_removal_seconds_not_minutes() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "machined").unwrap();
    started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    wait::true_within("the registration", SOON, || {
        Ok(rig.run(&["machinectl", "list", "--no-legend"])?.contains(&task.key.alloc.to_string()))
    })
    .unwrap();
    let hung = Stopped::new(rig, "systemd-machined.service");
    let begun = Instant::now();
    removed(&client, &task.key);
    let took = begun.elapsed();
    drop(hung);
    assert!(took < Duration::from_secs(15), "{took:?}");
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}

/// The greeting needs nothing but the helper.
#[test]
fn c7_a_bus_that_hangs_does_not_make_the_helper_look_dead() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    let old = rig.main_pid(HELPER).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    assert_ne!(rig.main_pid(HELPER).unwrap(), old);
    let hung = Stopped::new(rig, "dbus.service");
    let begun = Instant::now();
    let entered = Door::of(rig).unwrap().enter();
    let took = begun.elapsed();
    drop(hung);
    entered.unwrap();
    assert!(took < Duration::from_secs(4), "{took:?}");
    host.world.assert_same(rig).unwrap();
}

/// An earlier removal gave up waiting for its clean-up, which goes on.
#[test]
fn c10_a_clean_up_that_runs_already_is_waited_for() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "cleaned").unwrap();
    let spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    started(&client, &spec);
    let upper = format!("/var/lib/nomad-nspawn/{}-{}", spec.key.alloc.simple(), spec.key.instance);
    // A mount that the unit's own clean-up cannot remove.
    rig.sh(&format!("mkdir {upper}/busy && mount -t tmpfs busy {upper}/busy")).unwrap();
    let script = format!("sleep 5; umount {upper}/busy; rm -rf {upper}");
    let properties = ["Type=oneshot", "CollectMode=inactive-or-failed"];
    let name = unit("clean-", &spec.key);
    plant(rig, &name, &properties, &["--no-block", "/bin/sh", "-c", &script]);
    wait::true_within("the clean-up", SOON, || Ok(exists(rig, &name))).unwrap();
    let answer = client.ask(Verb::Remove(spec.key.clone())).unwrap();
    assert_eq!(answer, Ok(Answer::Removed));
    task.remove(&client).unwrap();
}

/// Environment of about as many bytes.
fn large(mut spec: TaskSpec, bytes: usize) -> TaskSpec {
    spec.environment = (0..bytes.div_ceil(100_000))
        .map(|number| Variable {
            name: VariableName::new(format!("LARGE_{number}")).unwrap(),
            value: Secret::new("x".repeat(100_000)),
        })
        .collect();
    spec
}

/// Six jobs that never say READY=1, whose environments together fill what the helper holds of
/// specifications at once.
#[test]
fn s4_starts_that_wait_to_be_ready_hold_nobody_else_up() {
    let (_life, rig, client) = host();
    let waiting: Vec<_> = (0..6).map(|_| Handmade::new(rig, "unready").unwrap()).collect();
    let other = Handmade::new(rig, "other").unwrap();
    std::thread::scope(|scope| {
        let starts: Vec<_> = waiting
            .iter()
            .map(|task| {
                let spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
                let mut spec = large(spec, 1_300_000);
                spec.process.ready = Ready::Notify { timeout_s: 300 };
                let client = Door::of(rig).unwrap().enter().unwrap();
                scope.spawn(move || client.start(&spec).unwrap())
            })
            .collect();
        for task in &waiting {
            wait::true_within("the payload", Duration::from_secs(60), || {
                let status = Verb::Status(task.key.clone());
                Ok(matches!(client.ask(status)?, Ok(Answer::Status(task)) if task.leader.is_some()))
            })
            .unwrap();
        }
        let spec = large(other.spec(&["/bin/sleep", "1000"]).unwrap(), 1_300_000);
        // A leader is there some time before its payload is, and the specification until then.
        let answer = wait::until("a place for the specification", SOON, || {
            let answer = Door::of(rig)?.enter()?.start(&spec)?;
            Ok((answer.as_ref().err().map(|e| e.code) != Some(Code::Busy)).then_some(answer))
        });
        for task in &waiting {
            removed(&client, &task.key);
        }
        for start in starts {
            assert!(start.join().unwrap().is_err(), "it was not ready");
        }
        assert!(matches!(answer, Ok(Ok(Answer::Started(_)))), "{answer:?}");
    });
    for task in waiting.into_iter().chain([other]) {
        task.remove(&client).unwrap();
    }
}

/// What makes PID 1 work has a rate; whoever asks for more waits, and others are answered.
#[test]
fn s7_a_flood_of_removals_is_slowed_down() {
    const COUNT: u32 = 400;
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let flooding = Door::of(rig).unwrap().enter().unwrap();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let flood = scope.spawn(move || {
            for number in 0..COUNT {
                let task = TaskName::new("nobody").unwrap();
                let alloc = AllocId([0x57; 16]);
                removed(&flooding, &TaskKey { alloc, task, instance: Instance(number) });
            }
        });
        while !flood.is_finished() {
            let asked = Instant::now();
            assert!(client.ask(Verb::List(None)).unwrap().is_ok());
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        flood.join().unwrap();
    });
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3), "{COUNT} in {took:?}");
    assert!(took < Duration::from_secs(30), "{COUNT} in {took:?}");
    host.world.assert_same(rig).unwrap();
}

/// Somebody else's machine bears the name: it is left alone, and a line says why the task is not
/// shown.
#[test]
fn s11_a_machine_of_the_same_name_stays_and_is_written_down() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "namesake").unwrap();
    let spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    let machine = started(&client, &spec).machine.to_string();
    removed(&client, &spec.key);
    let foreign = "s11-foreign.service";
    plant(rig, foreign, &[], &["/bin/sleep", "1000"]);
    let pid = rig.main_pid(foreign).unwrap().to_string();
    let manager = ["org.freedesktop.machine1", "/org/freedesktop/machine1"];
    let interface = "org.freedesktop.machine1.Manager";
    let call = ["busctl", "call", manager[0], manager[1], interface];
    let arguments = ["RegisterMachine", "sayssus", &machine, "0", "test", "container", &pid, ""];
    rig.run(&[&call[..], &arguments[..]].concat()).unwrap();
    let known = || rig.run(&["machinectl", "list", "--no-legend"]).unwrap().contains(&machine);
    assert!(known());
    started(&client, &spec);
    let line = wait::true_within("the line in the journal", SOON, || {
        let journal = rig.journal(HELPER)?;
        let about = format!("task={}", task.key);
        Ok(journal.lines().any(|l| l.contains("not registered") && l.contains(&about)))
    });
    removed(&client, &spec.key);
    let stays = known();
    rig.run(&["systemctl", "stop", foreign]).unwrap();
    assert!(stays, "another's machine was unregistered");
    line.unwrap();
    wait::true_within("the foreign machine's end", SOON, || Ok(!known())).unwrap();
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}
