//! A new process: what the last one knew.

pub(crate) mod recover;
pub(crate) mod resume;
