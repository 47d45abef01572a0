//! Links and routes of the host (rtnetlink(7)): looking, and deleting links of ours.
//!
//! Trusts the kernel. Never makes or changes a link: launchers do.

use std::io;
use std::net::IpAddr;

use kernel::layout::POOL_METRIC;
use kernel::netlink::{DUMP, Failure, Message, Socket, attributes};
use nix::sys::socket::SockProtocol;
use proto::limits::LINK_NAME_MAX;
use proto::link::{BRIDGE_PORT_PREFIX, LINK_PREFIX};

/// Types of messages (linux/rtnetlink.h).
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;
/// Bytes of struct ifinfomsg and struct rtmsg.
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
/// Attributes of a link and of a route.
const LINK_NAME: u16 = 3;
const LINK_GROUP: u16 = 27;
const DESTINATION: u16 = 1;
const OUTGOING_LINK: u16 = 4;
const GATEWAY: u16 = 5;
const PRIORITY: u16 = 6;
/// IFLA_ALT_IFNAME.
const LINK_OTHER_NAME: u16 = 53;
/// RTN_LOCAL, the type of a route to the host itself.
const LOCAL: u8 = 2;

/// A link of ours: its index, its name and its interface group.
pub(crate) struct OwnLink {
    index: u32,
    pub(crate) name: String,
    pub(crate) group: u32,
}

/// A socket for questions about the host.
pub(crate) fn open() -> io::Result<Socket> {
    Socket::open(SockProtocol::NetlinkRoute)
}

/// The host's ends of all tasks' links.
pub(crate) fn own_links(socket: &mut Socket) -> Result<Vec<OwnLink>, Failure> {
    let mut links = Vec::new();
    socket.dump(Message::new(GET_LINK, DUMP, &[0; LINK_HEADER]), |_, content| {
        let index = content.get(4..).and_then(number);
        let of_link = || attributes(content.get(LINK_HEADER..).unwrap_or_default());
        let find = |wanted| of_link().find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let name = find(LINK_NAME);
        let name =
            name.and_then(|name| std::str::from_utf8(name).ok()).map(|n| n.trim_end_matches('\0'));
        if let (Some(index), Some(name)) = (index, name)
            && is_own(name)
        {
            let group = find(LINK_GROUP).and_then(number).unwrap_or(0);
            links.push(OwnLink { index, name: name.to_owned(), group });
        }
    })?;
    Ok(links)
}

/// Addresses with lengths of prefixes.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Where the host has addresses and routes, but for those of tasks. An address is a route as
    /// well, of the local table.
    pub(crate) foreign: Vec<(IpAddr, u8)>,
    /// Pools that tasks have had since the host was booted.
    pub(crate) pools: Vec<(IpAddr, u8)>,
}

/// All routes of the host.
pub(crate) fn routes(socket: &mut Socket) -> Result<Routes, Failure> {
    let own: Vec<u32> = own_links(socket)?.into_iter().map(|link| link.index).collect();
    let mut routes = Routes::default();
    socket.dump(Message::new(GET_ROUTE, DUMP, &[0; ROUTE_HEADER]), |_, content| {
        let Some(&[_, length, ..]) = content.first_chunk::<ROUTE_HEADER>() else { return };
        let (mut to, mut link, mut metric) = (None, None, None);
        for (kind, value) in attributes(content.get(ROUTE_HEADER..).unwrap_or_default()) {
            match kind {
                DESTINATION => to = address(value),
                OUTGOING_LINK => link = number(value),
                PRIORITY => metric = number(value),
                _ => {}
            }
        }
        let Some(to) = to else { return };
        if metric == Some(POOL_METRIC) {
            routes.pools.push((to, length));
        } else if !link.is_some_and(|link| own.contains(&link)) {
            routes.foreign.push((to, length));
        }
    })?;
    Ok(routes)
}

/// Whether a name is one that tasks' links have, and nobody else's by chance.
fn is_own(name: &str) -> bool {
    let digits = [LINK_PREFIX, BRIDGE_PORT_PREFIX].iter().find_map(|it| name.strip_prefix(*it));
    let digits = digits.unwrap_or_default();
    digits.len() == 12 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Deletes a link by its name, and with it the other end. Returns when its name and its routes are
/// free; one that is gone is fine.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let message = Message::new(DELETE_LINK, 0, &[0; LINK_HEADER]).put_text(LINK_NAME, name);
    match socket.request(vec![message]) {
        Err(failure) if failure.error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => Ok(other?),
    }
}

/// The number of the link with this name, which may be its second one.
pub(crate) fn index(socket: &mut Socket, name: &str) -> Option<u32> {
    let kind = if name.len() > LINK_NAME_MAX { LINK_OTHER_NAME } else { LINK_NAME };
    let question = Message::new(GET_LINK, 0, &[0; LINK_HEADER]).put_text(kind, name);
    let mut found = None;
    let read = |_, content: &[u8]| found = content.get(4..).and_then(number);
    socket.dump(question, read).ok().and(found)
}

/// Where a packet of the host's own to an address goes.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// To the host itself.
    pub(crate) is_local: bool,
    /// Over this link; `None` when there is no route, or a router on it.
    pub(crate) link: Option<u32>,
}

/// Asks the kernel for the way to an address.
pub(crate) fn way(socket: &mut Socket, to: IpAddr) -> Way {
    let (family, bytes) = match to {
        IpAddr::V4(to) => (2, to.octets().to_vec()),
        IpAddr::V6(to) => (10, to.octets().to_vec()),
    };
    let mut header = [0; ROUTE_HEADER];
    header[..2].copy_from_slice(&[family, if to.is_ipv4() { 32 } else { 128 }]);
    let question = Message::new(GET_ROUTE, 0, &header).put(DESTINATION, bytes);
    let mut way = Way::default();
    let read = |_, content: &[u8]| {
        way.is_local = content.get(7) == Some(&LOCAL);
        let mut has_router = false;
        for (kind, value) in attributes(content.get(ROUTE_HEADER..).unwrap_or_default()) {
            match kind {
                OUTGOING_LINK => way.link = number(value),
                GATEWAY => has_router = true,
                _ => {}
            }
        }
        way.link = way.link.filter(|_| !has_router);
    };
    let asked = socket.dump(question, read);
    // An error is the kernel's "no route".
    asked.map(|()| way).unwrap_or_default()
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}
