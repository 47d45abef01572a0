//! Keeps what the kernel has counted of a task's memory ([`kernel::ended`]) when its unit ends.
//!
//! Runs in the unit itself (ExecStopPost=): at a failed end its cgroup is still there then. Trusts the
//! kernel's files alone. Never fails the clean-up: a host without the memory controller has no counts.

use std::io;

use proto::unit_id::UnitId;

use super::open::if_there;
use super::stage::OwnPath;
use kernel::ended::Ended;

/// Writes the file; nothing where this process is not in the unit, or nothing is counted.
pub(super) fn keep(unit: UnitId) -> io::Result<()> {
    let Some(cgroup) = OwnPath::cgroup_around(unit)? else { return Ok(()) };
    let read = |name: &str| -> io::Result<Option<String>> {
        let text = if_there(cgroup.join(name).read())?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    };
    let Some(events) = read("memory.events")? else { return Ok(()) };
    let (peak, limit) = (read("memory.peak")?, read("memory.max")?);
    let ended = Ended::of_cgroup(&events, &peak.unwrap_or_default(), &limit.unwrap_or_default());
    let file = OwnPath::ended(unit);
    OwnPath::all_ended().make_private_dirs()?;
    file.write(&ended.text())
}
