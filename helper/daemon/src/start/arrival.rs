//! The payload's arrival: waiting for it, and keeping its processes where they outlive us.

use std::fs;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use proto::error::Refusal;
use proto::limits;
use proto::step::Step;
use proto::unit_id::UnitId;
use tokio::net::unix::pipe;

use crate::context::Context;
use crate::process::{Process, nspawn};
use crate::start::launcher_link::Launcher;
use crate::start::nspawn_messages::Messages;
use crate::start::payload_watch::{self, Processes};
use crate::systemd::notify;
use crate::systemd::units::{names, read};
use crate::tasks::record::Record;
use kernel::{hook, layout};

/// Time for the report of a process that has ended: it lies in the socket.
const LAST_REPORT: Duration = Duration::from_millis(50);
/// Time for the report about a payload that runs already.
const CONNECTED: Duration = Duration::from_secs(5);

/// Waits until the payload runs, or has run.
pub(crate) async fn await_payload(
    context: &Rc<Context>,
    record: &Record,
    main: &Process,
    messages: Option<&Messages>,
) -> Result<(), Refusal> {
    let key = &record.key;
    let found = |processes: &Processes| {
        hook::run(Step::Store, || store_processes(context, record, processes));
    };
    let starting = context.starting.clone();
    let arrival = payload_watch::await_arrival(starting, main, record.kind, nspawn(), found);
    let processes = arrival.await;
    let errors = messages.map(Messages::errors).unwrap_or_default();
    if let Some(leader) = &processes.leader {
        // The container's first process is systemd-nspawn itself up to the payload's execve.
        if leader.has_ended() && !errors.is_empty() {
            context.table.borrow_mut().note(key, format!("systemd-nspawn: {errors}"));
        }
        let must = filters_of_start(record.unit());
        return payload_watch::check_filters(main, record.kind, &processes, must);
    }
    // With filters of the cache a payload may live shorter than the time between two looks.
    // systemd-nspawn gives a reason when it fails itself, and otherwise ends as its payload has ended.
    if messages.is_some() && errors.is_empty() && has_exited(context, record).await {
        tracing::info!(%key, "the payload has ended before it was seen");
        return Ok(());
    }
    let unit = names::task(record.unit());
    tracing::warn!(%key, "systemd-nspawn ended before the payload");
    let mut reason = match errors.as_str() {
        "" => format!("ended before the payload ran, without a reason; see journalctl -u {unit}"),
        errors => format!("ended before the payload ran: {errors}"),
    };
    for note in context.table.borrow().get(key).map_or(&[][..], |entry| &entry.notes) {
        reason.push_str("; ");
        reason.push_str(note);
    }
    Err(Refusal::failed(Step::Leader.name(), "systemd-nspawn", reason))
}

/// Whether the unit's main process was systemd-nspawn, with filters of the cache, and has ended by
/// itself. A launcher that fails takes its mark away.
async fn has_exited(context: &Context, record: &Record) -> bool {
    const EXITED: i32 = 1;
    let is_cached = mark(record.unit()).is_some_and(|text| layout::is_cached_mark(&text));
    let limit = Duration::from_secs(limits::START_TIMEOUT_S);
    is_cached
        && read::await_main_end(&context.bus, record.unit(), limit)
            .await
            .is_some_and(|seen| seen.code == EXITED)
}

/// What the launcher has written right before it executed systemd-nspawn.
fn mark(unit: UnitId) -> Option<String> {
    fs::read_to_string(layout::executed_mark(unit)).ok()
}

/// How many system call filters the payload must be under, as the launcher's mark says.
pub(crate) fn filters_of_start(unit: UnitId) -> Option<u32> {
    layout::filters_of_mark(&mark(unit)?)
}

/// Waits for the arrival of a payload that is held back until its network is complete. When it cannot
/// be completed it is held back for good: the caller kills the unit. `connector`: a pipe that ends
/// with the process which connects it.
pub(crate) async fn connected(
    arrival: impl Future<Output = Result<(), Refusal>>,
    connector: OwnedFd,
    launcher: &Launcher,
    main: &Process,
) -> Result<(), Refusal> {
    let failed = |reason: &str| Refusal::failed(Step::Connect.name(), "network", reason);
    let connector = pipe::Receiver::from_owned_fd(connector).map_err(|e| failed(&e.to_string()))?;
    let connected = async {
        tokio::select! {
            biased;
            result = launcher.await_connected() => return result,
            _ = connector.readable() => {}
        }
        // The report is the last that it does.
        tokio::time::timeout(LAST_REPORT, launcher.await_connected()).await.unwrap_or_else(|_| {
            Err(failed("the process that makes it was killed; see the journal of the task's unit"))
        })
    };
    let (mut arrival, mut connected) = (pin!(arrival), pin!(connected));
    tokio::select! {
        result = &mut connected => return match result {
            Ok(()) => arrival.await,
            // Nobody connects a payload that will never be: systemd-nspawn has the reason. What was not
            // connected has not run, whatever it looks like.
            Err(refusal) if main.has_ended() => arrival.await.and(Err(refusal)),
            Err(refusal) => Err(refusal),
        },
        arrived = &mut arrival => arrived?,
    }
    // The payload runs: the report is on its way, unless it was never held back.
    tokio::time::timeout(CONNECTED, connected).await.unwrap_or_else(|_| {
        let reason = "the payload ran without it and was killed: systemd-nspawn did not move it to \
                      the cgroup \"payload\" of its unit, so this version may be too new; \
                      container_admin = false in [network] of the policy file does without";
        Err(failed(reason))
    })
}

/// Enters a task's processes into the table and the descriptor store.
pub(crate) fn store_processes(context: &Context, record: &Record, processes: &Processes) {
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
