//! Messages of rtnetlink(7) about links, addresses and routes, and what the kernel answers.
//!
//! Trusts names and addresses. Never sends: see [`super::link`].

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use kernel::netlink::{CREATE, DUMP, EXCLUSIVE, Message, REPLACE, attributes};
use proto::link::Mac;

// Types of messages and attributes: linux/rtnetlink.h, if_link.h, if_addr.h, veth.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_LINK_PROPERTY: u16 = 108;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_PARENT: u16 = 5;
const LINK_MASTER: u16 = 10;
const LINK_STATE: u16 = 16;
const LINK_INFO: u16 = 18;
const LINK_GROUP: u16 = 27;
const LINK_NAMESPACE: u16 = 28;
const LINK_PROPERTIES: u16 = 52;
const LINK_OTHER_NAME: u16 = 53;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
/// MACVLAN_MODE_BRIDGE: tasks on one interface reach each other.
const BRIDGE_MODE: u32 = 4;

const ADDRESS_PEER: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// IFA_F_NODAD: nobody is asked whether the address is taken, so it can be used at once.
const NO_DETECTION: u8 = 2;

const ROUTE_DESTINATION: u16 = 1;
const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const ROUTE_METRIC: u16 = 6;
const ROUTE_NEXT_HOPS: u16 = 9;
const TABLE_MAIN: u8 = 254;
const TABLE_LOCAL: u8 = 255;
/// systemd-networkd 257 removes routes of other protocols when it restarts.
const PROTOCOL_KERNEL: u8 = 2;
// Kinds of routes.
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
const UNREACHABLE: u8 = 7;

const INET: u8 = 2;
const INET6: u8 = 10;

/// Bytes of struct ifinfomsg.
const LINK_HEADER: usize = 16;
/// Bytes of struct ifaddrmsg.
const ADDRESS_HEADER: usize = 8;
/// Bytes of struct rtmsg.
const ROUTE_HEADER: usize = 12;
/// IFF_UP of netdevice(7).
const UP: u32 = 1;
/// IF_OPER_UP (RFC 2863).
const WORKS: u8 = 6;

/// One end of a link to be made.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
    /// The interface group; 0 is that of every other link.
    pub(super) group: u32,
}

/// struct ifinfomsg; the flags given are set.
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, flags].map(u32::to_ne_bytes).concat()
}

/// A veth link with both ends, the second in another network namespace.
pub(super) fn create_link(
    host: &End<'_>,
    task: &End<'_>,
    mtu: u32,
    namespace: BorrowedFd<'_>,
) -> Message {
    let common = |message: Message, end: &End<'_>| {
        message
            .put(LINK_ADDRESS, end.mac.0)
            .put_text(LINK_NAME, end.name)
            .put(LINK_MTU, mtu.to_ne_bytes())
            .put(LINK_GROUP, end.group.to_ne_bytes())
    };
    let peer = |message: Message| {
        common(message.put_header(link_header(0, 0)), task)
            .put(LINK_NAMESPACE, namespace.as_raw_fd().to_ne_bytes())
    };
    let request = Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0));
    common(request, host).nest(LINK_INFO, |info| {
        info.put_text(INFO_KIND, "veth").nest(INFO_DATA, |data| data.nest(VETH_PEER, peer))
    })
}

/// A macvlan interface of the one with this number, in another network namespace.
pub(super) fn create_macvlan(task: &End<'_>, parent: u32, namespace: BorrowedFd<'_>) -> Message {
    Message::new(NEW_LINK, CREATE | EXCLUSIVE, &link_header(0, 0))
        .put(LINK_ADDRESS, task.mac.0)
        .put_text(LINK_NAME, task.name)
        .put(LINK_PARENT, parent.to_ne_bytes())
        .put(LINK_NAMESPACE, namespace.as_raw_fd().to_ne_bytes())
        .nest(LINK_INFO, |info| {
            info.put_text(INFO_KIND, "macvlan")
                .nest(INFO_DATA, |data| data.put(MACVLAN_MODE, BRIDGE_MODE.to_ne_bytes()))
        })
}

/// Makes a link a port of a bridge.
pub(super) fn set_master(index: u32, bridge: u32) -> Message {
    Message::new(NEW_LINK, 0, &link_header(index, 0)).put(LINK_MASTER, bridge.to_ne_bytes())
}

/// Removes a link.
pub(super) fn delete_link(name: &str) -> Message {
    Message::new(DELETE_LINK, 0, &link_header(0, 0)).put_text(LINK_NAME, name)
}

/// Sets a link up.
pub(super) fn set_up(index: u32) -> Message {
    Message::new(NEW_LINK, 0, &link_header(index, UP))
}

/// Gives a link a second name, which may be longer than the first.
pub(super) fn add_name(index: u32, name: &str) -> Message {
    Message::new(NEW_LINK_PROPERTY, CREATE | EXCLUSIVE, &link_header(index, 0))
        .nest(LINK_PROPERTIES, |list| list.put_text(LINK_OTHER_NAME, name))
}

/// Asks for one link by its name.
pub(super) fn link_named(name: &str) -> Message {
    Message::new(GET_LINK, 0, &link_header(0, 0)).put_text(LINK_NAME, name)
}

/// Asks for one link by its number.
pub(super) fn link_numbered(index: u32) -> Message {
    Message::new(GET_LINK, 0, &link_header(index, 0))
}

/// Asks for all links.
pub(super) fn all_links() -> Message {
    Message::new(GET_LINK, DUMP, &link_header(0, 0))
}

/// What the kernel reports of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    /// Whether the kernel sends packets over it; set up it may be long before.
    pub(super) works: bool,
    /// Whether it is set up.
    pub(super) is_up: bool,
    /// What it is, e.g. `bridge`; empty for a device.
    pub(super) kind: String,
}

impl Known {
    pub(super) fn read(content: &[u8]) -> Option<Self> {
        let (header, rest) = content.split_first_chunk::<LINK_HEADER>()?;
        let value = |kind| attributes(rest).find(|(other, _)| *other == kind).map(|(_, it)| it);
        let text = |bytes: &[u8]| {
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        };
        let info = attributes(value(LINK_INFO).unwrap_or_default());
        let kind = info.into_iter().find(|(other, _)| *other == INFO_KIND).map(|(_, it)| it);
        Some(Self {
            index: number(header.get(4..)?)?,
            name: text(value(LINK_NAME)?),
            is_up: number(header.get(8..)?)? & UP != 0,
            kind: text(kind.unwrap_or_default()),
            mtu: number(value(LINK_MTU)?)?,
            works: value(LINK_STATE)? == [WORKS],
        })
    }
}

/// An address in the network that its prefix says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subnet {
    pub(super) address: IpAddr,
    pub(super) bits: u8,
}

impl Subnet {
    /// The one that the kernel reports, where it is usable and the link's.
    pub(super) fn read(content: &[u8], index: u32) -> Option<Self> {
        // struct ifaddrmsg: family, bits, flags, scope (0: global), index.
        let (&[_, bits, _, 0, ..], rest) = content.split_first_chunk::<ADDRESS_HEADER>()? else {
            return None;
        };
        let value = |kind| attributes(rest).find(|(other, _)| *other == kind).map(|(_, it)| it);
        // Of IPv6 there is one attribute alone.
        let address =
            value(ADDRESS_LOCAL).or_else(|| value(ADDRESS_PEER)).and_then(read_address)?;
        (number(content.get(4..)?)? == index).then_some(Self { address, bits })
    }

    /// Whether another address lies in the same network.
    pub(super) fn holds(&self, other: IpAddr) -> bool {
        let number = |address| match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let ((one, family), (two, others)) = (number(self.address), number(other));
        let differ = (one ^ two).checked_shr(128 - u32::from(self.bits.min(128))).unwrap_or(0);
        family == others && differ == 0
    }

    /// Gives the address to a link.
    pub(super) fn give_to(&self, index: u32) -> Message {
        subnet_address(index, self.address, self.address, self.bits)
    }

    /// The address, where it is one of IPv6.
    pub(super) fn v6(&self) -> Option<Ipv6Addr> {
        if let IpAddr::V6(address) = self.address { Some(address) } else { None }
    }
}

/// Asks for all addresses.
pub(super) fn all_addresses() -> Message {
    Message::new(GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER])
}

/// The address of one end of a point-to-point link.
pub(super) fn address(index: u32, local: IpAddr, peer: IpAddr) -> Message {
    subnet_address(index, local, peer, if local.is_ipv4() { 32 } else { 128 })
}

/// The link-local address through which IPv6 finds the host.
pub(super) fn link_local(index: u32, local: Ipv6Addr) -> Message {
    subnet_address(index, local.into(), local.into(), 64)
}

fn subnet_address(index: u32, local: IpAddr, peer: IpAddr, prefix: u8) -> Message {
    let (family, flags) = if local.is_ipv4() { (INET, 0) } else { (INET6, NO_DETECTION) };
    // struct ifaddrmsg. Of global scope (0): masquerading takes no other as the new source.
    let header = [[family, prefix, flags, 0], index.to_ne_bytes()].concat();
    Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &header)
        .put(ADDRESS_LOCAL, bytes(local))
        .put(ADDRESS_PEER, bytes(peer))
}

/// A route to one address over a link.
pub(super) fn route_to(index: u32, address: IpAddr) -> Message {
    let length = if address.is_ipv4() { 32 } else { 128 };
    route(UNICAST, EXCLUSIVE, address, length).put(ROUTE_LINK, index.to_ne_bytes())
}

/// The default route.
pub(super) fn default_route(index: u32, gateway: IpAddr) -> Message {
    let any = if gateway.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    route(UNICAST, EXCLUSIVE, any, 0)
        .put(ROUTE_GATEWAY, bytes(gateway))
        .put(ROUTE_LINK, index.to_ne_bytes())
}

/// Has packets to `[::1]` that come over a link count as the host's own.
pub(super) fn local_route(index: u32, metric: u32) -> Message {
    route(LOCAL, EXCLUSIVE, Ipv6Addr::LOCALHOST.into(), 128)
        .put(ROUTE_LINK, index.to_ne_bytes())
        .put(ROUTE_METRIC, metric.to_ne_bytes())
}

/// Has what is sent to an address that no task has fail at once. Made by the first task, kept by
/// all others.
pub(super) fn unreachable(pool: IpAddr, prefix: u8, metric: u32) -> Message {
    route(UNREACHABLE, REPLACE, pool, prefix).put(ROUTE_METRIC, metric.to_ne_bytes())
}

fn route(kind: u8, flags: u16, destination: IpAddr, prefix: u8) -> Message {
    let family = if destination.is_ipv4() { INET } else { INET6 };
    let table = if kind == LOCAL { TABLE_LOCAL } else { TABLE_MAIN };
    // struct rtmsg, of global scope.
    let header = [family, prefix, 0, 0, table, PROTOCOL_KERNEL, 0, kind, 0, 0, 0, 0];
    let request = Message::new(NEW_ROUTE, CREATE | flags, &header);
    if prefix == 0 { request } else { request.put(ROUTE_DESTINATION, bytes(destination)) }
}

/// Asks for the route that a packet to an address takes, where it can take one over this link.
pub(super) fn way_to(index: u32, address: Ipv6Addr) -> Message {
    let mut header = [0; ROUTE_HEADER];
    header[..2].copy_from_slice(&[INET6, 128]);
    Message::new(GET_ROUTE, 0, &header)
        .put(ROUTE_DESTINATION, bytes(address.into()))
        .put(ROUTE_LINK, index.to_ne_bytes())
}

/// Asks for the route that a packet of the host's own to an address takes.
pub(super) fn way_of_the_host_to(address: IpAddr) -> Message {
    let mut header = [0; ROUTE_HEADER];
    header[..2].copy_from_slice(if address.is_ipv4() { &[INET, 32] } else { &[INET6, 128] });
    Message::new(GET_ROUTE, 0, &header).put(ROUTE_DESTINATION, bytes(address))
}

/// Whether a route leads to the own side.
pub(super) fn is_local(content: &[u8]) -> bool {
    content.get(7) == Some(&LOCAL)
}

/// Asks for all routes of a family: those of IPv4, then those of IPv6.
pub(super) fn all_routes() -> [Message; 2] {
    [INET, INET6].map(|family| {
        let mut header = [0; ROUTE_HEADER];
        header[0] = family;
        Message::new(GET_ROUTE, DUMP, &header)
    })
}

/// Metric and link of a route, where it is a default route of the main table.
pub(super) fn read_default_route(content: &[u8]) -> Option<(u32, u32)> {
    let (&[_, 0, _, _, TABLE_MAIN, _, _, UNICAST, ..], rest) =
        content.split_first_chunk::<ROUTE_HEADER>()?
    else {
        return None;
    };
    let value = |kind| attributes(rest).find(|(other, _)| *other == kind).map(|(_, it)| it);
    // Of several ways the first: struct rtnexthop has its link after four bytes.
    let link = value(ROUTE_LINK).or_else(|| value(ROUTE_NEXT_HOPS)?.get(4..))?;
    Some((value(ROUTE_METRIC).and_then(number).unwrap_or(0), number(link)?))
}

/// The router of a default route of the main table over this link.
pub(super) fn read_default_gateway(content: &[u8], index: u32) -> Option<IpAddr> {
    let (_, link) = read_default_route(content)?;
    let rest = attributes(content.get(ROUTE_HEADER..)?);
    let (_, gateway) = rest.into_iter().find(|(kind, _)| *kind == ROUTE_GATEWAY)?;
    read_address(gateway).filter(|_| link == index)
}

/// The link that a packet leaves over, where it needs no router.
pub(super) fn read_way(content: &[u8]) -> Option<u32> {
    let mut link = None;
    for (kind, value) in attributes(content.get(ROUTE_HEADER..)?) {
        match kind {
            ROUTE_GATEWAY => return None,
            ROUTE_LINK => link = number(value),
            _ => {}
        }
    }
    link
}

fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
