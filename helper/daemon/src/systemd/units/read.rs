//! The state of units in PID 1, and the list of ours.

use std::time::Duration;

use proto::exec::SessionId;
use proto::path::Absolute;
use proto::unit_id::UnitId;
use zbus::OwnedObjectPath;

use crate::systemd::bus::{Bus, MANAGER};
use crate::systemd::units::names;
use crate::tasks::record::Record;

/// Between two looks at a unit.
const PAUSE: Duration = Duration::from_millis(20);

/// A unit as PID 1 sees it; the default is one that is not loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) loaded: bool,
    pub(crate) active: String,
    pub(crate) sub: String,
    /// ExecMainCode: 1 exited, 2 killed, 3 dumped; 0 while it runs.
    pub(crate) code: i32,
    pub(crate) status: i32,
    pub(crate) result: String,
    /// Unix time of the main process's end in microseconds.
    pub(crate) ended_us: u64,
}

/// Reads how a unit stands.
pub(crate) async fn look(bus: &Bus, unit: UnitId) -> zbus::Result<Seen> {
    let name = names::task(unit);
    let unit = async |property| bus.property::<String>(&name, "Unit", property).await;
    let number = async |property| bus.property::<i32>(&name, "Service", property).await;
    if unit("LoadState").await? == "not-found" {
        return Ok(Seen::default());
    }
    Ok(Seen {
        loaded: true,
        active: unit("ActiveState").await?,
        sub: unit("SubState").await?,
        code: number("ExecMainCode").await?,
        status: number("ExecMainStatus").await?,
        result: bus.property(&name, "Service", "Result").await?,
        ended_us: bus.property(&name, "Service", "ExecMainExitTimestamp").await?,
    })
}

/// Waits until PID 1 has noticed the end of a main process, which it does as late as we do. `None`:
/// it does not.
pub(crate) async fn await_main_end(bus: &Bus, unit: UnitId, limit: Duration) -> Option<Seen> {
    let ended = async {
        loop {
            match look(bus, unit).await {
                Ok(seen) if seen.loaded && seen.code == 0 => tokio::time::sleep(PAUSE).await,
                seen => return seen.ok(),
            }
        }
    };
    tokio::time::timeout(limit, ended).await.ok().flatten()
}

/// A task's unit, found at start-up.
pub(crate) struct Found {
    pub(crate) record: Record,
    pub(crate) main_pid: u32,
    pub(crate) started_ms: u64,
}

type Listed =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// All our units, read back from PID 1.
#[derive(Default)]
pub(crate) struct All {
    /// Tasks.
    pub(crate) found: Vec<Found>,
    /// Units that relay the output of a task, by that task.
    pub(crate) relays: Vec<UnitId>,
    /// Workers, with the process ids that they had then.
    pub(crate) workers: Vec<(SessionId, u32)>,
}

/// Finds all our units.
pub(crate) async fn find_all(bus: &Bus) -> zbus::Result<All> {
    let none: Vec<&str> = Vec::new();
    let patterns = (none, vec![names::pattern()]);
    let body = bus.call(MANAGER, "ListUnitsByPatterns", &patterns).await?;
    let listed: Vec<Listed> = body.deserialize()?;
    let mut all = All::default();
    for (name, _, load, ..) in listed {
        all.relays.extend(names::parse_relay(&name));
        if let Some(id) = names::parse_worker(&name) {
            // Not 0 instead: the session would be taken for what a killed worker has left.
            let pid = bus.property(&name, "Service", "MainPID").await?;
            all.workers.push((id, pid));
        }
        let Some(id) = names::parse_task(&name) else { continue };
        // PID 1 lists a name that another unit mentions (a relay its task) as a unit, though
        // there is none.
        if load != "not-found" {
            all.found.push(read_back(bus, id).await?);
        }
    }
    Ok(all)
}

/// The cgroup of a task's unit: a path below the root of the cgroup tree.
pub(crate) async fn cgroup(bus: &Bus, unit: UnitId) -> Result<Absolute, String> {
    let name = names::task(unit);
    let path: String =
        bus.property(&name, "Service", "ControlGroup").await.map_err(|e| e.to_string())?;
    Absolute::parse(&path).map_err(|_| format!("{name} has no cgroup"))
}

async fn read_back(bus: &Bus, id: UnitId) -> zbus::Result<Found> {
    let name = &names::task(id);
    let fields: Vec<Vec<u8>> = bus.property(name, "Service", "LogExtraFields").await?;
    let main_pid = bus.property(name, "Service", "MainPID").await?;
    let started_us: u64 = bus.property(name, "Service", "ExecMainStartTimestamp").await?;
    Ok(Found { record: Record::parse(id, &fields), main_pid, started_ms: started_us / 1000 })
}
