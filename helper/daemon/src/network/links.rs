//! Links and routes of the host (rtnetlink(7)): looking, and deleting links of ours.
//!
//! Trusts the kernel. Never makes or changes a link: launchers do.

use std::io;
use std::net::IpAddr;

use kernel::layout::POOL_METRIC;
use kernel::netlink::{DUMP, Failure, Message, Socket, attributes};
use nix::sys::socket::SockProtocol;
use proto::link::LINK_PREFIX;

/// Types of messages (linux/rtnetlink.h).
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;
/// Bytes of struct ifinfomsg and struct rtmsg.
const LINK_HEADER: usize = 16;
const ROUTE_HEADER: usize = 12;
/// Attributes of a link and of a route.
const LINK_NAME: u16 = 3;
const DESTINATION: u16 = 1;
const OUTGOING_LINK: u16 = 4;
const PRIORITY: u16 = 6;

/// A link of ours: its index and its name.
pub(crate) struct OwnLink {
    index: u32,
    pub(crate) name: String,
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
        let mut of_link = attributes(content.get(LINK_HEADER..).unwrap_or_default());
        let name = of_link.find(|(kind, _)| *kind == LINK_NAME).map(|(_, name)| name);
        let name =
            name.and_then(|name| std::str::from_utf8(name).ok()).map(|n| n.trim_end_matches('\0'));
        if let (Some(index), Some(name)) = (index, name)
            && is_own(name)
        {
            links.push(OwnLink { index, name: name.to_owned() });
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
    let digits = name.strip_prefix(LINK_PREFIX).unwrap_or_default();
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

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}
