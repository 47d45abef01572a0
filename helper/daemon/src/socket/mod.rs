//! The driver's socket: who may come in, one connection, its lines in the journal.

pub(crate) mod audit;
pub(crate) mod journal;
pub(crate) mod listener;
pub(crate) mod pace;
pub(crate) mod session;
