//! Registration with systemd-machined, so that machinectl shows and reaches tasks.
//!
//! Best effort: nothing of ours depends on it, and a failure is a line in the journal.

use std::rc::Rc;

use proto::name::TaskKey;
use proto::plan::Step;

use super::bus::{MACHINED, is_named};
use super::context::Context;
use crate::hook;

/// Registers a task in the background and unregisters it when its leader has ended.
pub(super) fn register(context: &Rc<Context>, key: &TaskKey) {
    let (context, key) = (context.clone(), key.clone());
    tokio::task::spawn_local(async move {
        let Some(entry) = context.table.borrow().get(&key).cloned() else { return };
        let Some(leader) = entry.leader else { return };
        let id: &[u8] = &key.alloc.0;
        let body =
            (entry.record.machine.as_str(), id, "nomad-nspawn", "container", leader.pid(), "");
        hook::during(Step::Register, async {
            if !leader.has_ended()
                && let Err(error) = context.bus.call(MACHINED, "RegisterMachine", &body).await
                // By an earlier process of ours, unless that died first.
                && !is_named(&error, "MachineExists")
            {
                tracing::info!(task = %key, %error, "not registered with systemd-machined");
            }
        })
        .await;
        watch(&context, &key).await;
    });
}

/// Unregisters a task when its leader has ended.
async fn watch(context: &Rc<Context>, key: &TaskKey) {
    let leader = context.table.borrow().get(key).and_then(|entry| entry.leader.clone());
    let Some(leader) = leader else { return };
    if leader.ended().await.is_ok() {
        unregister(context, key).await;
    }
}

/// Takes the registration away; machined keeps it otherwise until the unit is stopped.
pub(super) async fn unregister(context: &Rc<Context>, key: &TaskKey) {
    let Some(name) = context.table.borrow().get(key).map(|entry| entry.record.machine.clone())
    else {
        return;
    };
    if let Err(error) = context.bus.call(MACHINED, "UnregisterMachine", &(name.as_str(),)).await {
        tracing::debug!(task = %key, %error, "not unregistered");
    }
}
