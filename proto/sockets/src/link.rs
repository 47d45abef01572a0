//! The link of a task with a network of its own, as the daemon has laid it out and the launcher
//! makes it.
//!
//! Names and addresses are the helper's own; of the driver's there are the ports alone.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::name::{InvalidName, ZoneName};
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
    /// MAC address of the task's end; `None`: one that follows from its IPv4 address.
    pub mac: Option<Mac>,
    /// The zone that the task is in.
    pub zone: Option<Zone>,
    /// Ports of the host that lead to the task.
    pub ports: Vec<Published>,
}

/// MAC address of an interface (Ethernet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it is the address of one interface: neither that of several (the lowest bit of the
    /// first byte, IEEE 802) nor all zeros, which the kernel refuses.
    #[must_use]
    pub fn is_of_one(self) -> bool {
        let Self([first, ..]) = self;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, rest @ ..]) = self;
        write!(f, "{first:02x}")?;
        rest.iter().try_for_each(|byte| write!(f, ":{byte:02x}"))
    }
}

impl FromStr for Mac {
    type Err = InvalidName;

    /// Reads six bytes of two hexadecimal digits, joined by colons.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let rule = "six pairs of hexadecimal digits, joined by colons";
        let invalid = InvalidName { kind: "MAC address", rule };
        let byte = |pair: &str| match pair.len() {
            // from_str_radix() takes a sign as well.
            2 if !pair.starts_with('+') => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(invalid)
    }
}

/// A zone: tasks whose links are in one interface group of the host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// Number of the interface group. Links of tasks without a zone are in group 0, as all others.
    pub group: u32,
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

    /// MAC address of the task's end: the one that the job asks for, else one that follows from the
    /// IPv4 address. It is always given, because udev would set another (MACAddressPolicy=).
    #[must_use]
    pub fn task_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| self.local_mac(0))
    }

    /// MAC address of the host's end.
    #[must_use]
    pub fn host_mac(&self) -> Mac {
        self.local_mac(1)
    }

    /// A locally administered address.
    fn local_mac(&self, end: u8) -> Mac {
        let [a, b, c, d] = self.v4.task.octets();
        Mac([2, end, a, b, c, d])
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

/// Name of the host's end of a link whose other end is a task's, and which is a port of a bridge of
/// the operator's: `nb-` and the same digits. The packet filter rules for tasks do not match it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BridgePort(LinkName);

/// What names of bridges' ports begin with.
pub const BRIDGE_PORT_PREFIX: &str = "nb-";

impl BridgePort {
    /// MAC address of an end: the task's (0) or the host's (1).
    ///
    /// A bridge without a MAC address of its own takes the lowest of its ports': the host's end has
    /// one that is above those of real devices.
    #[must_use]
    pub fn mac(self, end: u8) -> Mac {
        let Self(LinkName([_, b, c, d, e, f])) = self;
        Mac([if end == 0 { 0x02 } else { 0xfe }, b, c, d, e, f])
    }
}

impl From<UnitId> for BridgePort {
    fn from(unit: UnitId) -> Self {
        Self(LinkName::from(unit))
    }
}

impl fmt::Display for BridgePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(BRIDGE_PORT_PREFIX)?;
        self.0.write_digits(f)
    }
}

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

impl LinkName {
    fn write_digits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(LINK_PREFIX)?;
        self.write_digits(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{AllocId, Instance};

    #[test]
    fn mac_addresses_have_one_form() {
        let mac: Mac = "02:00:0A:ff:00:01".parse().unwrap();
        assert_eq!(
            (mac, mac.to_string().as_str()),
            (Mac([2, 0, 10, 255, 0, 1]), "02:00:0a:ff:00:01")
        );
        for bad in [
            "",
            "02:00:0a:ff:00",
            "02:00:0a:ff:00:01:02",
            "2:0:a:ff:0:1",
            "+2:00:0a:ff:00:01",
            "02-00-0a-ff-00-01",
            "02:00:0a:ff:00:0g",
            "02:00:0a:ff:00:é",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert!(mac.is_of_one() && Mac([0, 0, 0, 0, 0, 1]).is_of_one());
        for several in [Mac([1, 0, 0x5e, 0, 0, 1]), Mac([0xff; 6]), Mac([0; 6])] {
            assert!(!several.is_of_one(), "{several}");
        }
    }

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
        let unit = UnitId { alloc: AllocId(alloc), instance: Instance(0x00c0_ffee) };
        assert_eq!(BridgePort::from(unit).to_string(), first.replace("nv-", "nb-"));
        assert_ne!(first, name(alloc, 0x00c0_ffef));
        for at in 0..16 {
            let mut other = alloc;
            other[at] ^= 0x80;
            assert_ne!(first, name(other, 0x00c0_ffee), "byte {at}");
        }
    }
}
