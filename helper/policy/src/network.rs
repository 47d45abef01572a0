//! The task's network.
//! A namespace to join must be the allocation's own where Nomad's lie. A port leads to the task from
//! the one address that Nomad gave it, so it must name one.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use proto::plan::PlannedNetwork;
use proto::task_spec::network::Port;
use proto::task_spec::{Network, TaskSpec};

use super::addresses::Forwarding;
use super::decide::Private;
use super::glob::matches;
use super::{Denial, Policy, invalid, place_below, refuse, unlisted};

/// What no policy lifts: each port at one address of a host, and no two at the same place.
pub(super) fn check_ports(network: &Network) -> Result<(), Denial> {
    let Network::Private(ports) = network else { return Ok(()) };
    let mut taken = HashSet::new();
    for port in ports {
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
    Ok(())
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

/// The network as the launcher makes it, and the ports of one that the daemon gives addresses to.
pub(super) fn plan(
    spec: &TaskSpec,
    policy: &Policy,
) -> Result<(PlannedNetwork, Option<Private>), Denial> {
    let (kind, object) = match &spec.network {
        Network::Loopback => ("private", "private network"),
        Network::Private(_) => ("veth", "network of its own"),
        Network::Host => ("host", "host network"),
        Network::Join(_) => ("group", "group network"),
    };
    if !policy.network.allow.iter().any(|pattern| matches(&pattern.0, kind, None)) {
        return Err(unlisted("network.allow", object, kind));
    }
    let path = match &spec.network {
        Network::Loopback => return Ok((PlannedNetwork::Loopback, None)),
        // Loopback alone until the daemon has given it a link.
        Network::Private(ports) => {
            let private = |ports: &[Port]| Private {
                ports: ports.to_vec(),
                enable_forwarding: policy.network.forwarding.0 == Forwarding::Enable,
            };
            let listed = |port: &&Port| {
                policy.network.ports.iter().any(|ports| ports.0.contains(&port.host.get()))
            };
            return match ports.iter().find(|port| !listed(port)) {
                Some(port) => Err(unlisted("network.ports", of_host(port), port.host)),
                None => Ok((PlannedNetwork::Loopback, Some(private(ports)))),
            };
        }
        Network::Host => return Ok((PlannedNetwork::Host, None)),
        Network::Join(path) => path,
    };
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
        [name] if !nomads || name.as_str() == alloc => Ok((PlannedNetwork::Join(place), None)),
        _ => Err(refuse(
            "network.netns_paths",
            object,
            "is not the one that Nomad made for this allocation; restart the allocation",
        )),
    }
}
