//! Taking a task away: idempotent, and checked at the end.

use std::rc::Rc;
use std::time::Duration;

use proto::error::Refusal;
use proto::name::TaskKey;
use proto::step::Step;
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::exec::workers;
use crate::files;
use crate::network::networks;
use crate::restart::recover;
use crate::systemd::units::stop::{self, Who};
use crate::systemd::units::{cleanup, freeze, names};
use crate::systemd::{machined, notify};
use kernel::hook;

/// Time after which a start that has not ended is killed once more.
const AGAIN: Duration = Duration::from_millis(200);

/// Removes a task; kills it when it runs. An unknown task is fine, but PID 1 must not have a unit
/// of that name either: no container that runs is ever reported as removed.
pub(crate) async fn run(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    context.pace.wait().await;
    let Some(entry) = context.table.borrow().get(key).cloned() else {
        return remove_unknown(context, key).await;
    };
    let _held = loop {
        if entry.starting {
            // So that it ends and releases the gate. Again and again: PID 1 may not have made the
            // unit yet, and a start may wait for its payload for long.
            kill(context, key, Who::Main).await?;
        }
        if let Ok(held) = tokio::time::timeout(AGAIN, entry.gate.lock()).await {
            break held;
        }
    };
    if context.table.borrow().get(key).is_none() {
        return Ok(());
    }
    undo(context, key).await
}

/// Takes away what PID 1 has under the name of a task that is not in the table.
async fn remove_unknown(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    let id = UnitId::from(key);
    // Another task's unit: the task's name is no part of the id.
    if context.table.borrow().holds(id) {
        return Ok(());
    }
    // No gate keeps a start of it away.
    context.removing.borrow_mut().push(id);
    let result = undo(context, key).await;
    let mut removing = context.removing.borrow_mut();
    if let Some(at) = removing.iter().position(|other| *other == id) {
        removing.swap_remove(at);
    }
    result
}

/// Kills processes of a task.
pub(crate) async fn kill(context: &Rc<Context>, key: &TaskKey, who: Who) -> Result<(), Refusal> {
    let id = UnitId::from(key);
    let kill = stop::kill(&context.bus, id, who);
    hook::during(Step::KillAll, kill).await.map_err(|e| failed(Step::KillAll, id, e))?;
    // Frozen processes die of it, but the unit's own clean-up would be born frozen. Afterwards, so that
    // nothing of the payload runs again.
    if let Err(error) = freeze::thaw(&context.bus, id).await {
        tracing::debug!(%key, error, "not thawed");
    }
    Ok(())
}

/// The removal itself; the caller holds the task's gate.
pub(crate) async fn undo(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    let id = UnitId::from(key);
    hook::during(Step::Unregister, machined::unregister(context, key)).await;
    // Not all of them: the unit's own clean-up may be running.
    kill(context, key, Who::Main).await?;
    let relayed = context.table.borrow().get(key).is_none_or(|entry| entry.record.relayed);
    // The relay after the task: what that wrote last arrives first.
    let units = std::iter::once(names::task(id)).chain(relayed.then(|| names::relay(id)));
    for name in units {
        let stopped = hook::during(Step::StopUnit, stop::stop(&context.bus, &name)).await;
        stopped.map_err(|e| failed(Step::StopUnit, id, e))?;
    }
    clean(context, id).await?;
    hook::during(Step::Forget, forget(context, key)).await
}

/// Takes the upper layer away when the unit's own clean-up did not.
pub(crate) async fn clean(context: &Rc<Context>, id: UnitId) -> Result<(), Refusal> {
    let directory = kernel::layout::upper(id);
    if !directory.exists() {
        return Ok(());
    }
    cleanup::run(&context.bus, id).await.map_err(|e| failed(Step::Clean, id, e))?;
    if directory.exists() {
        let reason = format!("{} could not be removed", directory.display());
        return Err(failed(Step::Clean, id, reason));
    }
    Ok(())
}

/// Releases everything that the daemon holds of a task. The network first: as long as the task is in
/// the table, no other gets its address. The store before the table: a task in the table is removed
/// again, one that is not is swept by its unit.
async fn forget(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    let id = UnitId::from(key);
    networks::withdraw(context, key).await.map_err(|e| failed(Step::Forget, id, e))?;
    notify::forget(&format!("leader-{id}"));
    notify::forget(&format!("payload-{id}"));
    files::remove(&kernel::layout::executed_mark(id));
    files::remove(&kernel::layout::filter_options(id));
    files::remove(&kernel::layout::hosts_file(id));
    files::remove(&kernel::ended::ended_file(id));
    context.streams.borrow_mut().end(id);
    let entry = context.table.borrow_mut().remove(key);
    // A task of the allocation whose record cannot be read may run in the same range.
    let is_shared = context.table.borrow().unreadable().any(|it| it.key.alloc == key.alloc);
    if let Some(base) = entry.and_then(|entry| entry.record.locked_range())
        && !is_shared
    {
        context.ranges.borrow_mut().release(base);
    }
    workers::release_unneeded(context);
    recover::sweep_unclaimed(context);
    Ok(())
}

fn failed(step: Step, id: UnitId, reason: String) -> Refusal {
    Refusal::failed(step.name(), names::task(id), reason)
}
