//! The task's network.

use bincode::{Decode, Encode};

use crate::path::Absolute;

/// The task's network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Network {
    /// A new network namespace with the loopback interface alone.
    Loopback,
    /// The host's network.
    Host,
    /// A network namespace that Nomad made, by its file.
    Join(Absolute),
}
