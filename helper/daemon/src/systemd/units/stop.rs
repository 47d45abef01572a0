//! Killing and stopping units, and waiting for their end.

use std::time::Duration;

use proto::unit_id::UnitId;
use tokio::sync::oneshot::Receiver;

use crate::systemd::bus::{Bus, MANAGER, is_named};
use crate::systemd::units::names;

/// PID 1's errors for what is not there.
const NO_UNIT: &str = "NoSuchUnit";
const NO_PROCESS: &str = "NoSuchProcess";

/// Longest wait for a unit whose main process has been killed.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// Which processes of a unit get SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// All of them, at once.
    All,
    /// The main process; PID 1 then ends the others and runs the unit's clean-up.
    Main,
}

/// Sends SIGKILL to processes of a unit. That there is none of them is fine.
pub(crate) async fn kill(bus: &Bus, unit: UnitId, who: Who) -> Result<(), String> {
    let who = if who == Who::All { "all" } else { "main" };
    match bus.call(MANAGER, "KillUnit", &(names::task(unit), who, libc::SIGKILL)).await {
        Err(e) if !is_named(&e, NO_UNIT) && !is_named(&e, NO_PROCESS) => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Stops a unit, waits for it, and takes its record away.
pub(crate) async fn stop(bus: &Bus, name: &str) -> Result<(), String> {
    let done = bus.job_of(name).await;
    match bus.call(MANAGER, "StopUnit", &(name, "replace")).await {
        Ok(_) => tokio::time::timeout(TIMEOUT, await_end(bus, name, Some(done)))
            .await
            .map_err(|_| "the unit does not stop".to_owned())?,
        Err(e) if is_named(&e, NO_UNIT) => return Ok(()),
        Err(e) => return Err(e.to_string()),
    }
    match bus.call(MANAGER, "ResetFailedUnit", &(&name,)).await {
        Err(e) if !is_named(&e, NO_UNIT) => Err(e.to_string()),
        _ => Ok(()),
    }
}

/// Waits for a unit that stops or ends by itself: for the job, and for the state, because a job may have
/// been another and the bus may have gone away.
pub(crate) async fn await_end(bus: &Bus, name: &str, job: Option<Receiver<String>>) {
    if let Some(job) = job {
        drop(job.await);
    }
    loop {
        let state = bus.property::<String>(name, "Unit", "ActiveState").await;
        if state.is_ok_and(|state| state == "inactive" || state == "failed") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
