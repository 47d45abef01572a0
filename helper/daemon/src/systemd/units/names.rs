//! Names of units, and the ids in them.

use proto::exec::SessionId;
use proto::unit_id::UnitId;

/// Of every unit.
const PREFIX: &str = "nomad-nspawn-";
const RELAY_PREFIX: &str = "nomad-nspawn-log-";
const CLEANUP_PREFIX: &str = "nomad-nspawn-clean-";
const WORKER_PREFIX: &str = "nomad-nspawn-enter-";
const SUFFIX: &str = ".service";

/// The task's unit.
pub(crate) fn task(unit: UnitId) -> String {
    format!("{PREFIX}{unit}{SUFFIX}")
}

/// The unit that relays the task's output.
pub(crate) fn relay(unit: UnitId) -> String {
    format!("{RELAY_PREFIX}{unit}{SUFFIX}")
}

/// The unit that cleans up after the task.
pub(crate) fn cleanup(unit: UnitId) -> String {
    format!("{CLEANUP_PREFIX}{unit}{SUFFIX}")
}

/// The unit of a worker.
pub(crate) fn worker(id: SessionId) -> String {
    format!("{WORKER_PREFIX}{id}{SUFFIX}")
}

/// The worker whose unit has this name.
pub(crate) fn parse_worker(name: &str) -> Option<SessionId> {
    SessionId::parse(name.strip_prefix(WORKER_PREFIX)?.strip_suffix(SUFFIX)?)
}

/// The unit that makes system call filters for the cache; one at a time.
pub(crate) const FILTERS: &str = "nomad-nspawn-filters.service";

/// The pattern of all of them.
pub(crate) fn pattern() -> String {
    format!("{PREFIX}*{SUFFIX}")
}

/// The task whose unit has this name.
pub(crate) fn parse_task(name: &str) -> Option<UnitId> {
    parse(PREFIX, name)
}

/// The task whose output is relayed by the unit of this name.
pub(crate) fn parse_relay(name: &str) -> Option<UnitId> {
    parse(RELAY_PREFIX, name)
}

fn parse(prefix: &str, name: &str) -> Option<UnitId> {
    UnitId::parse(name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?)
}
