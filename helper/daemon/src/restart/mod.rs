//! The start of a new process: it takes over from the last one.

pub(crate) mod recover;
pub(crate) mod resume;
