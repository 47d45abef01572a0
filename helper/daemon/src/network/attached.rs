//! A task's network that is not of the pool: in a network of the operator's, or made by
//! systemd-nspawn; and the field of the unit's record that holds it.
//!
//! The field is words separated by commas, each a letter, `=`, a value. The first is the kind with
//! the link of the host over which the task is reached; `a` an address; `p` address and port of the
//! host, `-`, port of the task. Pure.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use proto::limits;
use proto::link::BridgePort;
use proto::plan::{Plan, PlannedNetwork};
use proto::task_spec::network::{Attached as Wanted, Container, ContainerLink, Parent, Port};
use proto::unit_id::UnitId;

/// How the task is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By the launcher, to a bridge.
    Bridge,
    /// By the launcher, as a macvlan interface.
    Macvlan,
    /// By systemd-nspawn, with a link that leads to the host alone.
    Veth,
    /// By systemd-nspawn, to a zone, a bridge, or an interface.
    Joined,
}

impl Kind {
    const ALL: [(Self, &'static str); 4] =
        [(Self::Bridge, "b"), (Self::Macvlan, "m"), (Self::Veth, "v"), (Self::Joined, "j")];

    /// Whether systemd-nspawn makes the network; addresses show later then.
    pub(crate) fn is_containers(self) -> bool {
        matches!(self, Self::Veth | Self::Joined)
    }
}

/// The network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) kind: Kind,
    /// Link of the host over which the task is reached; it may have this as its second name.
    pub(crate) via: String,
    /// The task's addresses, as far as they are known.
    pub(crate) addresses: Vec<IpAddr>,
    /// Ports of the host that lead to the task.
    pub(crate) ports: Vec<Port>,
}

impl Attached {
    /// That of a task whose network it is.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let (kind, via, addresses, ports) = match &plan.network {
            PlannedNetwork::Attached { attached, .. } => {
                let Wanted { parent, ports, .. } = attached;
                let (kind, name) = match parent {
                    Parent::Bridge(name) => (Kind::Bridge, name),
                    Parent::Macvlan(name) => (Kind::Macvlan, name),
                };
                (kind, name.to_string(), attached.addresses().collect(), ports)
            }
            PlannedNetwork::Container { container: Container { link, ports, .. }, .. } => {
                let (kind, via) = match link {
                    // Systemd-nspawn shortens the name, and makes this one the second.
                    ContainerLink::Veth => (Kind::Veth, format!("ve-{}", plan.machine)),
                    ContainerLink::Zone(name) => (Kind::Joined, format!("vz-{name}")),
                    ContainerLink::Bridge(name) | ContainerLink::Macvlan(name) => {
                        (Kind::Joined, name.to_string())
                    }
                };
                (kind, via, Vec::new(), ports)
            }
            _ => return None,
        };
        Some(Self { kind, via, addresses, ports: ports.clone() })
    }

    /// The link to delete at the end, where the kernel would take its time.
    pub(crate) fn own_link(&self, unit: UnitId) -> Option<String> {
        (self.kind == Kind::Bridge).then(|| BridgePort::from(unit).to_string())
    }

    /// Where ports of a family lead.
    pub(crate) fn address_for(&self, port: &Port) -> Option<IpAddr> {
        let same = |it: &&IpAddr| it.is_ipv4() == port.address.is_ipv4();
        self.addresses.iter().find(same).copied()
    }

    /// The text of a record's field. Of a network that systemd-nspawn makes no address is in it:
    /// the container may have another one when it is read.
    pub(crate) fn write(&self) -> String {
        let letter = Kind::ALL.iter().find(|(kind, _)| *kind == self.kind).map_or("", |(_, it)| it);
        let mut text = format!("{letter}={}", self.via);
        // A String takes everything.
        for address in self.addresses.iter().filter(|_| !self.kind.is_containers()) {
            _ = write!(text, ",a={address}");
        }
        for port in &self.ports {
            let host = SocketAddr::new(port.address, port.host.get());
            _ = write!(text, ",p={host}-{}", port.task);
        }
        text
    }

    /// Reads such a field.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut words = text.split(',').map(|word| word.split_once('='));
        let (letter, via) = words.next()??;
        let (kind, _) = Kind::ALL.iter().find(|(_, known)| *known == letter)?;
        if via.is_empty() {
            return None;
        }
        let mut all = Self { kind: *kind, via: via.into(), addresses: vec![], ports: vec![] };
        for word in words {
            match word? {
                ("a", value) if all.addresses.len() < 2 => all.addresses.push(value.parse().ok()?),
                ("p", value) if all.ports.len() < limits::PORTS_MAX => {
                    let (host, task) = value.rsplit_once('-')?;
                    let host: SocketAddr = host.parse().ok()?;
                    let (address, host) = (host.ip(), NonZeroU16::new(host.port())?);
                    all.ports.push(Port { address, host, task: task.parse().ok()? });
                }
                _ => return None,
            }
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_back() {
        for text in [
            "b=br0",
            "b=br0,a=192.0.2.9,a=2001:db8::9,p=198.51.100.1:20001-80,p=[2001:db8::1]:20001-80",
            "m=eth0,a=192.0.2.9",
            "v=ve-web-1,p=198.51.100.1:20001-80",
            "j=vz-shop",
        ] {
            assert_eq!(Attached::read(text).map(|it| it.write()).as_deref(), Some(text));
        }
        // What a container has chosen is asked for again.
        let mut found = Attached::read("v=ve-web-1").unwrap();
        found.addresses.push([192, 0, 2, 9].into());
        assert_eq!(found.write(), "v=ve-web-1");
    }

    #[test]
    fn what_is_no_network_is_not_read() {
        for text in [
            "",
            "none",
            "b",
            "b=",
            "x=br0",
            "b=br0,",
            "b=br0,a=x",
            "b=br0,p=198.51.100.1:0-80",
            "b=br0,p=198.51.100.1:80-0",
            "b=br0,a=::1,a=::2,a=::3",
            "a=192.0.2.9",
        ] {
            assert_eq!(Attached::read(text), None, "{text}");
        }
    }
}
