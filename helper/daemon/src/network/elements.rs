//! What a task adds to the table: its ports, and its own addresses.
//!
//! Trusts the link, which the daemon laid out. Two tasks never share an element; who is first
//! keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::netlink::Message;
use policy::Protocol;
use proto::link::{Link, Published};

use super::table::{Element, PUBLISH4, PUBLISH6, SELF4, SELF6, protocol_key};

/// Elements in one message, whose attribute is at most 64 KiB long: one takes up to 72 bytes.
const IN_ONE_MESSAGE: usize = 512;

/// The elements of one task or of several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Addresses and ports of the host, and where each leads, TCP and UDP alike.
    published: BTreeMap<SocketAddr, SocketAddr>,
    /// Addresses of tasks.
    own: BTreeSet<IpAddr>,
}

impl From<&Link> for Elements {
    /// A label at an address of the host is published there, and at the loopback address of each
    /// family that it can have: an IPv4 label at `[::1]` too. A label at a loopback address is
    /// published there alone. An IPv6 label leads nowhere on a host without IPv6.
    fn from(link: &Link) -> Self {
        let (v4, v6) = (IpAddr::from(link.v4.task), link.v6.map(|ends| IpAddr::from(ends.task)));
        let mut published = BTreeMap::new();
        for Published { port, on_loopback } in &link.ports {
            let mut publish = |address: IpAddr, task: Option<IpAddr>| {
                if let Some(task) = task {
                    let from = SocketAddr::new(address, port.host.get());
                    published.entry(from).or_insert(SocketAddr::new(task, port.task.get()));
                }
            };
            publish(port.address, if port.address.is_ipv4() { Some(v4) } else { v6 });
            if *on_loopback && !port.address.is_loopback() {
                publish(Ipv6Addr::LOCALHOST.into(), v6);
                if port.address.is_ipv4() {
                    publish(Ipv4Addr::LOCALHOST.into(), Some(v4));
                }
            }
        }
        Self { published, own: link.addresses().collect() }
    }
}

impl Elements {
    /// A port of `other` that leads elsewhere here already: the host's, and where it leads.
    pub(crate) fn conflict(&self, other: &Self) -> Option<(SocketAddr, SocketAddr)> {
        other.published.iter().find_map(|(from, to)| {
            let held = self.published.get(from)?;
            (held != to).then_some((*from, *held))
        })
    }

    /// Addresses and ports of the host that lead to tasks.
    pub(crate) fn into_places(self) -> impl Iterator<Item = SocketAddr> {
        self.published.into_keys()
    }

    /// Takes in what is not here yet.
    pub(crate) fn insert(&mut self, other: Self) {
        for (from, to) in other.published {
            self.published.entry(from).or_insert(to);
        }
        self.own.extend(other.own);
    }

    /// Those of `other` that are here: what another task holds is not.
    pub(crate) fn shared(&self, mut other: Self) -> Self {
        other.published.retain(|from, to| self.published.get(from) == Some(to));
        other.own.retain(|address| self.own.contains(address));
        other
    }

    /// Takes out what `other` has.
    pub(crate) fn remove(&mut self, other: &Self) {
        for from in other.published.keys() {
            self.published.remove(from);
        }
        for address in &other.own {
            self.own.remove(address);
        }
    }

    /// As messages of type NEW_ELEMENT or DELETE_ELEMENT.
    pub(crate) fn messages(&self, kind: u16) -> Vec<Message> {
        let mut of = [PUBLISH4, PUBLISH6, SELF4, SELF6].map(|set| (set, Vec::new()));
        let [publish4, publish6, self4, self6] = &mut of;
        for (from, to) in &self.published {
            let publish = if from.is_ipv4() { &mut publish4.1 } else { &mut publish6.1 };
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let key = [&protocol_key(protocol)[..], &bytes(*from)].concat();
                publish.push(Element { key, data: bytes(*to), flags: 0 });
            }
        }
        for address in &self.own {
            let own = if address.is_ipv4() { &mut self4.1 } else { &mut self6.1 };
            own.push(Element { key: octets(*address).repeat(2), ..Element::default() });
        }
        of.iter()
            .flat_map(|(set, all)| all.chunks(IN_ONE_MESSAGE).map(|part| set.elements(kind, part)))
            .collect()
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Address and port as parts of a key or of data, each padded to four bytes.
fn bytes(address: SocketAddr) -> Vec<u8> {
    [&octets(address.ip())[..], &address.port().to_be_bytes(), &[0; 2]].concat()
}
