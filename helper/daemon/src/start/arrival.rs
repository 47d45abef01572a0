//! The payload's arrival: waiting for it, and keeping its processes where they outlive us.

use std::rc::Rc;

use proto::error::Refusal;
use proto::step::Step;

use crate::context::Context;
use crate::process::{Process, nspawn};
use crate::start::nspawn_messages::Messages;
use crate::start::payload_watch::{self, Processes};
use crate::systemd::notify;
use crate::systemd::units::names;
use crate::tasks::record::Record;
use kernel::hook;

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
    let processes = payload_watch::await_arrival(main, record.kind, nspawn(), found).await;
    let errors = messages.map(Messages::errors).unwrap_or_default();
    if let Some(leader) = &processes.leader {
        // The container's first process is systemd-nspawn itself up to the payload's execve.
        if leader.has_ended() && !errors.is_empty() {
            context.table.borrow_mut().note(key, format!("systemd-nspawn: {errors}"));
        }
        return payload_watch::check_filters(main, record.kind, &processes);
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
