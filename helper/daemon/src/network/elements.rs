//! What a task adds to the table: its ports, its own addresses, and the zone that it is in.
//!
//! Trusts the link, which the daemon laid out. Two tasks never share a port or an address; who is
//! first keeps it. Those of a zone share its element, which comes with the first and goes with the
//! last.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kernel::netlink::Message;
use policy::Protocol;
use proto::link::{Link, LinkName, Published};

use super::attached::{Attached, Kind};
use super::table::{
    ATTACHED4, ATTACHED6, DELETE_ELEMENT, Element, NEW_ELEMENT, PUBLISH4, PUBLISH6, SELF4, SELF6,
    ZONES, protocol_key,
};

/// The elements of one task or of several.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Elements {
    /// Addresses and ports of the host, and where each leads, TCP and UDP alike.
    published: BTreeMap<SocketAddr, SocketAddr>,
    /// Addresses of tasks.
    own: BTreeSet<IpAddr>,
    /// Addresses of tasks whose answers need not come back over this host.
    attached: BTreeSet<IpAddr>,
    /// Interface groups of zones, with the links of the tasks in them.
    zones: BTreeMap<u32, BTreeSet<LinkName>>,
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
        let zones = link.zone.iter().map(|zone| (zone.group, BTreeSet::from([link.name])));
        let (own, zones) = (link.addresses().collect(), zones.collect());
        Self { published, own, zones, ..Self::default() }
    }
}

impl From<&Attached> for Elements {
    /// Each port at the one address of its label. In a network with other machines in it a task's
    /// answers go to its own router or to the client itself, past this host: so what a port leads
    /// there has the host for its source. A link to this host alone needs that for the task's own
    /// connections only.
    fn from(attached: &Attached) -> Self {
        let mut all = Self::default();
        for port in &attached.ports {
            let Some(task) = attached.address_for(port) else { continue };
            let from = SocketAddr::new(port.address, port.host.get());
            all.published.entry(from).or_insert(SocketAddr::new(task, port.task.get()));
            let set = if attached.kind == Kind::Veth { &mut all.own } else { &mut all.attached };
            set.insert(task);
        }
        all
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

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.published.is_empty() && self.own.is_empty() && self.attached.is_empty()
    }

    /// Takes in what is not here yet.
    pub(crate) fn insert(&mut self, other: Self) {
        for (from, to) in other.published {
            self.published.entry(from).or_insert(to);
        }
        self.own.extend(other.own);
        self.attached.extend(other.attached);
        for (group, members) in other.zones {
            self.zones.entry(group).or_default().extend(members);
        }
    }

    /// Those of `other` that are here: what another task holds is not.
    pub(crate) fn shared(&self, mut other: Self) -> Self {
        other.published.retain(|from, to| self.published.get(from) == Some(to));
        other.own.retain(|address| self.own.contains(address));
        other.attached.retain(|address| self.attached.contains(address));
        other.zones.retain(|group, members| {
            let here = self.zones.get(group);
            members.retain(|member| here.is_some_and(|here| here.contains(member)));
            !members.is_empty()
        });
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
        for address in &other.attached {
            self.attached.remove(address);
        }
        for (group, leaving) in &other.zones {
            if let Some(members) = self.zones.get_mut(group) {
                members.retain(|member| !leaving.contains(member));
                if members.is_empty() {
                    self.zones.remove(group);
                }
            }
        }
    }

    /// As messages that put them into the table. What is there already may be there.
    pub(crate) fn additions(&self) -> Vec<Message> {
        self.messages(NEW_ELEMENT, self.zones.keys())
    }

    /// As messages that take them out of a table with the elements `all`, which these are a part of:
    /// a zone with its last task.
    pub(crate) fn removals(&self, all: &Self) -> Vec<Message> {
        let is_last =
            |(group, members): &(&u32, &BTreeSet<_>)| all.zones.get(group) == Some(members);
        self.messages(DELETE_ELEMENT, self.zones.iter().filter(is_last).map(|(group, _)| group))
    }

    fn messages<'a>(&self, kind: u16, zones: impl Iterator<Item = &'a u32>) -> Vec<Message> {
        let sets = [PUBLISH4, PUBLISH6, SELF4, SELF6, ATTACHED4, ATTACHED6, ZONES];
        let mut of = sets.map(|set| (set, Vec::new()));
        let [publish4, publish6, self4, self6, attached4, attached6, pairs] = &mut of;
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
        for address in &self.attached {
            let attached = if address.is_ipv4() { &mut attached4.1 } else { &mut attached6.1 };
            attached.push(Element { key: octets(*address), ..Element::default() });
        }
        for group in zones {
            pairs.1.push(Element { key: group.to_ne_bytes().repeat(2), ..Element::default() });
        }
        of.iter().flat_map(|(set, all)| set.elements(kind, all)).collect()
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

#[cfg(test)]
mod tests {
    use super::super::tests::namespaces::link;
    use super::*;
    use proptest::prelude::*;
    use proto::link::Zone;
    use proto::name::ZoneName;

    /// Links of eight tasks: a pair in each of three zones, and two without.
    fn links() -> Vec<Link> {
        let zone = |group: u32| Zone { name: ZoneName::new("z").unwrap(), group };
        (0_u16..8)
            .map(|number| Link {
                zone: (number < 6).then(|| zone(u32::from(number / 2) + 1)),
                ..link(number + 10, &[("198.51.100.1", 20_000 + number, 80)])
            })
            .collect()
    }

    proptest! {
        /// In whichever order tasks come and go: what is there is what a new table would have, and
        /// a zone's element is taken out exactly when its last task goes.
        #[test]
        fn elements_follow_from_the_tasks_alone(steps in prop::collection::vec((0..8_usize, any::<bool>()), 0..60)) {
            let links = links();
            let (mut now, mut there) = (Elements::default(), BTreeSet::new());
            for (which, comes) in steps {
                let one = Elements::from(&links[which]);
                let before: BTreeSet<u32> = now.zones.keys().copied().collect();
                if comes {
                    now.insert(one);
                    there.insert(which);
                } else {
                    let leaving = now.shared(one);
                    let rest = leaving.zones.iter().filter(|(g, m)| now.zones.get(g) == Some(m));
                    let gone: BTreeSet<u32> = rest.map(|(group, _)| *group).collect();
                    // The table refuses a transaction that takes out what is not there.
                    let count = usize::from(!gone.is_empty());
                    let others = [&leaving.published.len(), &leaving.own.len()];
                    let expected = count + others.iter().filter(|n| ***n > 0).count() * 2;
                    prop_assert_eq!(leaving.removals(&now).len(), expected);
                    now.remove(&leaving);
                    there.remove(&which);
                    let after: BTreeSet<u32> = now.zones.keys().copied().collect();
                    prop_assert_eq!(&before - &after, gone);
                }
                let mut new = Elements::default();
                there.iter().for_each(|which: &usize| new.insert((&links[*which]).into()));
                prop_assert_eq!(&now, &new);
            }
        }
    }
}
