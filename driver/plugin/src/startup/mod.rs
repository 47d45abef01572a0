//! The process itself, before and below everything that Nomad sees: handshake, privileges, the
//! sandbox, the socket's directory, log lines.

pub(crate) mod handshake;
pub(crate) mod privilege;
pub(crate) mod sandbox;
pub(crate) mod socket;
pub(crate) mod sys;
