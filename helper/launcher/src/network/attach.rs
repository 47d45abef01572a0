//! The interface of a task in a network of the operator's: a port of a bridge, or a macvlan interface.
//!
//! Made through a socket of the host's network namespace, configured from inside the task's. Trusts
//! the plan, except for the names of interfaces: what they name is looked at. Never changes a bridge
//! or an interface that is there already.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use kernel::netlink::{Message, Socket};
use proto::link::BridgePort;
use proto::name::MachineName;
use proto::task_spec::network::{Address, Attached, Parent};

use super::link::{Host, TASK_END, delete, find, open_netlink, wait_until_it_works};
use super::rtnetlink::{self, End, Known, Subnet};
use super::settings::Both;
use crate::step::{At, Problem};

/// What is to be done inside the task's network namespace.
pub(super) struct Inside {
    addresses: Vec<Subnet>,
    gateways: Vec<IpAddr>,
    has_v6: bool,
}

impl Host {
    /// Refuses what cannot be attached to, or addressed, without making anything.
    pub(super) fn check_parent(&mut self, attached: &Attached) -> Result<(), Problem> {
        let (netlink, settings) = self.parts();
        let parent = find_parent(netlink, &attached.parent)?;
        lay_out(netlink, settings, attached, &parent).map(drop)
    }

    /// Makes the interface in a network namespace; the rest is done from inside.
    pub(super) fn attach(
        &mut self,
        attached: &Attached,
        port: BridgePort,
        machine: &MachineName,
        enable_forwarding: bool,
        namespace: BorrowedFd<'_>,
    ) -> Result<Inside, Problem> {
        let (netlink, settings) = self.parts();
        let parent = find_parent(netlink, &attached.parent)?;
        let inside = lay_out(netlink, settings, attached, &parent)?;
        let mac = attached.mac.unwrap_or_else(|| port.mac(0));
        let task = End { name: TASK_END, mac, group: 0 };
        let object = format!("{TASK_END} on {}", parent.name);
        match attached.parent {
            Parent::Macvlan(_) => {
                let request = rtnetlink::create_macvlan(&task, parent.index, namespace);
                netlink.request(vec![request]).at(object)?;
            }
            Parent::Bridge(_) => {
                if !attached.ports.is_empty() {
                    settings.check_forwarding(netlink, enable_forwarding, inside.has_v6)?;
                }
                let name = port.to_string();
                let host = End { name: &name, mac: port.mac(1), group: 0 };
                let request = rtnetlink::create_link(&host, &task, parent.mtu, namespace);
                // One of an earlier start of this run, which may have lost its namespace or not.
                delete(netlink, &name).at(&object)?;
                netlink.request(vec![request]).at(&object)?;
                join_bridge(netlink, settings, &name, &parent, machine)?;
            }
        }
        Ok(inside)
    }
}

/// Makes the host's end a port of the bridge.
fn join_bridge(
    netlink: &mut Socket,
    settings: &Both,
    name: &str,
    bridge: &Known,
    machine: &MachineName,
) -> Result<(), Problem> {
    if let Some(v6) = &settings.v6 {
        // What arrives at a port is the bridge's.
        v6.set(name, "disable_ipv6", "1")?;
    }
    let object = format!("link {name}");
    let index = find(netlink, rtnetlink::link_named(name)).at(&object)?.index;
    let messages = vec![
        rtnetlink::set_master(index, bridge.index),
        rtnetlink::set_up(index),
        // The last, because it may fail: the one of an earlier run may still be there.
        rtnetlink::add_name(index, machine.as_str()),
    ];
    match netlink.request(messages) {
        Err(failure) if failure.message == 2 => {
            eprintln!("{object} has no second name {machine}: {}", failure.error);
            Ok(())
        }
        result => result.at(format!("{object} as a port of {}", bridge.name)),
    }
}

/// The interface of that name, where it is what the job takes it for.
fn find_parent(netlink: &mut Socket, parent: &Parent) -> Result<Known, Problem> {
    let (key, name) = match parent {
        Parent::Bridge(name) => ("network_bridge", name),
        Parent::Macvlan(name) => ("macvlan", name),
    };
    let object = format!("{key} {name}");
    let found = match find(netlink, rtnetlink::link_named(name.as_str())) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            let reason = "there is no such interface on this host: make it, or constrain the job to \
                          nodes that have it";
            return Err(Problem::refused(object, reason));
        }
        found => found.at(&object)?,
    };
    // A second name would be another spelling of what the policy lists.
    if found.name != name.as_str() {
        let reason = format!("is a second name of {}: use that one", found.name);
        return Err(Problem::refused(object, reason));
    }
    if matches!(parent, Parent::Bridge(_)) && found.kind != "bridge" {
        return Err(Problem::refused(object, "is not a bridge (ip -d link show)"));
    }
    if !found.is_up {
        let reason = format!("is down: ip link set {name} up");
        return Err(Problem::refused(object, reason));
    }
    Ok(found)
}

/// Addresses with their prefixes, and the default gateways.
fn lay_out(
    netlink: &mut Socket,
    settings: &Both,
    attached: &Attached,
    parent: &Known,
) -> Result<Inside, Problem> {
    let mut own = Vec::new();
    let read = |_, content: &[u8]| own.extend(Subnet::read(content, parent.index));
    netlink.dump(rtnetlink::all_addresses(), read).at("addresses of the host")?;
    let mut routers = Vec::new();
    for question in rtnetlink::all_routes() {
        let read = |_, content: &[u8]| {
            routers.extend(rtnetlink::read_default_gateway(content, parent.index));
        };
        netlink.dump(question, read).at("routes of the host")?;
    }
    if attached.v6.is_some() && settings.v6.is_none() {
        let reason = "this host has no IPv6: leave it out";
        return Err(Problem::refused("ipv6_address", reason));
    }
    let v4 = attached.v4.map(|Address { address, bits }| (IpAddr::from(address), bits));
    let v6 = attached.v6.map(|Address { address, bits }| (IpAddr::from(address), bits));
    let (mut addresses, mut gateways) = (Vec::new(), Vec::new());
    for (address, bits) in v4.into_iter().chain(v6) {
        let (subnet, gateway) = place(address, bits, &own, &routers, parent)?;
        if let Some(port) =
            attached.ports.iter().find(|it| it.address.is_ipv4() == address.is_ipv4())
        {
            check_way(netlink, address, parent, port.host.get())?;
        }
        addresses.push(subnet);
        // The host is no router for a macvlan interface on it.
        let is_host = gateway.is_some_and(|it| own.iter().any(|own| own.address == it));
        gateways
            .extend(gateway.filter(|_| !is_host || matches!(attached.parent, Parent::Bridge(_))));
    }
    Ok(Inside { addresses, gateways, has_v6: v6.is_some() })
}

/// The network that an address is in, and its default gateway: that of the host where it lies there,
/// else the host itself.
fn place(
    address: IpAddr,
    bits: Option<u8>,
    own: &[Subnet],
    routers: &[IpAddr],
    parent: &Known,
) -> Result<(Subnet, Option<IpAddr>), Problem> {
    if own.iter().any(|own| own.address == address) {
        return Err(Problem::refused(
            address,
            format!("is the host's own address on {}", parent.name),
        ));
    }
    let bits = bits.or_else(|| own.iter().find(|own| own.holds(address)).map(|own| own.bits));
    let Some(bits) = bits else {
        let reason = format!(
            "lies in no network of the host's addresses on {}: write it with the length of its \
             prefix, e.g. {address}/{}",
            parent.name,
            if address.is_ipv4() { 24 } else { 64 }
        );
        return Err(Problem::refused(format!("address {address}"), reason));
    };
    let subnet = Subnet { address, bits };
    let router = routers.iter().find(|router| subnet.holds(**router));
    let hosts = own.iter().map(|own| &own.address).find(|own| subnet.holds(**own));
    Ok((subnet, router.or(hosts).copied().filter(|gateway| *gateway != address)))
}

/// A published port leads where the host's routes lead: over this bridge, and not to another task.
fn check_way(
    netlink: &mut Socket,
    address: IpAddr,
    parent: &Known,
    port: u16,
) -> Result<(), Problem> {
    let mut over = None;
    let question = rtnetlink::way_of_the_host_to(address);
    let asked = netlink.dump(question, |_, content| over = rtnetlink::read_way(content));
    if asked.is_ok() && over == Some(parent.index) {
        return Ok(());
    }
    let reason = format!(
        "cannot lead to {address}: this host does not reach that address over {}; give the host an \
         address of the same network there, or publish no ports",
        parent.name
    );
    Err(Problem::refused(format!("port {port}"), reason))
}

impl Inside {
    /// Gives the interface its addresses and routes, in the network namespace that the process is
    /// in.
    pub(super) fn configure(self) -> Result<(), Problem> {
        let settings = Both::open()?;
        if let Some(v6) = settings.v6.as_ref().filter(|_| self.has_v6) {
            // The job has said what its address is.
            v6.set(TASK_END, "accept_ra", "0")?;
            v6.set(TASK_END, "accept_dad", "0")?;
        }
        let mut netlink = open_netlink()?;
        let index = find(&mut netlink, rtnetlink::link_named(TASK_END)).at(TASK_END)?.index;
        let addresses = self.addresses.iter().map(|it| it.give_to(index));
        let routes = self.gateways.iter().map(|it| rtnetlink::default_route(index, *it));
        let up = std::iter::once(rtnetlink::set_up(index));
        let messages: Vec<Message> = addresses.chain(up).chain(routes).collect();
        netlink.request(messages).at(TASK_END)?;
        let own: Vec<Ipv6Addr> = self.addresses.iter().filter_map(|it| it.v6()).collect();
        wait_until_it_works(&mut netlink, index, own.iter()).at(TASK_END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        Known {
            index: 7,
            name: "br0".into(),
            mtu: 1500,
            works: true,
            is_up: true,
            kind: "bridge".into(),
        }
    }

    fn subnet(text: &str) -> Subnet {
        let (address, bits) = text.split_once('/').unwrap();
        Subnet { address: address.parse().unwrap(), bits: bits.parse().unwrap() }
    }

    #[test]
    fn prefix_and_gateway_follow_from_the_bridge() {
        let own = [subnet("192.0.2.1/24"), subnet("2001:db8:5::1/64")];
        let router: IpAddr = "192.0.2.254".parse().unwrap();
        let place = |text: &str, bits, routers: &[IpAddr]| {
            place(text.parse().unwrap(), bits, &own, routers, &known())
                .map(|(subnet, gateway)| (subnet.bits, gateway.map(|it| it.to_string())))
                .map_err(|problem| format!("{problem:?}"))
        };
        let via = |text: &str| Some(text.to_owned());
        assert_eq!(place("192.0.2.9", None, &[]), Ok((24, via("192.0.2.1"))));
        assert_eq!(place("192.0.2.9", None, &[router]), Ok((24, via("192.0.2.254"))));
        // A router outside of the task's network would not be taken by the kernel.
        assert_eq!(place("192.0.2.9", Some(28), &[router]), Ok((28, via("192.0.2.1"))));
        assert_eq!(place("198.51.100.9", Some(24), &[router]), Ok((24, None)));
        assert_eq!(place("192.0.2.254", None, &[router]), Ok((24, None)));
        assert_eq!(place("2001:db8:5::9", None, &[router]), Ok((64, via("2001:db8:5::1"))));
        let refused = place("198.51.100.9", None, &[]).unwrap_err();
        assert!(refused.contains("198.51.100.9/24"), "{refused}");
        let refused = place("192.0.2.1", None, &[]).unwrap_err();
        assert!(refused.contains("host's own address on br0"), "{refused}");
    }
}
