//! The link of a task with a network of its own, as the daemon has laid it out and the launcher
//! makes it.
//!
//! Names and addresses are the helper's own; of the driver's there are the ports alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bincode::{Decode, Encode};

use crate::task_spec::network::Port;
use crate::unit_id::UnitId;

/// A point-to-point link between the host and a task, with its addresses.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Link {
    /// Name of the host's end. The task's end is always `host0`.
    pub name: LinkName,
    /// IPv4 addresses of both ends.
    pub v4: Ends<Ipv4Addr>,
    /// IPv6 addresses of both ends; `None` on a host without IPv6.
    pub v6: Option<Ends<Ipv6Addr>>,
    /// Ports of the host that lead to the task.
    pub ports: Vec<Published>,
}

/// A port of the host that leads to the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Published {
    /// The port.
    pub port: Port,
    /// Whether it leads to the task on 127.0.0.1 and `[::1]` as well. Of two tasks with one port, on
    /// different addresses of the host, the first one has loopback.
    pub on_loopback: bool,
}

impl Link {
    /// The task's addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.v6.as_ref().map(|ends| ends.task.into());
        std::iter::once(self.v4.task.into()).chain(v6)
    }
}

/// Addresses of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Ends<A> {
    /// The task's.
    pub task: A,
    /// The host's, the same one on the links of all tasks: the task's default gateway.
    pub gateway: A,
    /// First address of the pool that both are from.
    pub pool: A,
    /// Length of the pool's prefix in bits.
    pub prefix: u8,
}

/// Name of the host's end of a link: `nv-` and twelve hexadecimal digits, the 15 bytes that the
/// kernel allows (IFNAMSIZ). It matches none of the files that systemd-networkd ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct LinkName([u8; 6]);

/// What names of links begin with; the packet filter rules match it.
pub const LINK_PREFIX: &str = "nv-";

impl From<UnitId> for LinkName {
    /// Allocation ids are random, so their bytes laid on top of each other are as good as a hash.
    /// The run is in it: the link of an ended one may still be going away. Two runs of an allocation
    /// never share a name.
    fn from(unit: UnitId) -> Self {
        let mut name = [0; 6];
        let run = unit.instance.0.to_be_bytes();
        for bytes in unit.alloc.0.chunks(name.len()).chain([&run[..]]) {
            for (sum, byte) in name.iter_mut().zip(bytes) {
                *sum ^= byte;
            }
        }
        Self(name)
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LINK_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{AllocId, Instance};

    #[test]
    fn names_of_links_fit_and_differ_between_runs_and_allocations() {
        let name = |alloc: [u8; 16], run| {
            LinkName::from(UnitId { alloc: AllocId(alloc), instance: Instance(run) }).to_string()
        };
        let mut alloc = [0xab; 16];
        alloc[15] = 1;
        let first = name(alloc, 0x00c0_ffee);
        assert_eq!(first.len(), 15);
        assert!(first.starts_with("nv-"), "{first}");
        assert_ne!(first, name(alloc, 0x00c0_ffef));
        for at in 0..16 {
            let mut other = alloc;
            other[at] ^= 0x80;
            assert_ne!(first, name(other, 0x00c0_ffee), "byte {at}");
        }
    }
}
