//! Taking a task away: idempotent, and checked at the end.

use std::rc::Rc;
use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::name::TaskKey;
use proto::plan::{Step, UnitId};

use super::context::Context;
use super::unit::Who;
use super::{machined, notify, unit};
use crate::hook;

/// Time after which a start that has not ended is killed once more.
const AGAIN: Duration = Duration::from_millis(200);

/// Removes a task; kills it when it runs. An unknown task is fine.
pub(super) async fn run(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    let Some(entry) = context.table.borrow().get(key).cloned() else { return Ok(()) };
    let _held = loop {
        if entry.starting {
            // So that it ends and lets go of the gate. Again and again: PID 1 may not have made the
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

/// Kills processes of a task.
pub(super) async fn kill(context: &Rc<Context>, key: &TaskKey, who: Who) -> Result<(), Refusal> {
    hook::before(Step::KillAll);
    let killed = unit::kill(&context.bus, UnitId::from(key), who).await;
    hook::after(Step::KillAll);
    killed.map_err(|e| failed(Step::KillAll, UnitId::from(key), e))
}

/// The removal itself; the caller holds the task's gate.
pub(super) async fn undo(context: &Rc<Context>, key: &TaskKey) -> Result<(), Refusal> {
    let id = UnitId::from(key);
    hook::before(Step::Unregister);
    machined::unregister(context, key).await;
    hook::after(Step::Unregister);
    // Not all of them: the unit's own clean-up may be running.
    kill(context, key, Who::Main).await?;
    hook::before(Step::StopUnit);
    unit::stop(&context.bus, &unit::name(id)).await.map_err(|e| failed(Step::StopUnit, id, e))?;
    if context.table.borrow().get(key).is_some_and(|entry| entry.record.followed) {
        // Behind the task: what it wrote last arrives first.
        let name = unit::follower(id);
        unit::stop(&context.bus, &name).await.map_err(|e| failed(Step::StopUnit, id, e))?;
    }
    hook::after(Step::StopUnit);
    clean(context, id).await?;
    hook::before(Step::Forget);
    forget(context, key);
    hook::after(Step::Forget);
    Ok(())
}

/// Takes the upper layer away when the unit's own clean-up did not.
pub(super) async fn clean(context: &Rc<Context>, id: UnitId) -> Result<(), Refusal> {
    let folder = crate::task::upper(id);
    if !folder.exists() {
        return Ok(());
    }
    unit::clean(&context.bus, id).await.map_err(|e| failed(Step::Clean, id, e))?;
    if folder.exists() {
        let reason = format!("{} could not be removed", folder.display());
        return Err(failed(Step::Clean, id, reason));
    }
    Ok(())
}

/// Lets go of everything that the daemon holds of a task. The store before the table: a task in
/// the table is removed again, one that is not is swept by its unit.
fn forget(context: &Context, key: &TaskKey) {
    let id = UnitId::from(key);
    notify::forget(&format!("leader-{id}"));
    notify::forget(&format!("payload-{id}"));
    let entry = context.table.borrow_mut().remove(key);
    if let Some(base) = entry.and_then(|entry| entry.record.locked_range()) {
        context.ranges.borrow_mut().release(base);
    }
}

fn failed(step: Step, id: UnitId, reason: impl AsRef<str>) -> Refusal {
    Refusal::new(Code::Failed, step.name(), unit::name(id), reason)
}
