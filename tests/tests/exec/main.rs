//! Commands that are executed in tasks that run: what confines them, their streams and ends, and what
//! is left when a process of the session dies.
//!
//! The helper is asked directly, as a driver asks it; the agent's way is tests/exec_agent.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod deaths;
mod equal;
mod hostile;
mod sessions;

use nspawn_tests::hostile::{Client, Door, Executed, Handmade, Session, command};
use nspawn_tests::{Config, Rig, wait};
use proto::exec::ExecSpec;
use proto::name::ImageName;
use proto::task_spec::{Image, Payload, TaskSpec, Users};
use proto::unit_id::UnitId;
use proto::wire::Answer;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";
/// What the tests' tasks need.
const POLICY: &str = "[userns]\nrequire = false\n[caps]\nallow = [\"all\"]\n\
                      [syscalls]\nallow_extra = [\"@swap\"]\n[limits]\nulimit = { nice = 40 }\n";
/// The tests' sessions run at once, and a task may have half of this.
const ROOM: &str = "[exec]\nmax_sessions = 128\n";
/// No step takes longer.
const SOON: Duration = Duration::from_secs(20);

/// Who kills the helper, or changes the host, is alone.
static LIFE: RwLock<()> = RwLock::new(());

fn shared() -> &'static Rig {
    static HOST: OnceLock<Rig> = OnceLock::new();
    HOST.get_or_init(|| {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
        rig.set_policy(format!("{POLICY}{ROOM}")).unwrap();
        rig
    })
}

/// The host for a test that leaves it as it is.
fn host() -> (RwLockReadGuard<'static, ()>, &'static Rig, Client) {
    let guard = LIFE.read().unwrap_or_else(PoisonError::into_inner);
    (guard, shared(), Door::of(shared()).unwrap().enter().unwrap())
}

/// The host for a test that does not.
fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Rig, Client) {
    let guard = LIFE.write().unwrap_or_else(PoisonError::into_inner);
    shared().set_policy(POLICY).unwrap();
    (guard, shared(), Door::of(shared()).unwrap().enter().unwrap())
}

/// A task of every kind that commands are executed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Command,
    ProcessTwo,
    Boot,
}

const KINDS: [(Kind, Users); 6] = [
    (Kind::Command, Users::Pick),
    (Kind::ProcessTwo, Users::Pick),
    (Kind::Boot, Users::Pick),
    (Kind::Command, Users::Host),
    (Kind::ProcessTwo, Users::Host),
    (Kind::Boot, Users::Host),
];

/// Starts a task that lives until it is removed.
fn start<'a>(
    rig: &'a Rig,
    client: &Client,
    (kind, users): (Kind, Users),
    change: impl FnOnce(&mut TaskSpec),
) -> Handmade<'a> {
    let task = Handmade::new(rig, "exec").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    spec.users = users;
    match (kind, &spec.payload) {
        (Kind::ProcessTwo, Payload::Command { words }) => {
            spec.payload = Payload::ProcessTwo { words: words.clone() };
        }
        (Kind::Boot, _) => {
            spec.image = Image::Named(ImageName::new("debian").unwrap());
            spec.payload = Payload::Boot { arguments: Vec::new() };
        }
        _ => {}
    }
    change(&mut spec);
    match client.start(&spec).unwrap() {
        Ok(Answer::Started(_)) => task,
        other => panic!("{other:?}"),
    }
}

/// A command that runs.
fn open(client: &Client, spec: &ExecSpec) -> Session {
    let mut session = client.exec(spec).unwrap().unwrap();
    session.started().unwrap().unwrap();
    session
}

/// Runs a command to its end.
fn run(client: &Client, task: &Handmade<'_>, words: &[&str]) -> Executed {
    open(client, &command(&task.key, words)).finish().unwrap()
}

/// Runs a script that must succeed; what it writes.
fn script(client: &Client, task: &Handmade<'_>, text: &str) -> String {
    let ran = run(client, task, &["/bin/sh", "-c", text]);
    assert!(ran.code == 0 && ran.stderr.is_empty(), "{ran:?}");
    ran.stdout
}

/// The payload's cgroup.
fn payload(task: &Handmade<'_>) -> String {
    let unit = format!("nomad-nspawn-{}.service", UnitId::from(&task.key));
    format!(
        "/sys/fs/cgroup/machine.slice/machine-nspawn.slice/machine-nspawn-share.slice/{unit}/payload"
    )
}

/// Cgroups of sessions in a task.
fn leaves(rig: &Rig, task: &Handmade<'_>) -> Vec<String> {
    let list = format!("ls {} 2>/dev/null || true", payload(task));
    let names = rig.sh(&list).unwrap();
    let leaves = names.split_whitespace().filter(|name| name.starts_with("nomad-exec-"));
    leaves.map(str::to_owned).collect()
}

/// Waits until no session has a cgroup.
fn wait_no_leaf(rig: &Rig, task: &Handmade<'_>) {
    wait::true_within(
        "the sessions' cgroups to be gone",
        SOON,
        || Ok(leaves(rig, task).is_empty()),
    )
    .unwrap();
}
