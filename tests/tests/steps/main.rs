//! The helper and the launcher are killed before and after every step of a start and of a removal:
//! afterwards the task runs and Nomad knows it, or nothing of it is left.
//!
//! The helper is a build with the step hook: a file `<step>.<before|after>` in the hook directory
//! makes the process that meets the step take the file away and kill the process named in it. The
//! steps are the plan's own list; a new one that no table here names makes the test fail.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod cache;
mod exec;
mod filters;
mod phases;
mod task;

use nspawn_tests::product::Variant;
use nspawn_tests::{Config, Job, Rig, World, wait};
use proto::step::Step;
use std::sync::TryLockError::WouldBlock;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use task::{Failing, Hook, Running};

/// Who meets a step, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The helper, at a start.
    HelperStarts,
    /// The launcher; some of these the helper meets as well.
    Launcher,
    /// The launcher of a payload that is held back, and the process that connects it.
    Doorman,
    /// The helper, at a removal.
    HelperRemoves,
    /// The unit's own clean-up.
    Cleaner,
    /// The helper, at a command in a task.
    HelperExecutes,
    /// The worker of such a command, or its copy.
    Worker,
    /// What makes system call filters.
    Fill,
}

fn kind(step: Step) -> Kind {
    match step {
        Step::Decide | Step::Range | Step::Unit | Step::SendPlan => Kind::HelperStarts,
        Step::ReadPlan
        | Step::MountNamespace
        | Step::NetworkNamespace
        | Step::Image
        | Step::UserNamespace
        | Step::RootFs
        | Step::MachineId
        | Step::TaskDirs
        | Step::Files
        | Step::Names
        | Step::Logs
        | Step::Settings
        | Step::Go
        | Step::Exec
        | Step::Keyring
        | Step::Filter => Kind::Launcher,
        Step::Freeze | Step::Doorman | Step::AwaitPayload | Step::Connect | Step::Thaw => {
            Kind::Doorman
        }
        Step::Ports | Step::Leader | Step::Store | Step::Register => Kind::HelperStarts,
        Step::Unregister | Step::KillAll | Step::StopUnit | Step::Forget => Kind::HelperRemoves,
        Step::Clean => Kind::Cleaner,
        Step::SessionWorker | Step::SessionHandOver => Kind::HelperExecutes,
        Step::SessionFilters
        | Step::SessionCgroup
        | Step::SessionEnter
        | Step::SessionStart
        | Step::SessionEnd => Kind::Worker,
        Step::FillStage | Step::FillStop | Step::FillWrite | Step::FillRename => Kind::Fill,
    }
}

fn steps(wanted: Kind) -> impl Iterator<Item = Step> {
    Step::ALL.iter().copied().filter(move |step| kind(*step) == wanted)
}

/// Both moments of a step. An execve that goes well does not come back, and who has entered a container
/// sees no hook any more.
fn moments(step: Step) -> impl Iterator<Item = Hook> {
    let all = ["before", "after"].into_iter();
    let has_both = !matches!(step, Step::Exec | Step::SessionEnter);
    all.filter(move |moment| has_both || *moment == "before")
        .map(move |moment| Hook { step, moment })
}

/// One of two instances, for the caller alone, with the hook directory, and what it holds.
fn rig() -> (&'static Rig, World, MutexGuard<'static, ()>) {
    static RIGS: [OnceLock<Rig>; 2] = [OnceLock::new(), OnceLock::new()];
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let free = TURNS.iter().position(|turn| !matches!(turn.try_lock(), Err(WouldBlock)));
    let index = free.unwrap_or(0);
    // A test that panicked has said so; the others still count, on a host without its tasks.
    let panicked = TURNS[index].is_poisoned();
    TURNS[index].clear_poison();
    let turn = TURNS[index].lock().unwrap_or_else(PoisonError::into_inner);
    let rig = RIGS[index].get_or_init(|| {
        let product = Some(Variant::StepHook);
        let rig = Rig::up(&Config { product, ..Config::from_env().unwrap() }).unwrap();
        task::allow_hooks(&rig);
        rig.set_policy("[caps]\nallow = [\"net_admin\"]").unwrap();
        // The first task of a host brings its slice, which stays.
        Running::start(&rig, "warm-up", 0).stop().purge().unwrap();
        rig
    });
    if panicked {
        rig.sh(&format!("rm -f {}/*", task::HOOKS)).unwrap();
        rig.jobs().unwrap().iter().for_each(|job| job.purge().unwrap());
    }
    (rig, World::snapshot(rig).unwrap(), turn)
}

/// One start each: a start that is taken over does not meet the later steps again.
#[test]
fn a_helper_killed_at_each_of_its_steps_of_a_start_starts_the_task_all_the_same() {
    let (rig, before, _turn) = rig();
    let hooks = steps(Kind::HelperStarts).flat_map(moments);
    let jobs: Vec<Job> = hooks
        .map(|hook| {
            hook.arm(rig, "self");
            survives(rig, &[hook])
        })
        .collect();
    assert_nothing_left(rig, &before, &jobs);
}

#[test]
fn a_helper_killed_at_each_step_of_the_launcher_starts_the_task_all_the_same() {
    helper_killed_at_steps_of(Kind::Launcher);
}

#[test]
fn a_helper_killed_while_a_payload_is_connected_starts_the_task_all_the_same() {
    helper_killed_at_steps_of(Kind::Doorman);
}

fn helper_killed_at_steps_of(kind: Kind) {
    let (rig, before, _turn) = rig();
    let hooks = steps(kind).flat_map(moments);
    let jobs: Vec<Job> = hooks
        .map(|hook| {
            hook.arm(rig, &helper(rig));
            survives(rig, &[hook])
        })
        .collect();
    assert_nothing_left(rig, &before, &jobs);
}

/// After "go" either may meet the hook first, so that one is left to the test below.
#[test]
fn a_launcher_killed_at_each_of_its_steps_leaves_nothing_when_nomad_gives_up() {
    killed_at_steps_of(Kind::Launcher);
}

/// A payload that nobody connects never runs, and is not left behind frozen.
#[test]
fn who_connects_a_payload_killed_at_each_step_leaves_nothing_when_nomad_gives_up() {
    killed_at_steps_of(Kind::Doorman);
}

fn killed_at_steps_of(kind: Kind) {
    let (rig, before, _turn) = rig();
    let hooks = steps(kind).flat_map(moments);
    let hooks = hooks.filter(|hook| (hook.step, hook.moment) != (Step::Go, "after"));
    // All at once in the end: Nomad takes seconds for a task that never opened its log.
    let failing: Vec<Failing<'_>> = hooks.map(|hook| Failing::start(rig, hook)).collect();
    failing.into_iter().for_each(Failing::assert_failed);
    before.assert_same(rig).unwrap();
}

#[test]
fn a_launcher_killed_at_each_of_its_steps_starts_when_nomad_tries_again() {
    killed_and_tried_again(Kind::Launcher);
}

#[test]
fn who_connects_a_payload_killed_at_each_step_starts_it_when_nomad_tries_again() {
    killed_and_tried_again(Kind::Doorman);
}

fn killed_and_tried_again(kind: Kind) {
    let (rig, before, _turn) = rig();
    let jobs: Vec<Job> = steps(kind)
        .map(|step| {
            let hooks: Vec<Hook> = moments(step).collect();
            hooks.iter().for_each(|hook| hook.arm(rig, "self"));
            survives(rig, &hooks)
        })
        .collect();
    assert_nothing_left(rig, &before, &jobs);
}

#[test]
fn a_helper_killed_at_each_step_of_a_removal_leaves_nothing() {
    let (rig, before, _turn) = rig();
    let own = steps(Kind::HelperRemoves).flat_map(moments);
    let mut jobs: Vec<Job> = own.map(|hook| removes(rig, &[hook], "self")).collect();
    let others = steps(Kind::Cleaner).flat_map(moments);
    jobs.extend(others.map(|hook| removes(rig, &[hook], &helper(rig))));
    assert_nothing_left(rig, &before, &jobs);
}

#[test]
fn a_killed_clean_up_leaves_nothing() {
    let (rig, before, _turn) = rig();
    let hooks: Vec<Hook> = steps(Kind::Cleaner).flat_map(moments).collect();
    let job = removes(rig, &hooks, "self");
    assert_nothing_left(rig, &before, &[job]);
}

/// The helper's pid within the instance.
fn helper(rig: &Rig) -> String {
    let mut pid = 0;
    wait::true_within("the helper to be back", task::LIMIT, || {
        pid = rig.main_pid("nomad-nspawn-helper.service")?;
        Ok(pid != 0)
    })
    .unwrap();
    pid.to_string()
}

/// A start that meets the armed hooks ends in a running task that Nomad knows.
fn survives(rig: &Rig, hooks: &[Hook]) -> Job {
    let start = Instant::now();
    let task = Running::start_with(rig, &name("starts", hooks), hooks.len(), capability(hooks));
    // The payload may speak before the helper has told everybody of it.
    wait_for_all(rig, hooks);
    task.assert_known();
    let job = task.stop();
    eprintln!("start, killed {hooks:?}: {:.1} s", start.elapsed().as_secs_f64());
    job
}

/// A removal that meets the hooks leaves nothing.
fn removes(rig: &Rig, hooks: &[Hook], victim: &str) -> Job {
    let start = Instant::now();
    let task = Running::start(rig, &name("ends", hooks), 0);
    hooks.iter().for_each(|hook| hook.arm(rig, victim));
    let job = task.stop();
    // The unit is gone before the helper forgets the task.
    wait_for_all(rig, hooks);
    eprintln!("removal, killed {hooks:?}: {:.1} s", start.elapsed().as_secs_f64());
    job
}

/// Every hook is met, sooner or later.
fn wait_for_all(rig: &Rig, hooks: &[Hook]) {
    wait::true_within("all moments to come", task::LIMIT, || {
        Ok(!hooks.iter().any(|hook| hook.is_armed(rig)))
    })
    .unwrap_or_else(|error| panic!("{hooks:?}: {error:#}"));
}

/// What a job asks for that the steps of these hooks belong to.
fn capability(hooks: &[Hook]) -> &'static str {
    if hooks.iter().any(|hook| kind(hook.step) == Kind::Doorman) { "net_admin" } else { "kill" }
}

fn name(what: &str, hooks: &[Hook]) -> String {
    format!("{what}-{}-{}", hooks[0].to_string().replace('.', "-"), hooks.len())
}

/// The host is as before, when Nomad has forgotten the jobs.
fn assert_nothing_left(rig: &Rig, before: &World, jobs: &[Job]) {
    jobs.iter().for_each(|job| job.purge().unwrap());
    before.assert_same(rig).unwrap();
}
