//! One start: decide, allocate, ask PID 1, hand the plan to the launcher, wait for the payload.
//!
//! Whatever fails, and whoever gives up, the undo is a removal of the unit: everything else lives
//! in it or is counted in the table.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use proto::error::{Code, Refusal, printable};
use proto::limits::{self, RANGE_WIDTH};
use proto::name::{AllocId, TaskKey};
use proto::plan::{Plan, PlannedFiles, Range, Report, Step};
use proto::task_spec::{Label, Logs, Payload, TaskSpec, Users};
use proto::wire::Task;

use crate::context::{Context, Held};
use crate::end::remove;
use crate::process::{Process, nspawn};
use crate::start::launcher_link::Launcher;
use crate::start::nspawn_messages::Messages;
use crate::start::ready::Notice;
use crate::start::{payload_watch, preflight};
use crate::systemd::{machined, notify, unit};
use crate::tasks::record::Record;
use crate::tasks::table::Entry;
use crate::tasks::{held_output, status, uid_range};
use kernel::hook;
use policy::{Decision, UnitLimits};

/// Time for a launcher that PID 1 has executed to say its pid.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Starts a task; returns when its payload runs, or has run.
///
/// `held`: what the specification counts in the bound of all; `agent`: the Nomad agent's process id,
/// where it is known.
pub(crate) async fn run(
    context: &Rc<Context>,
    spec: TaskSpec,
    held: Held,
    agent: Option<u32>,
) -> Result<Task, Refusal> {
    preflight::systemd(context).await?;
    let policy = context.policy();
    let limit = Duration::from_secs(spec.start_limit_s());
    let decision = hook::during(Step::Decide, preflight::decide(spec, &policy)).await?;
    let mut record = claim(context, &decision)?;
    let key = record.key.clone();
    let gate = gate(context, &key);
    let locked = gate.lock().await;
    context.pace.wait().await;
    // Only now: nothing is looked at before the decision.
    record.allocs_device = preflight::device(&decision.plan().task_dirs.alloc_dir.root).await;
    if let Some(entry) = context.table.borrow_mut().get_mut(&key) {
        entry.record.allocs_device = record.allocs_device;
    }
    let attempt = attempt(context, decision, &record, held, agent);
    let started = tokio::time::timeout(limit, attempt).await;
    let result = started.unwrap_or_else(|_| {
        let unit = unit::name(record.unit());
        let reason = format!("not started after {} s; see journalctl -u {unit}", limit.as_secs());
        Err(Refusal::failed("start", unit, reason))
    });
    finish(context, &key, result.is_ok()).await;
    drop(locked);
    result?;
    status::after_start(context, &key).await
}

pub(crate) fn gate(context: &Context, key: &TaskKey) -> Rc<tokio::sync::Mutex<()>> {
    context.table.borrow().get(key).map(|entry| entry.gate.clone()).unwrap_or_default()
}

/// The end of a start; the caller holds the task's gate.
pub(crate) async fn finish(context: &Rc<Context>, key: &TaskKey, started: bool) {
    if started {
        machined::register(context, key);
    } else if let Err(error) = remove::undo(context, key).await {
        tracing::error!(%key, %error, "a failed start could not be undone");
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(key) {
        entry.starting = false;
    }
}

/// Enters the task into the table, or says who stands in the way.
fn claim(context: &Rc<Context>, decision: &Decision) -> Result<Record, Refusal> {
    let busy = |object: String, reason: String| {
        Err(Refusal::new(Code::Busy, Step::Decide.name(), object, reason))
    };
    let mut record = Record::new(decision.plan());
    let key = &record.key;
    {
        let table = context.table.borrow();
        if table.holds(record.unit()) {
            return busy(key.to_string(), "this run exists already: remove it first".into());
        }
        // Two of them would share log FIFOs, folders and a layer that is kept for the task.
        if let Some(other) = table.other_run(key) {
            return busy(key.to_string(), format!("run {other} of it exists: remove it first"));
        }
        if context.removing.borrow().contains(&record.unit()) {
            return busy(key.to_string(), "its removal is under way".into());
        }
        let most = context.policy().limits.max_tasks.0;
        if table.len() as u64 >= most {
            return busy("tasks".into(), format!("{most} at once ([limits] max_tasks)"));
        }
        if let Some((holder, why)) = table.holder(&record) {
            return busy(format!("image {}", record.image), format!("task {holder} {why}"));
        }
    }
    record.users = users(context, key.alloc, decision.users())?;
    let entry = Entry::new(record.clone(), crate::now_ms(), true);
    context.table.borrow_mut().insert(entry);
    Ok(record)
}

/// The task's uid range, locked where it is one of systemd-nspawn's grid.
fn users(context: &Context, alloc: AllocId, users: Users) -> Result<Option<Range>, Refusal> {
    let take = |wanted| hook::run(Step::Range, || context.ranges.borrow_mut().take(alloc, wanted));
    Ok(match users {
        Users::Pick => {
            // The one that the layers kept for the allocation belong to, if there are any.
            Some(Range { base: take(kernel::kept_layers::base(alloc))?, width: RANGE_WIDTH })
        }
        Users::Fixed { base, width } => {
            if uid_range::is_locked(base) {
                take(Some(base))?;
            }
            Some(Range { base, width })
        }
        Users::Identity => Some(Range { base: 0, width: RANGE_WIDTH }),
        Users::Host => None,
    })
}

async fn attempt(
    context: &Rc<Context>,
    decision: Decision,
    record: &Record,
    held: Held,
    agent: Option<u32>,
) -> Result<(), Refusal> {
    let failed = |reason: String| Refusal::failed("ready", unit::name(record.unit()), reason);
    let limit = decision.plan().process.ready.limit_s();
    let notice = limit.map(|limit| Notice::new(record.unit(), limit)).transpose();
    let notice = notice.map_err(|e| failed(e.to_string()))?;
    let (plan, limits, labels) = decision.complete(record.users, agent);
    let collected = matches!(plan.logs, Logs::Fifos);
    let (launcher, main) = launch(context, &labels, &limits, record, &plan).await?;
    let plan = Some(plan).filter(|_| record.followed);
    let (notes, socket) = tokio::select! {
        prepared = prepared(&launcher) => prepared?,
        _ = main.ended() => last_word(&launcher, record).await?,
    };
    if record.users.is_none() && !limits.devices.is_empty() {
        let restricted = unit::restrict_devices(&context.bus, record.unit(), &limits).await;
        restricted.map_err(|e| failed(format!("DeviceAllow= of the unit: {e}")))?;
    }
    remark(context, record, notes);
    let messages = socket.map(|socket| Messages::listen(socket, record, main.clone())).transpose();
    let messages = messages.map_err(|e| failed(format!("messages of systemd-nspawn: {e}")))?;
    let follower = match plan {
        Some(plan) => Some(follow(context, record, &labels, plan).await?),
        None => None,
    };
    hook::during(Step::Go, launcher.go()).await?;
    if let Some(follower) = follower {
        follower.go().await?;
    }
    hook::during(Step::Leader, payload(context, record, &main, messages.as_deref())).await?;
    if collected && let Some(writers) = launcher.streams().await {
        context.streams.borrow_mut().enter(record.unit(), writers);
        held_output::watch(context, &record.key, main.clone());
    }
    drop(launcher);
    // Nothing of the specification is left. A payload may take an hour to be ready, and must not
    // keep others from being started.
    drop(held);
    match notice {
        Some(notice) => notice.wait(&main).await,
        None => Ok(()),
    }
}

/// Starts the task's unit; returns when the launcher has said its first word.
async fn launch(
    context: &Context,
    labels: &[Label],
    limits: &UnitLimits,
    record: &Record,
    plan: &Plan,
) -> Result<(Launcher, Process), Refusal> {
    let name = unit::name(record.unit());
    let failed = |step: Step, reason: String| Refusal::failed(step.name(), &name, reason);
    let (launcher, socket) = Launcher::pair().map_err(|e| failed(Step::Unit, e.to_string()))?;
    let systemd = proto::systemd::major(&context.systemd().await);
    let job = context.bus.job_of(&name).await;
    let processes = &plan.isolation.limits;
    let asked = unit::start(&context.bus, record, labels, limits, processes, socket, systemd);
    hook::during(Step::Unit, asked).await.map_err(|reason| failed(Step::Unit, reason))?;
    let said = answered(begun(&launcher, plan), job, &name);
    let pid = hook::during(Step::SendPlan, said).await?;
    match Process::open(pid) {
        Ok(main) => Ok((launcher, main)),
        // It has read the plan and ended already: its report lies in the socket.
        Err(error) => {
            last_word(&launcher, record).await?;
            Err(failed(Step::ReadPlan, format!("launcher: {error}")))
        }
    }
}

/// Keeps the launcher's remarks for the task's events.
fn remark(context: &Context, record: &Record, notes: Vec<String>) {
    let notes: Vec<String> =
        notes.iter().take(limits::NOTES_MAX).map(|note| printable(note)).collect();
    for note in &notes {
        tracing::warn!(task = %record.key, note);
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(&record.key) {
        entry.notes = notes;
    }
}

/// Starts what carries the task's output; it waits for "go" as the launcher does.
async fn follow(
    context: &Context,
    record: &Record,
    labels: &[Label],
    plan: Plan,
) -> Result<Launcher, Refusal> {
    let unit = unit::follower(record.unit());
    let failed = |reason: String| Refusal::failed(Step::Logs.name(), &unit, reason);
    // It needs nothing of what the job keeps to itself.
    let plan = Plan {
        payload: Payload::Command { words: Vec::new() },
        files: PlannedFiles::default(),
        environment: Vec::new(),
        ..plan
    };
    let (follower, socket) = Launcher::pair().map_err(|e| failed(e.to_string()))?;
    let job = context.bus.job_of(&unit).await;
    unit::start_follower(&context.bus, record, labels, socket).await.map_err(failed)?;
    let said = async {
        begun(&follower, &plan).await?;
        prepared(&follower).await
    };
    answered(said, job, &unit).await?;
    Ok(follower)
}

/// Sends the plan ahead, where it waits for the launcher, and takes its first word: its pid.
async fn begun(launcher: &Launcher, plan: &Plan) -> Result<u32, Refusal> {
    launcher.send_plan(plan).await?;
    let Report::Begun { pid } = launcher.report().await? else { return Err(unexpected()) };
    Ok(pid)
}

/// The launcher's remarks, and the socket of systemd-nspawn's messages where it has one.
type Prepared = (Vec<String>, Option<OwnedFd>);

async fn prepared(launcher: &Launcher) -> Result<Prepared, Refusal> {
    let (report, fds) = launcher.receive().await?;
    let Report::Prepared { notes } = report else { return Err(unexpected()) };
    Ok((notes, fds.into_iter().next()))
}

fn unexpected() -> Refusal {
    Refusal::failed(Step::ReadPlan.name(), "launcher", "reports out of order")
}

/// The launcher has ended: its report may still lie in the socket.
async fn last_word(launcher: &Launcher, record: &Record) -> Result<Prepared, Refusal> {
    let moment = Duration::from_millis(50);
    tokio::time::timeout(moment, prepared(launcher)).await.unwrap_or_else(|_| {
        let unit = unit::name(record.unit());
        let reason = format!("the launcher was killed; see journalctl -u {unit}");
        Err(Refusal::failed(Step::Go.name(), unit, reason))
    })
}

/// What a launcher says; an error when none will speak: it could not be executed, or was killed at
/// once.
async fn answered<T>(
    answer: impl Future<Output = Result<T, Refusal>>,
    job: tokio::sync::oneshot::Receiver<String>,
    unit: &str,
) -> Result<T, Refusal> {
    let silent = async {
        match job.await {
            Ok(result) if result != "done" => format!("start job {result}"),
            // Done, or the bus went away: the launcher's first word is its first act.
            _ => {
                tokio::time::sleep(FIRST_WORD).await;
                "the launcher does not report".to_owned()
            }
        }
    };
    tokio::select! {
        answer = answer => answer,
        reason = silent => {
            let reason = format!("{reason}; see journalctl -u {unit}");
            Err(Refusal::failed(Step::Unit.name(), unit, reason))
        }
    }
}

/// Waits for the payload and keeps its descriptors where they outlive us.
pub(crate) async fn payload(
    context: &Rc<Context>,
    record: &Record,
    main: &Process,
    messages: Option<&Messages>,
) -> Result<(), Refusal> {
    let key = &record.key;
    let found = |processes: &payload_watch::Processes| {
        hook::run(Step::Store, || keep(context, record, processes));
    };
    let processes = payload_watch::watch(main, record.kind, nspawn(), found).await;
    let said = messages.map(Messages::errors).unwrap_or_default();
    if let Some(leader) = &processes.leader {
        // The container's first process is systemd-nspawn itself up to the payload's execve.
        if leader.has_ended() && !said.is_empty() {
            context.table.borrow_mut().note(key, format!("systemd-nspawn: {said}"));
        }
        return payload_watch::check_filters(main, record.kind, &processes);
    }
    let unit = unit::name(record.unit());
    tracing::warn!(%key, "systemd-nspawn ended before the payload");
    let mut reason = match said.as_str() {
        "" => format!("ended before the payload ran, without a reason; see journalctl -u {unit}"),
        said => format!("ended before the payload ran: {said}"),
    };
    for note in context.table.borrow().get(key).map_or(&[][..], |entry| &entry.notes) {
        reason.push_str("; ");
        reason.push_str(note);
    }
    Err(Refusal::failed(Step::Leader.name(), "systemd-nspawn", reason))
}

/// Enters a task's processes into the table and the descriptor store.
pub(crate) fn keep(context: &Context, record: &Record, processes: &payload_watch::Processes) {
    let mut table = context.table.borrow_mut();
    let Some(entry) = table.get_mut(&record.key) else { return };
    for (name, known, process) in [
        ("leader", &mut entry.leader, &processes.leader),
        ("payload", &mut entry.payload, &processes.payload),
    ] {
        if let (None, Some(process)) = (&known, process) {
            let name = format!("{name}-{}", record.unit());
            if let Err(error) = notify::store(&name, process.fd()) {
                tracing::error!(name, %error, "not stored: the exit status may be lost with us");
            }
            *known = Some(process.clone());
        }
    }
}
