//! What the daemon keeps of tasks; all of it can be derived again from PID 1.

pub(crate) mod held_output;
pub(crate) mod record;
pub(crate) mod status;
pub(crate) mod table;
pub(crate) mod uid_range;
