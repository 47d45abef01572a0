//! Registration with systemd-machined, so that machinectl shows and reaches tasks.
//!
//! Best effort: nothing of ours depends on it, a failure is a line in the journal, and nobody waits
//! longer than [`PATIENCE`] for it. Only what is our unit's is ever unregistered.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use proto::name::TaskKey;
use proto::step::Step;

use crate::context::Context;
use crate::systemd::bus::{MACHINED, is_named};
use crate::systemd::units::names;
use crate::tasks::table::Entry;
use kernel::hook;

/// Longest wait for machined.
const PATIENCE: Duration = Duration::from_secs(2);

/// Registers a task in the background and unregisters it when its leader has ended.
pub(crate) fn register(context: &Rc<Context>, key: &TaskKey) {
    let (context, key) = (context.clone(), key.clone());
    tokio::task::spawn_local(async move {
        hook::during(Step::Register, enter(&context, &key)).await;
        watch(&context, &key).await;
    });
}

/// Registers a task that is still there.
async fn enter(context: &Rc<Context>, key: &TaskKey) {
    let Some(gate) = context.table.borrow().get(key).map(|entry| entry.gate.clone()) else {
        return;
    };
    // A removal at the same moment comes before this or after it.
    let _held = gate.lock().await;
    enter_held(context, key).await;
}

/// Registers a task that is still there; the caller holds its gate.
pub(crate) async fn enter_held(context: &Rc<Context>, key: &TaskKey) {
    let Some(entry) = context.table.borrow().get(key).cloned() else { return };
    let registered = entry.record.is_readable() && is_ours(context, &entry).await;
    if let Some(entry) = context.table.borrow_mut().get_mut(key) {
        entry.registered = registered;
    }
}

/// Registers the leader; whether the machine of that name is this task's afterwards.
async fn is_ours(context: &Rc<Context>, entry: &Entry) -> bool {
    let Some(leader) = &entry.leader else { return false };
    let (key, name) = (&entry.record.key, entry.record.machine.as_str());
    let id: &[u8] = &key.alloc.0;
    let body = (name, id, "nomad-nspawn", "container", leader.pid(), "");
    let entered = !leader.has_ended()
        && match with_deadline(context.bus.call(MACHINED, "RegisterMachine", &body)).await {
            // It lives still: the number was its own all the time.
            Ok(_) if !leader.has_ended() => return true,
            Ok(_) => true,
            // By an earlier process of the helper, or by somebody else.
            Err(error) if is_named(&error, "MachineExists") => false,
            Err(error) => {
                tracing::info!(task = %key, %error, "not registered with systemd-machined");
                return false;
            }
        };
    let holder = with_deadline(context.bus.unit_of_machine(name)).await;
    let ours = holder.as_ref().is_ok_and(|holder| *holder == names::task(entry.record.unit()));
    if entered && !ours {
        // The leader had ended, and its number was another's already.
        leave(context, key, name).await;
    } else if let Ok(holder) = holder
        && !ours
    {
        let error = format!("unit {holder} is registered as {name}");
        tracing::info!(task = %key, error, "not registered with systemd-machined");
    }
    ours
}

/// Unregisters a task when its leader has ended.
async fn watch(context: &Rc<Context>, key: &TaskKey) {
    let leader = context.table.borrow().get(key).and_then(|entry| entry.leader.clone());
    let Some(leader) = leader else { return };
    if leader.await_end().await.is_ok() {
        unregister(context, key).await;
    }
}

/// Takes the registration away; machined keeps it otherwise until the unit is stopped.
pub(crate) async fn unregister(context: &Rc<Context>, key: &TaskKey) {
    let registered = context.table.borrow_mut().get_mut(key).and_then(|entry| {
        std::mem::take(&mut entry.registered).then(|| entry.record.machine.clone())
    });
    if let Some(name) = registered {
        leave(context, key, name.as_str()).await;
    }
}

async fn leave(context: &Context, key: &TaskKey, name: &str) {
    let body = (name,);
    let call = context.bus.call(MACHINED, "UnregisterMachine", &body);
    if let Err(error) = with_deadline(call).await {
        tracing::debug!(task = %key, %error, "not unregistered");
    }
}

/// Addresses in the network namespace of a machine, as machined reports them.
pub(crate) async fn addresses(context: &Context, machine: &str) -> Result<Vec<IpAddr>, String> {
    let body = (machine,);
    let call = context.bus.call(MACHINED, "GetMachineAddresses", &body);
    let told = |error: zbus::Error| format!("systemd-machined: {error}");
    let body = with_deadline(call).await.map_err(told)?;
    // Family and address of each.
    let all: Vec<(i32, Vec<u8>)> = body.deserialize().map_err(told)?;
    let read = |(_, bytes): &(i32, Vec<u8>)| {
        let v4 = || <[u8; 4]>::try_from(&bytes[..]).ok().map(IpAddr::from);
        v4().or_else(|| <[u8; 16]>::try_from(&bytes[..]).ok().map(IpAddr::from))
    };
    Ok(all.iter().filter_map(read).collect())
}

async fn with_deadline<T>(answer: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or_else(|_| Err(zbus::Error::Failure("it does not answer".to_owned())))
}
