//! Looking at units without any rights: end of a unit and its cgroup over the system bus,
//! statistics and reports about memory from the cgroup file system, process limits, the node's
//! fingerprint.

pub(crate) mod cgroup;
pub(crate) mod fingerprint;
pub(crate) mod memory_events;
pub(crate) mod ulimit;
pub(crate) mod unit_signals;
pub(crate) mod usage;
