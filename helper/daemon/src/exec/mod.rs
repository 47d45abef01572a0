//! Commands that are executed in tasks: the daemon's part of a session, its workers, and what a
//! worker that was killed has left.

pub(crate) mod leftovers;
pub(crate) mod open;
mod pool;
pub(crate) mod workers;
