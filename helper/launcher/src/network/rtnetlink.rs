//! Messages of rtnetlink(7) about links, addresses and routes.
//!
//! Trusts names and addresses. Never sends: see [`super::link`].

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use kernel::netlink::{CREATE, DUMP, EXCLUSIVE, Message, REPLACE, attributes};

// Types of messages and attributes: linux/rtnetlink.h, if_link.h, if_addr.h, veth.h.
const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_LINK_PROPERTY: u16 = 108;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_STATE: u16 = 16;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 28;
const LINK_PROPERTIES: u16 = 52;
const LINK_OTHER_NAME: u16 = 53;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

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
/// Bytes of struct rtmsg.
const ROUTE_HEADER: usize = 12;
/// IFF_UP of netdevice(7).
const UP: u32 = 1;
/// IF_OPER_UP (RFC 2863).
const WORKS: u8 = 6;

/// A MAC address.
pub(super) type Mac = [u8; 6];

/// One end of a link to be made.
pub(super) struct End<'a> {
    pub(super) name: &'a str,
    pub(super) mac: Mac,
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
            .put(LINK_ADDRESS, end.mac)
            .put_text(LINK_NAME, end.name)
            .put(LINK_MTU, mtu.to_ne_bytes())
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
}

impl Known {
    pub(super) fn read(content: &[u8]) -> Option<Self> {
        let (header, rest) = content.split_first_chunk::<LINK_HEADER>()?;
        let value = |kind| attributes(rest).find(|(other, _)| *other == kind).map(|(_, it)| it);
        let name = value(LINK_NAME)?.split(|byte| *byte == 0).next()?;
        Some(Self {
            index: number(header.get(4..)?)?,
            name: String::from_utf8_lossy(name).into_owned(),
            mtu: number(value(LINK_MTU)?)?,
            works: value(LINK_STATE)? == [WORKS],
        })
    }
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

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
