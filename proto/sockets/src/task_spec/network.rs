//! The task's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use bincode::{Decode, Encode};

use crate::link::Mac;
use crate::name::{LinkZoneName, ParentName, ZoneName};
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
    /// A network of the task's own with addresses.
    Private(Private),
    /// An interface of the task's own in a network that the operator of the host has made.
    Attached(Attached),
    /// A network namespace that systemd-nspawn makes. Who gives it addresses is the container's and
    /// the host's business.
    Container(Container),
}

impl Network {
    /// A network of the task's own with these ports of the host.
    #[must_use]
    pub fn with_ports(ports: Vec<Port>) -> Self {
        Self::Private(Private { ports, ..Private::default() })
    }

    /// Ports of the host that lead to the task.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        match self {
            Self::Private(private) => &private.ports,
            Self::Attached(attached) => &attached.ports,
            Self::Container(container) => &container.ports,
            Self::Loopback | Self::Host | Self::Join(_) => &[],
        }
    }

    /// The same, to be changed.
    pub fn ports_mut(&mut self) -> Option<&mut Vec<Port>> {
        match self {
            Self::Private(private) => Some(&mut private.ports),
            Self::Attached(attached) => Some(&mut attached.ports),
            Self::Container(container) => Some(&mut container.ports),
            Self::Loopback | Self::Host | Self::Join(_) => None,
        }
    }

    /// Whether the launcher makes a network namespace for the task alone: neither the host nor
    /// another task is in it, and it is there before systemd-nspawn is.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Loopback | Self::Private(_) | Self::Attached(_))
    }
}

/// What a job asks of a network of its task's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Private {
    /// Ports of the host that lead to the task.
    pub ports: Vec<Port>,
    /// Tasks of one zone reach each other at every port, and by name.
    pub zone: Option<ZoneName>,
    /// IPv4 address; `None`: one of the pool.
    pub v4: Option<Ipv4Addr>,
    /// IPv6 address; `None`: one of the pool.
    pub v6: Option<Ipv6Addr>,
    /// MAC address; `None`: one that follows from the IPv4 address.
    pub mac: Option<Mac>,
}

/// What a job asks of an interface in a network of the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Attached {
    /// What the interface is attached to.
    pub parent: Parent,
    /// IPv4 address; `None`: none, or what a program in the task finds.
    pub v4: Option<Address<Ipv4Addr>>,
    /// IPv6 address; `None`: what the kernel takes of router advertisements.
    pub v6: Option<Address<Ipv6Addr>>,
    /// MAC address; `None`: one that follows from the unit.
    pub mac: Option<Mac>,
    /// Ports of the host that lead to the task, each to the address of its family.
    pub ports: Vec<Port>,
}

impl Attached {
    /// The addresses that the job names: IPv4, then IPv6.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.v6.map(|it| it.address.into());
        self.v4.map(|it| it.address.into()).into_iter().chain(v6)
    }
}

/// What the interface of a task is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Parent {
    /// It is a port of this bridge.
    Bridge(ParentName),
    /// It has a MAC address of its own on this interface (macvlan, mode bridge).
    Macvlan(ParentName),
}

/// An address in a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Address<A> {
    /// The address.
    pub address: A,
    /// Bits of the network's prefix, 1 to 32 or 128; `None`: those of the host's own address in it.
    pub bits: Option<u8>,
}

/// A network namespace that systemd-nspawn makes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Container {
    /// Its link to the host.
    pub link: ContainerLink,
    /// Ports of the host that lead to the task once it has an address.
    pub ports: Vec<Port>,
    /// Time that the start waits for an address, in seconds; the task runs on without one.
    pub wait_s: u32,
}

/// The link of a namespace that systemd-nspawn makes (systemd-nspawn(1)).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ContainerLink {
    /// `--network-veth`.
    Veth,
    /// `--network-zone=`.
    Zone(LinkZoneName),
    /// `--network-bridge=`.
    Bridge(ParentName),
    /// `--network-macvlan=`.
    Macvlan(ParentName),
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
