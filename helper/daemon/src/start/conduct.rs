//! One start: decide, claim, ask PID 1, hand the plan to the launcher, wait for the payload.
//!
//! Whatever fails, and whoever gives up, the undo is a removal of the unit: everything else lives
//! in it or is counted in the table.

use std::rc::Rc;
use std::time::Duration;

use proto::error::{Refusal, printable};
use proto::limits;
use proto::name::TaskKey;
use proto::step::Step;
use proto::task_spec::process::Ready;
use proto::task_spec::{Logs, TaskSpec};
use proto::wire::{Phase, Task};

use crate::context::{Context, Held};
use crate::end::remove;
use crate::network::found::{self, Wait};
use crate::network::networks;
use crate::process::Process;
use crate::start::launcher_link::Prepared;
use crate::start::nspawn_messages::Messages;
use crate::start::ready::Notice;
use crate::start::{arrival, claim, filter_cache, launch, output, preflight};
use crate::systemd::machined;
use crate::systemd::units::{names, resources, task};
use crate::tasks::record::Record;
use crate::tasks::status;
use crate::tasks::table::Entry;
use kernel::hook;
use policy::{Allocated, Decision};

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
    preflight::check_systemd(context).await?;
    let policy = context.policy();
    let limit = Duration::from_secs(spec.start_limit_s());
    let decision = hook::during(Step::Decide, preflight::decide(spec, &policy)).await?;
    let mut record = claim::enter(context, &decision)?;
    let key = record.key.clone();
    let gate = context.table.borrow().gate(&key);
    let locked = gate.lock().await;
    context.pace.wait().await;
    claim::note_device(context, &mut record).await;
    let attempt = attempt(context, decision, &record, held, agent);
    let started = tokio::time::timeout(limit, attempt).await;
    let result = started.unwrap_or_else(|_| {
        let unit = names::task(record.unit());
        let reason = format!("not started after {} s; see journalctl -u {unit}", limit.as_secs());
        Err(Refusal::failed("start", unit, reason))
    });
    finish(context, &key, result.is_ok()).await;
    drop(locked);
    result?;
    status::after_start(context, &key).await
}

/// The end of a start; the caller holds the task's gate.
pub(crate) async fn finish(context: &Rc<Context>, key: &TaskKey, started: bool) {
    if started {
        end_boost(context, key).await;
        machined::register(context, key);
        networks::withdraw_at_end(context, key);
        found::follow(context, key);
    } else if let Err(error) = remove::undo(context, key).await {
        tracing::error!(%key, %error, "a failed start could not be undone");
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(key) {
        entry.starting = false;
    }
}

/// The longest that a task has the raised CPU weight of a start: a job that never becomes ready would
/// have it for an hour.
const BOOST_MAX: Duration = Duration::from_secs(60);
/// Between the first two tries to take it away; it doubles from one to the next.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// The most between two.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// Takes the raised CPU weight of a start away, and tries again as long as PID 1 does not do it. Also
/// after a restart of the daemon, which may have died between: doing it twice changes nothing.
pub(crate) async fn end_boost(context: &Rc<Context>, key: &TaskKey) {
    let Err(error) = set_weight_back(context, key).await else { return };
    tracing::error!(%key, error, "the CPU weight of the start is not set back yet; trying again");
    let (context, key) = (Rc::clone(context), key.clone());
    tokio::task::spawn_local(async move {
        let mut pause = AGAIN_MIN;
        loop {
            tokio::time::sleep(pause).await;
            if set_weight_back(&context, &key).await.is_ok() {
                return;
            }
            pause = pause.saturating_mul(2).min(AGAIN_MAX);
        }
    });
}

/// Ends it whatever becomes of the start.
pub(crate) fn limit_boost(context: &Rc<Context>, record: &Record) {
    if record.weight.is_none() {
        return;
    }
    let (context, key) = (Rc::clone(context), record.key.clone());
    tokio::task::spawn_local(async move {
        tokio::time::sleep(BOOST_MAX).await;
        end_boost(&context, &key).await;
    });
}

/// One try; nothing is to do for a task that has no such weight, has ended or is gone.
async fn set_weight_back(context: &Context, key: &TaskKey) -> Result<(), String> {
    let entry = context.table.borrow().get(key).cloned();
    let lives = |entry: &Entry| !entry.leader.as_ref().is_some_and(Process::has_ended);
    let record = entry.filter(lives).map(|entry| entry.record);
    match record.and_then(|record| Some((record.unit(), record.weight?))) {
        Some((unit, weight)) => resources::set_weight(&context.bus, unit, weight).await,
        None => Ok(()),
    }
}

/// Starts the payload and waits until it is ready, as long as its job asks.
async fn attempt(
    context: &Rc<Context>,
    decision: Decision,
    record: &Record,
    held: Held,
    agent: Option<u32>,
) -> Result<(), Refusal> {
    // Before the launcher: systemd-nspawn is given the socket's path.
    let notice = match decision.plan().process.ready {
        Ready::Notify { timeout_s } => {
            Some(Notice::new(record.unit(), timeout_s).map_err(|e| failed(record, e.to_string()))?)
        }
        Ready::Started | Ready::Network { .. } => None,
    };
    let address = Wait::of(decision.plan());
    limit_boost(context, record);
    let main = start_payload(context, decision, record, agent).await?;
    // Nothing of the specification is left. A payload may take an hour to be ready, and must not
    // keep others from being started.
    drop(held);
    let reach = |phase| context.table.borrow_mut().reach(&record.key, phase);
    if let Some(notice) = notice {
        reach(Phase::Ready);
        notice.wait(&main).await?;
    }
    match address {
        Some(address) => {
            reach(Phase::Address);
            address.run(context, record, &main).await
        }
        None => Ok(()),
    }
}

/// From the decision to a payload that runs; returns systemd-nspawn's process.
async fn start_payload(
    context: &Rc<Context>,
    decision: Decision,
    record: &Record,
    agent: Option<u32>,
) -> Result<Process, Refusal> {
    let (plan, settings) = decision.complete(Allocated {
        users: record.users,
        link: record.link.clone(),
        agent,
        cached_filters: context.policy().seccomp.cache,
    });
    let has_fifos = matches!(plan.logs, Logs::Fifos);
    let (launcher, main) = launch::start_unit(context, record, &plan, &settings).await?;
    let prepared = launch::await_prepared(&launcher, &main, record).await?;
    if record.users.is_none() && !settings.devices.is_empty() {
        let restricted = task::restrict_devices(&context.bus, record.unit(), &settings).await;
        restricted.map_err(|e| failed(record, format!("DeviceAllow= of the unit: {e}")))?;
    }
    keep_report(context, &record.key, &prepared);
    filter_cache::note(context, &prepared.filters);
    if prepared.lacks_filters {
        filter_cache::fill_for(context, record.unit());
    }
    let messages = match prepared.messages {
        Some(socket) => {
            let messages = Messages::listen(socket, record, main.clone());
            Some(messages.map_err(|e| failed(record, format!("messages of systemd-nspawn: {e}")))?)
        }
        None => None,
    };
    let relay = if record.relayed {
        Some(output::start_relay(context, record, &settings.labels, plan).await?)
    } else {
        None
    };
    let reach = |phase| context.table.borrow_mut().reach(&record.key, phase);
    if record.has_network() {
        reach(Phase::Network);
        hook::during(Step::Ports, networks::publish(context, record)).await?;
    }
    hook::during(Step::Go, launcher.go()).await?;
    if let Some(relay) = relay {
        relay.go().await?;
    }
    if prepared.connector.is_none() {
        reach(Phase::Payload);
    }
    let arrival = arrival::await_payload(context, record, &main, messages.as_deref());
    let arrival = hook::during(Step::Leader, arrival);
    match prepared.connector {
        Some(connector) => arrival::connected(arrival, connector, &launcher, &main).await?,
        None => arrival.await?,
    }
    if has_fifos {
        output::hold_fifos(context, record, &launcher, &main).await;
    }
    Ok(main)
}

/// Keeps the launcher's remarks for the task's events, and where its filters are from.
fn keep_report(context: &Context, key: &TaskKey, prepared: &Prepared) {
    let notes: Vec<String> =
        prepared.notes.iter().take(limits::NOTES_MAX).map(|note| printable(note)).collect();
    for note in &notes {
        tracing::warn!(task = %key, note);
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(key) {
        entry.notes = notes;
        entry.filters = Some(prepared.filters.clone());
    }
}

fn failed(record: &Record, reason: String) -> Refusal {
    Refusal::failed("ready", names::task(record.unit()), reason)
}
