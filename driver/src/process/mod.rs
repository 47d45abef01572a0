//! The process itself, before and below everything that Nomad sees: handshake, privileges, the
//! socket's folder, log lines.

pub(crate) mod handshake;
pub(crate) mod log;
pub(crate) mod privilege;
pub(crate) mod socket;
pub(crate) mod sys;
