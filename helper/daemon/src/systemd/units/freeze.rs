//! Freezing a task: the kernel stops every process of its unit, and none of them can notice or
//! prevent it (cgroup.freeze of cgroup-v2.rst).
//!
//! PID 1 does it, because the daemon may write to no cgroup. It keeps the state over a
//! daemon-reload, and thaws a unit that it stops. A frozen process dies of SIGKILL; every other
//! signal waits.

use proto::unit_id::UnitId;

use crate::systemd::bus::{Bus, MANAGER, is_named};
use crate::systemd::units::names;

/// PID 1's error where the unit's cgroup cannot be frozen (cgroup v1).
const UNABLE: &str = "NotSupported";

/// Freezes the unit; `false`: the host cannot.
pub(crate) async fn freeze(bus: &Bus, unit: UnitId) -> Result<bool, String> {
    match bus.call(MANAGER, "FreezeUnit", &(names::task(unit),)).await {
        Err(error) if is_named(&error, UNABLE) => Ok(false),
        other => other.map(|_| true).map_err(|e| e.to_string()),
    }
}

/// Thaws it; `false`: it was not frozen.
pub(crate) async fn thaw(bus: &Bus, unit: UnitId) -> Result<bool, String> {
    let name = names::task(unit);
    let state = bus.property::<String>(&name, "Unit", "FreezerState").await;
    if state.map_err(|e| e.to_string())? == "running" {
        return Ok(false);
    }
    let thawed = bus.call(MANAGER, "ThawUnit", &(name,)).await;
    thawed.map(|_| true).map_err(|e| e.to_string())
}
