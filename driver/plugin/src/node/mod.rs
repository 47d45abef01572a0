//! Looking at units without any rights: end of a unit and its cgroup over the system bus,
//! statistics from the cgroup file system, process limits, the node's fingerprint.

pub(crate) mod fingerprint;
pub(crate) mod ulimit;
pub(crate) mod unit_signals;
pub(crate) mod usage;
