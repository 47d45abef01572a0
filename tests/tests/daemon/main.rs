//! What the helper keeps track of: uid ranges, images in use, readiness, output, orphans.
//!
//! One host with the helper alone and a policy that allows what these tests need; every start is
//! asked for over the helper's own socket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod confinement;
mod errors;
mod freeze;
mod images;
mod journal;
mod lifecycle;
mod many;
mod messages;
mod mount;
mod orphans;
mod output;
mod properties;
mod ranges;
mod ready;
mod reload;
mod watchdog;

use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Rig, World, wait};
use proto::error::Refusal;
use proto::name::{Instance, TaskKey};
use proto::task_spec::TaskSpec;
use proto::wire::{Answer, State, Task, Verb};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";
/// Beyond the strict policy: ranges that are the host's, a bind that local users can reach, devices.
const POLICY: &str = r#"
[userns]
require = false
[binds]
read_write = ["/srv"]
unprotected = "unmapped"
[devices]
allow = ["/dev/full:r", "/dev/daemon-none:rw"]
[limits]
swap = "1m"
oom_score_adj = -10
[systemd]
slices = ["machine-nspawn-*.slice"]
"#;
/// No step takes longer.
const SOON: Duration = Duration::from_secs(20);

/// Who kills the helper is alone.
static LIFE: RwLock<()> = RwLock::new(());

struct Host {
    rig: Rig,
    world: World,
}

fn shared() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
        rig.set_policy(POLICY).unwrap();
        // The slice of all tasks stays once it has been needed.
        let client = Door::of(&rig).unwrap().enter().unwrap();
        let first = Handmade::new(&rig, "first").unwrap();
        started(&client, &first.spec(&["/bin/true"]).unwrap());
        first.remove(&client).unwrap();
        drop(client);
        let world = World::snapshot(&rig).unwrap();
        Host { rig, world }
    })
}

/// The host for a test that leaves the helper alone.
fn host() -> (RwLockReadGuard<'static, ()>, &'static Rig, Client) {
    let guard = LIFE.read().unwrap_or_else(PoisonError::into_inner);
    let rig = &shared().rig;
    (guard, rig, Door::of(rig).unwrap().enter().unwrap())
}

/// The host for a test that kills the helper; nothing of other tests is there.
fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Host, Client) {
    let guard = LIFE.write().unwrap_or_else(PoisonError::into_inner);
    let host = shared();
    (guard, host, Door::of(&host.rig).unwrap().enter().unwrap())
}

/// Kills the helper and enters its next life.
fn next_life(rig: &Rig) -> Client {
    let old = rig.main_pid(HELPER).unwrap();
    rig.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", HELPER]).unwrap();
    wait::until("the helper's next life", SOON, || {
        let now = rig.main_pid(HELPER)?;
        let entered = || Door::of(rig).and_then(|door| door.enter());
        Ok(if now != 0 && now != old { entered().ok() } else { None })
    })
    .unwrap()
}

/// A specification of the same task, as another run.
fn run_of(task: &Handmade<'_>, words: &[&str], instance: u32) -> TaskSpec {
    let mut spec = task.spec(words).unwrap();
    spec.key.instance = Instance(instance);
    spec
}

fn started(client: &Client, spec: &TaskSpec) -> Task {
    match client.start(spec).unwrap() {
        Ok(Answer::Started(task)) => task,
        other => panic!("{other:?}"),
    }
}

fn refused(client: &Client, spec: &TaskSpec) -> Refusal {
    client.start(spec).unwrap().unwrap_err()
}

fn status(client: &Client, key: &TaskKey) -> Task {
    match client.ask(Verb::Status(key.clone())).unwrap() {
        Ok(Answer::Status(task)) => task,
        other => panic!("{other:?}"),
    }
}

fn ended(client: &Client, key: &TaskKey) {
    wait::true_within("the payload's end", SOON, || {
        Ok(matches!(status(client, key).state, State::Ended(_)))
    })
    .unwrap();
}

fn removed(client: &Client, key: &TaskKey) {
    assert_eq!(client.ask(Verb::Remove(key.clone())).unwrap(), Ok(Answer::Removed));
}
