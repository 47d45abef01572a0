//! The task's network.
//! A namespace to join must be the allocation's own where Nomad's lie. A port leads to the task from
//! the one address that Nomad gave it, so it must name one. A task of a zone reaches all others of it,
//! so zones are listed by their names. Addresses that a job names are the daemon's to judge: it knows
//! the pool.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use proto::capability::Capabilities;
use proto::limits::ADDRESS_TIMEOUT_MAX_S;
use proto::link::BridgePort;
use proto::name::ZoneName;
use proto::path::Absolute;
use proto::plan::{NetworkOwner, Place, PlannedNetwork};
use proto::task_spec::network::{Attached, Container, ContainerLink, Parent, Port, Private};
use proto::task_spec::{Network, Payload, TaskSpec, Users};
use proto::unit_id::UnitId;

use super::addresses::Forwarding;
use super::glob::matches;
use super::{Denial, Policy, decide, invalid, place_below, refuse, unlisted};

/// What no policy lifts: a MAC address is that of one interface.
pub(super) fn check_mac(network: &Network) -> Result<(), Denial> {
    match network {
        Network::Private(Private { mac: Some(mac), .. }) if !mac.is_of_one() => {
            let reason = "must be of one interface: the second digit even, and not all zeros";
            Err(invalid("mac", format!("MAC address {mac}"), reason))
        }
        _ => Ok(()),
    }
}

/// What no policy lifts: each port at one address of a host, and no two at the same place.
pub(super) fn check_ports(network: &Network) -> Result<(), Denial> {
    let mut taken = HashSet::new();
    for port in network.ports() {
        if !is_of_a_host(port.address) {
            let reason = "its address must be one of the host, not any or several; see the \
                          host_network of the label";
            return Err(invalid("address", of_host(port), reason));
        }
        if !taken.insert((port.address, port.host)) {
            return Err(invalid(
                "twice",
                of_host(port),
                "given twice; leave out one of its labels",
            ));
        }
    }
    match network {
        Network::Attached(attached) => check_attached(attached),
        Network::Container(Container { link, ports, wait_s }) => {
            if *wait_s > ADDRESS_TIMEOUT_MAX_S {
                let reason = format!("at most {ADDRESS_TIMEOUT_MAX_S} s");
                return Err(invalid("address", "wait for an address", reason));
            }
            match ports.first() {
                Some(port) if matches!(link, ContainerLink::Macvlan(_)) => Err(no_macvlan(port)),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Addresses must be ones that an interface can have, and each port have one to lead to.
fn check_attached(attached: &Attached) -> Result<(), Denial> {
    let v4 = attached.v4.map(|it| (IpAddr::from(it.address), it.bits, 32));
    let v6 = attached.v6.map(|it| (IpAddr::from(it.address), it.bits, 128));
    for (address, bits, most) in v4.into_iter().chain(v6) {
        let local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if !is_of_a_host(address) || address.is_loopback() || local {
            let reason = "must be the address of one interface in a network (not any, loopback, \
                          link-local, multicast or broadcast)";
            return Err(invalid("address", format!("address {address}"), reason));
        }
        if bits.is_some_and(|bits| !(1..=most).contains(&bits)) {
            let reason = format!("the bits of its prefix must be 1 to {most}");
            return Err(invalid("address", format!("address {address}"), reason));
        }
    }
    if attached.mac.is_some_and(|mac| !mac.is_of_one()) {
        let reason = "must be the address of one interface (unicast, not zero)";
        return Err(invalid("address", "MAC address", reason));
    }
    for port in &attached.ports {
        if matches!(attached.parent, Parent::Macvlan(_)) {
            return Err(no_macvlan(port));
        }
        let has_one = if port.address.is_ipv4() { v4.is_some() } else { v6.is_some() };
        if !has_one {
            let reason = "leads nowhere: on a bridge a port needs the task's address of its family \
                          (ipv4_address, ipv6_address)";
            return Err(invalid("address", of_host(port), reason));
        }
    }
    Ok(())
}

/// The kernel delivers nothing between an interface and macvlan interfaces on it.
fn no_macvlan(port: &Port) -> Denial {
    let reason = "cannot lead to a task with macvlan, which the host does not reach: connect to the \
                  task's own address";
    invalid("address", of_host(port), reason)
}

fn of_host(port: &Port) -> String {
    format!("host port {}", SocketAddr::new(port.address, port.host.get()))
}

/// IPv4 in IPv6's form would never match a packet, and be a second spelling of the same place.
fn is_of_a_host(address: IpAddr) -> bool {
    let form = match address {
        IpAddr::V4(address) => !address.is_broadcast(),
        IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
    };
    form && !address.is_unspecified() && !address.is_multicast()
}

fn check_zone(zone: Option<&str>, policy: &Policy) -> Result<(), Denial> {
    let Some(zone) = zone else { return Ok(()) };
    let is_listed = |pattern: &String| matches(pattern, zone, None);
    if policy.network.zones.iter().any(is_listed) {
        return Ok(());
    }
    Err(unlisted("network.zones", format!("zone {zone}"), zone))
}

/// Whose the network namespace is: the container's where its root may use CAP_NET_ADMIN. The
/// capability then holds in that namespace alone; the host sees a link whose packets it judges as
/// every other's. Without a user namespace of the task's own it would be the host's capability.
fn owner(spec: &TaskSpec, policy: &Policy) -> NetworkOwner {
    let has = |set: Capabilities| {
        Capabilities::named("net_admin").is_some_and(|it| !set.both(it).is_empty())
    };
    let boots = matches!(spec.payload, Payload::Boot { .. });
    let wanted = (boots || has(spec.isolation.add)) && !has(spec.isolation.drop);
    if wanted && spec.users != Users::Host && policy.network.container_admin {
        NetworkOwner::Container
    } else {
        NetworkOwner::Host
    }
}

/// The network as the launcher makes it, and the ports of one that the daemon gives addresses to.
pub(super) fn plan(
    spec: &TaskSpec,
    policy: &Policy,
) -> Result<(PlannedNetwork, Option<decide::Private>), Denial> {
    for (kind, object) in kinds(&spec.network) {
        if !policy.network.allow.iter().any(|pattern| matches(&pattern.0, &kind, None)) {
            return Err(unlisted("network.allow", object, kind));
        }
    }
    let listed =
        |port: &&Port| policy.network.ports.iter().any(|ports| ports.0.contains(&port.host.get()));
    if let Some(port) = spec.network.ports().iter().find(|port| !listed(port)) {
        return Err(unlisted("network.ports", of_host(port), port.host));
    }
    let enable_forwarding = policy.network.forwarding.0 == Forwarding::Enable;
    match &spec.network {
        Network::Loopback => Ok((PlannedNetwork::Loopback, None)),
        // Loopback alone until the daemon has given it a link.
        Network::Private(wanted) => {
            check_zone(wanted.zone.as_ref().map(ZoneName::as_str), policy)?;
            let private = decide::Private {
                wanted: wanted.clone(),
                owner: owner(spec, policy),
                enable_forwarding,
            };
            Ok((PlannedNetwork::Loopback, Some(private)))
        }
        Network::Attached(attached) => {
            // A booted image that runs systemd-networkd would take static addresses away.
            let boots = matches!(spec.payload, Payload::Boot { .. });
            let is_static = attached.addresses().next().is_some();
            let owner = if boots && is_static { NetworkOwner::Host } else { owner(spec, policy) };
            let attached = attached.clone();
            let port = BridgePort::from(UnitId::from(&spec.key));
            let planned = PlannedNetwork::Attached { attached, port, enable_forwarding, owner };
            Ok((planned, None))
        }
        Network::Container(container) => {
            if !policy.network.container_admin {
                let reason = "lets root in the container change its network, which [network] \
                              container_admin = false of the policy file forbids";
                let object = "network made by systemd-nspawn";
                return Err(refuse("network.container_admin", object, reason));
            }
            if let ContainerLink::Zone(zone) = &container.link {
                check_zone(Some(zone.as_str()), policy)?;
            }
            let container = container.clone();
            Ok((PlannedNetwork::Container { container, enable_forwarding }, None))
        }
        Network::Host => Ok((PlannedNetwork::Host, None)),
        Network::Join(path) => Ok((PlannedNetwork::Join(place_of(path, spec, policy)?), None)),
    }
}

/// Refuses, under a policy that lists addresses, what could go around them. The kernel compares the
/// addresses of sockets: a packet socket (CAP_NET_RAW) and what a tun device feeds into a namespace
/// that forwards (CAP_NET_ADMIN) have none. Both capabilities count in a network namespace of the
/// container's own user namespace, and everywhere without one.
pub(super) fn check_egress(
    spec: &TaskSpec,
    planned: &PlannedNetwork,
    private: Option<&decide::Private>,
    policy: &Policy,
) -> Result<(), Denial> {
    let is_containers = match planned {
        PlannedNetwork::Container { .. } => true,
        PlannedNetwork::Attached { owner, .. } => *owner == NetworkOwner::Container,
        _ => private.is_some_and(|private| private.owner == NetworkOwner::Container),
    };
    let counts = is_containers || spec.users == Users::Host;
    // From loopback alone nothing leaves.
    if policy.network.egress.is_none() || !counts || matches!(spec.network, Network::Loopback) {
        return Ok(());
    }
    let mut needed = ["net_raw", "net_admin"].into_iter().filter_map(Capabilities::named);
    if needed.all(|capability| !spec.isolation.drop.both(capability).is_empty()) {
        return Ok(());
    }
    let reason = "go around the addresses of [network] egress in the policy file, because here they \
                  hold for the task's network: add cap_drop = [\"net_raw\", \"net_admin\"]";
    Err(refuse("network.egress", "capabilities net_raw and net_admin", reason))
}

/// The place of a network namespace that is there already.
fn place_of(path: &Absolute, spec: &TaskSpec, policy: &Policy) -> Result<Place, Denial> {
    let object = format!("network namespace {path}");
    let place = place_below(path, policy.network.netns_paths.iter()).ok_or_else(|| {
        let reason = "lies below no directory of [network] netns_paths in the policy file; add its \
                      directory there";
        refuse("network.netns_paths", &object, reason)
    })?;
    // Nomad's own namespaces carry the allocation's id; others, where listed, do not.
    let nomads = place.root.to_path().ends_with("run/netns");
    let alloc = spec.key.alloc.to_string();
    match place.below.components() {
        [name] if !nomads || name.as_str() == alloc => Ok(place),
        _ => Err(refuse(
            "network.netns_paths",
            object,
            "is not the one that Nomad made for this allocation; restart the allocation",
        )),
    }
}

/// What `network.allow` must list, each with its name for people. A network that systemd-nspawn
/// makes needs two entries: its links are outside of what the packet filter keeps apart.
fn kinds(network: &Network) -> Vec<(Cow<'static, str>, &'static str)> {
    let named = |kind: &str, name: &str| Cow::from(format!("{kind}:{name}"));
    let container = ("container".into(), "network made by systemd-nspawn");
    match network {
        Network::Loopback => vec![("private".into(), "private network")],
        Network::Private(Private { zone: Some(_), .. }) => {
            vec![("zone".into(), "network in a zone")]
        }
        Network::Private(_) => vec![("veth".into(), "network of its own")],
        Network::Host => vec![("host".into(), "host network")],
        Network::Join(_) => vec![("group".into(), "group network")],
        Network::Attached(Attached { parent: Parent::Bridge(name), .. }) => {
            vec![(named("bridge", name.as_str()), "network bridge")]
        }
        Network::Attached(Attached { parent: Parent::Macvlan(name), .. }) => {
            vec![(named("macvlan", name.as_str()), "macvlan interface")]
        }
        Network::Container(Container { link, .. }) => vec![
            container,
            match link {
                ContainerLink::Veth => ("veth".into(), "network of its own"),
                ContainerLink::Zone(_) => ("zone".into(), "network zone"),
                ContainerLink::Bridge(name) => (named("bridge", name.as_str()), "network bridge"),
                ContainerLink::Macvlan(name) => {
                    (named("macvlan", name.as_str()), "macvlan interface")
                }
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Change, change, check, judged, row};

    /// Whose the network of a task is under a policy file, after a change.
    fn owner_of(file: &str, change: &dyn Fn(&mut TaskSpec)) -> NetworkOwner {
        let own = |spec: &mut TaskSpec| {
            spec.network = Network::with_ports(Vec::new());
            change(spec);
        };
        judged(file, own).unwrap().network_owner().unwrap()
    }

    #[test]
    fn root_in_a_container_gets_its_own_network_where_it_may_use_it() {
        const ALLOWED: &str = "[caps]\nallow = [\"net_admin\"]";
        const REFUSED: &str = "[caps]\nallow = [\"net_admin\"]\n[network]\ncontainer_admin = false";
        const HOST_USERS: &str = "[userns]\nrequire = false\n[caps]\nallow = [\"net_admin\"]";
        let boot = |spec: &mut TaskSpec| spec.payload = Payload::Boot { arguments: Vec::new() };
        let admin = || Capabilities::named("net_admin").unwrap();
        let adds = |spec: &mut TaskSpec| spec.isolation.add = admin();
        let users =
            |users| move |spec: &mut TaskSpec| (spec.users, spec.isolation.add) = (users, admin());
        use NetworkOwner::{Container, Host};
        for (file, change, expected) in [
            ("", &boot as &dyn Fn(&mut TaskSpec), Container),
            (ALLOWED, &adds, Container),
            (ALLOWED, &|_| (), Host),
            (REFUSED, &boot, Host),
            (REFUSED, &adds, Host),
            (HOST_USERS, &users(Users::Host), Host),
            (HOST_USERS, &users(Users::Identity), Container),
            ("", &|spec| (boot(spec), spec.isolation.drop = admin()).1, Host),
        ] {
            assert_eq!(owner_of(file, change), expected, "{file:?}");
        }
    }

    /// Nobody sends packets without a socket where the policy lists addresses.
    #[test]
    fn p40_egress_is_not_gone_around() {
        const EGRESS: &str = "[network]\negress = [\"10.0.0.0/8\"]\nallow = [\"veth\", \
                              \"container\", \"private\", \"host\", \"bridge:*\"]\n[userns]\n\
                              require = false\n[caps]\nallow = [\"all\"]";
        let task = |network: Network, drop: &[&'static str], set: fn(&mut TaskSpec)| -> Change {
            let named =
                |all: Capabilities, name: &&str| all.with(Capabilities::named(name).unwrap());
            let drop = drop.iter().fold(Capabilities::default(), named);
            change(move |s| {
                s.network = network.clone();
                s.resources.egress = Some(Vec::new());
                s.isolation.drop = drop;
                set(s);
            })
        };
        let own = || Network::with_ports(Vec::new());
        let nspawns = || {
            let (link, ports) = (ContainerLink::Veth, Vec::new());
            Network::Container(Container { link, ports, wait_s: 0 })
        };
        let bridge = || {
            let parent = Parent::Bridge(proto::name::ParentName::new("br0").unwrap());
            Network::Attached(Attached { parent, v4: None, v6: None, mac: None, ports: Vec::new() })
        };
        let both: &[&str] = &["net_raw", "net_admin"];
        let boot = |s: &mut TaskSpec| s.payload = Payload::Boot { arguments: Vec::new() };
        let host = |s: &mut TaskSpec| s.users = Users::Host;
        let admin = |s: &mut TaskSpec| {
            s.isolation.add = Capabilities::named("net_admin").unwrap_or_default();
        };
        let plain = |_: &mut TaskSpec| ();
        let rows = [
            // Without CAP_NET_ADMIN the network is the host's, and CAP_NET_RAW does not count in it.
            (task(own(), &["net_raw"], boot), task(own(), &["net_admin"], boot)),
            (task(own(), &[], admin), task(own(), &[], plain)),
            (task(bridge(), &["net_raw"], boot), task(bridge(), both, boot)),
            (task(nspawns(), &["net_admin"], plain), task(nspawns(), both, plain)),
            (task(own(), &["net_admin"], host), task(own(), both, host)),
            (task(Network::Host, &[], host), task(Network::Host, &[], plain)),
            (task(own(), &[], boot), task(Network::Loopback, &[], boot)),
            (task(own(), &["net_raw"], host), task(Network::Loopback, &[], host)),
        ];
        check(
            rows.into_iter()
                .map(|(bad, good)| row("network.egress", "cap_drop", (EGRESS, bad), (EGRESS, good)))
                .collect(),
        );
        let unlisted = EGRESS.replacen("egress = [\"10.0.0.0/8\"]", "", 1);
        assert!(judged(&unlisted, task(own(), &[], boot)).is_ok());
    }
}
