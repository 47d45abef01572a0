//! Units whose record cannot be read, services that hang, and bounds of what a client may ask for.

use crate::{HELPER, SOON, alone, ended, host, next_life, removed, started, status};
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Rig, wait};
use proto::name::{AllocId, Instance, TaskKey, TaskName, VariableName};
use proto::secret::Secret;
use proto::spec::process::Ready;
use proto::spec::{TaskSpec, Variable};
use proto::wire::{Answer, Kill, List, Remove, State, Status, Verb};
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
    match client.ask(Verb::List(List { after: None })).unwrap() {
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
            let follower = unit("log-", &task.key);
            plant(rig, &follower, &["CollectMode=inactive-or-failed"], &["/bin/sleep", "1000"]);
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
    let kill = Verb::Kill(Kill { key: keys[0].clone() });
    assert_eq!(client.ask(kill).unwrap(), Ok(Answer::Killed));
    ended(&client, &keys[0]);
    for key in &keys {
        removed(&client, key);
        assert!(!exists(rig, &unit("", key)), "{key}: answered as removed");
        assert!(!exists(rig, &unit("log-", key)), "{key}: its output");
        assert!(!listed(&client, key));
        let status = client.ask(Verb::Status(Status { key: key.clone() })).unwrap();
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

/// A follower names its task's unit, which PID 1 then shows as `not-found` when it is gone.
#[test]
fn c2_a_name_that_only_another_unit_mentions_is_not_a_task() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    let alloc = AllocId([0xc2; 16]);
    let key = TaskKey { alloc, task: TaskName::new("gone").unwrap(), instance: Instance(2) };
    let (task, follower) = (unit("", &key), unit("log-", &key));
    let before = format!("Before={task}");
    let properties = [before.as_str(), "CollectMode=inactive-or-failed"];
    plant(rig, &follower, &properties, &["/bin/sleep", "1000"]);
    assert!(exists(rig, &task), "PID 1 shows no stub here: the test shows nothing");
    let client = next_life(rig);
    assert!(!listed(&client, &key));
    let stopped =
        wait::true_within("the end of the follower", SOON, || Ok(!exists(rig, &follower)));
    rig.exec(&["systemctl", "stop", &follower]).unwrap();
    stopped.unwrap();
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
