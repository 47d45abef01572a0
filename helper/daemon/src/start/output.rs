//! The task's output at its start: the unit that relays it, and the writers of Nomad's log FIFOs
//! that are held while the task runs.

use std::rc::Rc;

use proto::error::Refusal;
use proto::name::TaskKey;
use proto::plan::{Plan, PlannedFiles};
use proto::step::Step;
use proto::task_spec::{Label, Payload};
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::process::Process;
use crate::start::launch::await_report;
use crate::start::launcher_link::Launcher;
use crate::systemd::units::{names, relay};
use crate::tasks::record::Record;

/// Starts the unit that relays the task's output; it waits for "go" as the launcher does.
pub(crate) async fn start_relay(
    context: &Context,
    record: &Record,
    labels: &[Label],
    plan: Plan,
) -> Result<Launcher, Refusal> {
    let unit = names::relay(record.unit());
    let failed = |reason: String| Refusal::failed(Step::Logs.name(), &unit, reason);
    // It needs nothing of what the job keeps to itself.
    let plan = Plan {
        payload: Payload::Command { words: Vec::new() },
        files: PlannedFiles::default(),
        environment: Vec::new(),
        ..plan
    };
    let (launcher, socket) = Launcher::pair().map_err(|e| failed(e.to_string()))?;
    let job = context.bus.job_of(&unit).await;
    relay::start(&context.bus, record, labels, socket).await.map_err(failed)?;
    let prepared = async {
        launcher.begin(&plan).await?;
        launcher.receive_prepared().await
    };
    await_report(prepared, job, &unit).await?;
    Ok(launcher)
}

/// Takes the writers of the log FIFOs, which the launcher has opened, and holds them.
pub(crate) async fn hold_fifos(
    context: &Rc<Context>,
    record: &Record,
    launcher: &Launcher,
    main: &Process,
) {
    if let Some(writers) = launcher.receive_writers().await {
        context.streams.borrow_mut().enter(record.unit(), writers);
        release_at_end(context, &record.key, main.clone());
    }
}

/// Reports the task's end to the held writers: when systemd-nspawn has ended and, if that was
/// killed, its payload too.
pub(crate) fn release_at_end(context: &Rc<Context>, key: &TaskKey, main: Process) {
    let (context, key) = (context.clone(), key.clone());
    tokio::task::spawn_local(async move {
        let mut ended = main.await_end().await;
        let leader = context.table.borrow().get(&key).and_then(|entry| entry.leader.clone());
        if let Some(leader) = leader {
            ended = ended.and(leader.await_end().await);
        }
        match ended {
            Ok(()) => context.streams.borrow_mut().end(UnitId::from(&key)),
            Err(error) => tracing::warn!(%key, %error, "its output stays open until its removal"),
        }
    });
}
