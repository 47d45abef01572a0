//! The task's network.

use std::net::IpAddr;
use std::num::NonZeroU16;

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
    /// A network of the task's own with addresses, and with these ports of the host.
    Private(Vec<Port>),
}

impl Network {
    /// Whether the task has it for itself: neither the host nor another task is in it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Loopback | Self::Private(_))
    }
}

/// A port of the host, TCP and UDP, that leads to the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Port {
    /// The host's address, as Nomad has given it.
    pub address: IpAddr,
    /// The host's port.
    pub host: NonZeroU16,
    /// The task's port.
    pub task: NonZeroU16,
}
