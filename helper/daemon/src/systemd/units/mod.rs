//! The units that PID 1 is asked for: one a task, one that relays its output, one that cleans up
//! after it, and one for each command that is executed in a task.
//!
//! Properties are constants, numbers and names made here. The exceptions are the record
//! ([`crate::tasks::record`]) and the job's labels, both in an alphabet that needs no escaping, and
//! device paths that the policy has allowed.

pub(crate) mod cleanup;
pub(crate) mod filters;
pub(crate) mod freeze;
pub(crate) mod names;
pub(crate) mod read;
pub(crate) mod relay;
pub(crate) mod resources;
pub(crate) mod stop;
pub(crate) mod task;
pub(crate) mod transient;
pub(crate) mod worker;
