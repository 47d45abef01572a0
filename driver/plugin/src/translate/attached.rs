//! Networks of the operator's that a task is attached to, and networks that systemd-nspawn makes.
//!
//! Nothing here guards anything: the helper judges what a task may be attached to by its policy, and
//! looks at the interfaces.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nomad_proto::drivers::TaskConfig;
use proto::link::Mac;
use proto::name::{LinkZoneName, ParentName};
use proto::task_spec::Network;
use proto::task_spec::network::{Address, Attached, Container, ContainerLink, Parent};

use super::node::Node;
use super::ports;
use crate::config::Problem;
use crate::config::task::TaskKeys;
use crate::config::words::NetworkSetup;

/// The network of a task that is not of the helper's own; `None`: it is.
pub(super) fn network(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Network> {
    let parent = parent(keys, problems);
    if by_container(keys, node) {
        return Some(container(task, keys, node, parent, problems));
    }
    let parent = parent?;
    if let Some(zone) = &keys.network_zone {
        let rule = "excludes network_bridge and macvlan, which are another network";
        problems.push(Problem::new("network_zone", rule).value(zone).remedy("remove one of them"));
    }
    let ports = ports::published(task, keys, problems);
    let v4: Option<Address<Ipv4Addr>> =
        address("ipv4_address", keys.ipv4_address.as_deref(), "192.0.2.20", 32, problems);
    let v6: Option<Address<Ipv6Addr>> =
        address("ipv6_address", keys.ipv6_address.as_deref(), "2001:db8::20", 128, problems);
    if matches!(parent, Parent::Macvlan(_)) {
        let rule = "excludes macvlan: the host does not reach the task";
        let remedy = "connect to the task's own address";
        ports::refuse(keys, rule, remedy, problems);
    } else {
        for (family, has_one, is_asked) in [
            ("ipv4_address", v4.is_some(), ports.iter().any(|port| port.address.is_ipv4())),
            ("ipv6_address", v6.is_some(), ports.iter().any(|port| port.address.is_ipv6())),
        ] {
            if is_asked && !has_one {
                let rule = format!(
                    "on a bridge a port leads to the task's {family}, which is not \
                                    given"
                );
                let remedy = format!("add {family}, or network_setup = \"container\"");
                problems.push(Problem::new("ports", rule).remedy(remedy));
            }
        }
    }
    Some(Network::Attached(Attached { parent, v4, v6, mac: mac(keys, problems), ports }))
}

/// Whether systemd-nspawn makes the network: as the job says, else the plugin's configuration.
fn by_container(keys: &TaskKeys, node: &Node<'_>) -> bool {
    match keys.network_setup.unwrap_or_else(|| node.config.default_setup()) {
        NetworkSetup::Helper => false,
        NetworkSetup::Container => true,
        NetworkSetup::Auto => keys.boots(),
    }
}

/// What the task is attached to, where the job names something.
fn parent(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Option<Parent> {
    if let (Some(_), Some(name)) = (&keys.network_bridge, &keys.macvlan) {
        let problem = Problem::new("macvlan", "excludes network_bridge").value(name);
        problems.push(problem.remedy("remove one of them"));
    }
    let mut read = |key, name: &str| {
        let problem = |e| Problem::new(key, format!("{e}")).value(name).remedy("e.g. br0");
        ParentName::new(name).map_err(|e| problems.push(problem(e))).ok()
    };
    let bridge = keys.network_bridge.as_ref().and_then(|name| read("network_bridge", name));
    let macvlan = keys.macvlan.as_ref().and_then(|name| read("macvlan", name));
    bridge.map(Parent::Bridge).or(macvlan.map(Parent::Macvlan))
}

fn container(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    parent: Option<Parent>,
    problems: &mut Vec<Problem>,
) -> Network {
    for (key, value) in [
        ("ipv4_address", &keys.ipv4_address),
        ("ipv6_address", &keys.ipv6_address),
        ("mac_address", &keys.mac_address),
    ] {
        if let Some(value) = value {
            let rule = "excludes network_setup = \"container\": the container's own DHCP client \
                        gets its address";
            let remedy = "remove it, or set network_setup = \"helper\"";
            problems.push(Problem::new(key, rule).value(value).remedy(remedy));
        }
    }
    let zone = keys.network_zone.as_ref().and_then(|name| {
        let remedy = "shorten it: network_setup = \"container\" makes a bridge vz-NAME of it";
        let problem = |e| Problem::new("network_zone", format!("{e}")).value(name).remedy(remedy);
        LinkZoneName::new(name).map_err(|e| problems.push(problem(e))).ok()
    });
    let link = match (parent, zone) {
        (Some(_), Some(zone)) => {
            let rule = "excludes network_bridge and macvlan";
            problems.push(Problem::new("network_zone", rule).value(&zone).remedy("remove one"));
            ContainerLink::Zone(zone)
        }
        (None, Some(zone)) => ContainerLink::Zone(zone),
        (Some(Parent::Bridge(name)), None) => ContainerLink::Bridge(name),
        (Some(Parent::Macvlan(name)), None) => {
            let rule = "excludes macvlan: the host does not reach the task";
            ports::refuse(keys, rule, "connect to the task's own address", problems);
            ContainerLink::Macvlan(name)
        }
        (None, None) => ContainerLink::Veth,
    };
    let wait_s = node.config.address_timeout_s();
    Network::Container(Container { link, ports: ports::published(task, keys, problems), wait_s })
}

/// Reads `ADDRESS` or `ADDRESS/BITS`.
fn address<A: Copy + std::str::FromStr + Into<IpAddr>>(
    key: &str,
    text: Option<&str>,
    example: &str,
    most: u8,
    problems: &mut Vec<Problem>,
) -> Option<Address<A>> {
    let text = text?;
    let (written, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let digits = |bits: &&str| bits.bytes().all(|b| b.is_ascii_digit());
    let parsed = bits.map(|bits| Some(bits).filter(digits).and_then(|it| it.parse().ok()));
    let is_one = |bits: &Option<u8>| bits.is_some_and(|bits| (1..=most).contains(&bits));
    match (written.parse().ok(), parsed) {
        (Some(address), None) => Some(Address { address, bits: None }),
        (Some(address), Some(bits)) if is_one(&bits) => Some(Address { address, bits }),
        _ => {
            let rule = format!(
                "must be an address, or an address with the bits of its prefix (1 to \
                                {most})"
            );
            let remedy = format!("e.g. {example} or {example}/24");
            problems.push(Problem::new(key, rule).value(text).remedy(remedy));
            None
        }
    }
}

fn mac(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Option<Mac> {
    let text = keys.mac_address.as_deref()?;
    let mut refuse = |rule: &dyn Display| {
        let problem = Problem::new("mac_address", rule.to_string()).value(text);
        problems.push(problem.remedy("e.g. 02:00:00:00:00:01"));
    };
    match text.parse::<Mac>() {
        Ok(mac) if mac.is_of_one() => return Some(mac),
        Ok(_) => refuse(&"must be of one interface: the second digit even, and not all zeros"),
        Err(_) => refuse(&"must be six pairs of hexadecimal digits, joined by colons"),
    }
    None
}

/// Reports the keys that a network which is not the task's own does not take.
pub(super) fn refuse(keys: &TaskKeys, network: &str, problems: &mut Vec<Problem>) {
    for (key, value) in [("network_bridge", &keys.network_bridge), ("macvlan", &keys.macvlan)] {
        if let Some(value) = value {
            let problem = Problem::new(key, format!("excludes {network}")).value(value);
            problems.push(problem.remedy("remove one of them"));
        }
    }
    if let Some(setup @ NetworkSetup::Container) = keys.network_setup {
        let problem = Problem::new("network_setup", format!("excludes {network}"));
        problems.push(problem.value(setup.word()).remedy("remove one of them"));
    }
}
