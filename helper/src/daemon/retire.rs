//! Containers that the older Go driver has left running: found by the machine name that it gave
//! them, ended, never taken over.
//!
//! That driver ran systemd-nspawn below an executor process of its own and registered it with
//! machined as `<task>-<allocation id>`. Only such a machine is touched: the name is made here from
//! an allocation whose folder exists, machined must call it a container of systemd-nspawn in a
//! scope of its own, and it must be no task of ours.

use std::rc::Rc;
use std::time::Duration;

use proto::error::Refusal;
use proto::name::{MachineName, TaskKey};

use super::bus::MACHINED;
use super::context::Context;
use super::process::Process;

/// Time for an orderly end; then it is killed.
const PATIENCE: Duration = Duration::from_secs(8);
/// SIGRTMIN+3: systemd as PID 1 shuts down (systemd(1)).
const HALT: i32 = 37;
const TERMINATE: i32 = 15;
const KILL: i32 = 9;

/// Ends the container of that task, with its executor; `false` when there is none.
pub(super) async fn run(context: &Rc<Context>, key: &TaskKey) -> Result<bool, Refusal> {
    let alloc = key.alloc.to_string();
    let folders: Vec<_> =
        context.policy().alloc_dirs.iter().map(|dir| dir.to_path().join(&alloc)).collect();
    // A file system that hangs must not hold the loop up.
    let known = tokio::task::spawn_blocking(move || folders.iter().any(|folder| folder.is_dir()));
    let known = known.await.unwrap_or(false);
    let Ok(name) = MachineName::new(format!("{}-{alloc}", key.task)) else { return Ok(false) };
    let ours = context.table.borrow().records().any(|record| record.machine == name);
    if !known || ours {
        return Ok(false);
    }
    let failed = |reason: String| Refusal::failed("retire", name.as_str(), reason);
    let Some(leader) = find(context, &name).await.map_err(failed)? else { return Ok(false) };
    let executor = leader.parent().and_then(|nspawn| nspawn.parent()).filter(is_executor);
    let gentle = if leader.comm() == "systemd" { HALT } else { TERMINATE };
    for (whom, signal) in [("leader", gentle), ("all", KILL)] {
        let sent = context.bus.call(MACHINED, "KillMachine", &(name.as_str(), whom, signal)).await;
        let ended = tokio::time::timeout(PATIENCE, leader.ended()).await.is_ok();
        if ended {
            break;
        }
        sent.map_err(|e| failed(e.to_string()))?;
    }
    if !leader.has_ended() {
        return Err(failed("does not end, though it was killed".to_owned()));
    }
    // With its container gone it waits for orders of a plugin that is no more.
    if let Some(executor) = executor
        && let Err(error) = executor.signal(9)
    {
        tracing::warn!(machine = name.as_str(), %error, "its executor was not killed");
    }
    tracing::info!(machine = name.as_str(), "container of the older driver ended");
    Ok(true)
}

/// The leader of such a machine; `None` when machined has none, or it is not what it must be.
async fn find(context: &Context, name: &MachineName) -> Result<Option<Process>, String> {
    let listed =
        context.bus.call(MACHINED, "ListMachines", &()).await.map_err(|e| e.to_string())?;
    type Machine = (String, String, String, zbus::OwnedObjectPath);
    let machines: Vec<Machine> = listed.deserialize().map_err(|e| e.to_string())?;
    let wanted = |(n, class, service, _): &&Machine| {
        n == name.as_str() && class == "container" && service == "systemd-nspawn"
    };
    let Some((.., path)) = machines.iter().find(wanted) else { return Ok(None) };
    let (unit, leader) = context.bus.machine(path.as_str()).await.map_err(|e| e.to_string())?;
    if !(unit.starts_with("machine-") && unit.ends_with(".scope")) {
        return Ok(None);
    }
    let leader = Process::open(leader).map_err(|e| e.to_string())?;
    // The pid is still the machine's when the process is in its scope now that it is held.
    Ok(leader.is_in_unit(&unit).then_some(leader))
}

/// The older driver's executor: its own binary with the word `executor`.
fn is_executor(process: &Process) -> bool {
    process.words().get(1).is_some_and(|word| word == "executor")
}
