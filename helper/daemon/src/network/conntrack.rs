//! The kernel's entries for connections (linux/netfilter/nfnetlink_conntrack.h) that would lead
//! packets past the table.
//!
//! A sender of UDP that never pauses renews its entry with each packet. It would reach the address of
//! a task that has ended though the port leads elsewhere, or nobody though the port leads to a task
//! now. To be called after the table has changed, or a new entry would follow at once. Trusts the
//! kernel; touches no other entry.

use std::net::{IpAddr, SocketAddr};

use kernel::netlink::{DUMP, Failure, Message, Socket, attributes};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::expression::{IPV4, IPV6};

/// IPCTNL_MSG_CT_GET and …_DELETE, in the subsystem NFNL_SUBSYS_CTNETLINK.
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
/// Attributes of an entry (CTA_…): the addresses of a packet there, of one back.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
/// CTA_TUPLE_IP, and in it source and destination (CTA_IP_…).
const TUPLE_IP: u16 = 1;
const SOURCE4: u16 = 1;
const DESTINATION4: u16 = 2;
const SOURCE6: u16 = 3;
const DESTINATION6: u16 = 4;
/// CTA_TUPLE_PROTO, and in it (CTA_PROTO_…) protocol and destination port.
const TUPLE_PROTO: u16 = 2;
const PROTOCOL: u16 = 1;
const DESTINATION_PORT: u16 = 3;
const UDP: u8 = 17;
/// CTA_FILTER_ORIG_FLAGS and …_REPLY_FLAGS, and their flags: which parts of an address must match.
const FILTER_ORIG: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_SOURCE: u32 = 1;
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// Entries that are deleted for one look at the list, and looks: senders with false addresses can
/// make as many entries as the kernel allows.
const AT_ONCE: usize = 4096;
const ROUNDS: usize = 64;

/// More addresses are looked for in the list: the kernel goes through it once for each message.
const BY_FILTER: usize = 8;

/// Entries to delete.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// Those whose replies come from this address of a task.
    RepliesFrom(IpAddr),
    /// Those that this address of a task has begun.
    From(IpAddr),
    /// Those of UDP packets that were sent to this address and port of the host.
    UdpTo(SocketAddr),
}

impl Wanted {
    fn is_ipv4(self) -> bool {
        match self {
            Self::RepliesFrom(address) | Self::From(address) => address.is_ipv4(),
            Self::UdpTo(address) => address.is_ipv4(),
        }
    }

    /// What of an entry says that it is wanted.
    fn describe(self, message: Message) -> Message {
        match self {
            Self::RepliesFrom(address) => message.nest(TUPLE_REPLY, |reply| {
                reply.nest(TUPLE_IP, |ip| put(ip, address, SOURCE4, SOURCE6))
            }),
            Self::From(address) => message.nest(TUPLE_ORIG, |there| {
                there.nest(TUPLE_IP, |ip| put(ip, address, SOURCE4, SOURCE6))
            }),
            Self::UdpTo(to) => message.nest(TUPLE_ORIG, |there| {
                let there = there.nest(TUPLE_IP, |ip| put(ip, to.ip(), DESTINATION4, DESTINATION6));
                there.nest(TUPLE_PROTO, |part| {
                    part.put(PROTOCOL, [UDP]).put(DESTINATION_PORT, to.port().to_be_bytes())
                })
            }),
        }
    }

    /// Which parts of [`Self::describe`] count: in the addresses of a packet there, of one back.
    fn flags(self) -> [u32; 2] {
        match self {
            Self::RepliesFrom(_) => [0, BY_SOURCE],
            Self::From(_) => [BY_SOURCE, 0],
            Self::UdpTo(_) => [BY_DESTINATION | BY_PROTOCOL | BY_DESTINATION_PORT, 0],
        }
    }

    fn is(self, entry: &[u8]) -> bool {
        match self {
            Self::RepliesFrom(address) => reply_source(entry) == Some(address),
            Self::From(address) => source(entry, TUPLE_ORIG) == Some(address),
            Self::UdpTo(to) => udp_destination(entry) == Some(to),
        }
    }
}

fn put(message: Message, address: IpAddr, kind4: u16, kind6: u16) -> Message {
    match address {
        IpAddr::V4(v4) => message.put(kind4, v4.octets()),
        IpAddr::V6(v6) => message.put(kind6, v6.octets()),
    }
}

/// Deletes entries. Reads the kernel's whole list where it cannot choose by itself, which may be
/// long: never on the daemon's own thread.
///
/// # Errors
/// The kernel's.
pub(crate) fn delete(all: &[Wanted]) -> Result<(), Failure> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter)
        .map_err(|error| Failure { message: 0, error })?;
    let (v4, v6): (Vec<Wanted>, Vec<Wanted>) = all.iter().partition(|wanted| wanted.is_ipv4());
    if v4.len() > BY_FILTER {
        delete_by_list(&mut socket, IPV4, &v4)?;
        return delete_by_list(&mut socket, IPV6, &v6);
    }
    for (at, wanted) in v4.iter().enumerate() {
        match delete_by_filter(&mut socket, *wanted) {
            // Before Linux 6.12, or a release near it, the filter is not read, and what is left is
            // an incomplete entry.
            Err(failure) if is(&failure, &[Errno::EINVAL, Errno::EOPNOTSUPP]) => {
                delete_by_list(&mut socket, IPV4, v4.get(at..).unwrap_or_default())?;
                break;
            }
            other => other?,
        }
    }
    delete_by_list(&mut socket, IPV6, &v6)
}

/// Lets the kernel choose the entries: one message. Never for IPv6: there it compares the wrong way
/// round, and deletes the entries of all other addresses (seen on Linux 6.18).
pub(super) fn delete_by_filter(socket: &mut Socket, wanted: Wanted) -> Result<(), Failure> {
    let [there, back] = wanted.flags();
    // Version 1 of the header: the family counts, and the kernel deletes no other's.
    let message =
        wanted.describe(Message::new(DELETE, 0, &[IPV4, 1, 0, 0])).nest(FILTER, |filter| {
            filter.put(FILTER_ORIG, there.to_ne_bytes()).put(FILTER_REPLY, back.to_ne_bytes())
        });
    ignore_gone(socket.request(vec![message]))
}

/// Reads all entries of the family, and deletes those that match one.
pub(super) fn delete_by_list(
    socket: &mut Socket,
    family: u8,
    all: &[Wanted],
) -> Result<(), Failure> {
    let header = [family, 0, 0, 0];
    for _ in 0..ROUNDS {
        let mut found = Vec::new();
        if !all.is_empty() {
            socket.dump(Message::new(GET, DUMP, &header), |_, content| {
                let entry = content.get(header.len()..).unwrap_or_default();
                if found.len() < AT_ONCE && all.iter().any(|wanted| wanted.is(entry)) {
                    let named = |kind: &u16| [TUPLE_ORIG, ID, ZONE].contains(kind);
                    let parts = attributes(entry).filter(|(kind, _)| named(kind));
                    let message = Message::new(DELETE, 0, &header);
                    found.push(parts.fold(message, |message, (kind, it)| message.put(kind, it)));
                }
            })?;
        }
        let is_last = found.len() < AT_ONCE;
        found.into_iter().try_for_each(|message| ignore_gone(socket.request(vec![message])))?;
        if is_last {
            break;
        }
    }
    Ok(())
}

/// The address from which replies come.
pub(super) fn reply_source(entry: &[u8]) -> Option<IpAddr> {
    source(entry, TUPLE_REPLY)
}

fn source(entry: &[u8], way: u16) -> Option<IpAddr> {
    address(value(value(entry, way)?, TUPLE_IP)?, SOURCE4, SOURCE6)
}

/// Where a packet of UDP was sent to.
fn udp_destination(entry: &[u8]) -> Option<SocketAddr> {
    let there = value(entry, TUPLE_ORIG)?;
    let ports = value(there, TUPLE_PROTO)?;
    let port = value(ports, DESTINATION_PORT)?.first_chunk().copied().map(u16::from_be_bytes)?;
    let to = address(value(there, TUPLE_IP)?, DESTINATION4, DESTINATION6)?;
    (value(ports, PROTOCOL)? == [UDP]).then_some(SocketAddr::new(to, port))
}

fn value(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

fn address(bytes: &[u8], kind4: u16, kind6: u16) -> Option<IpAddr> {
    let v4 = || Some(<[u8; 4]>::try_from(value(bytes, kind4)?).ok()?.into());
    let v6 = || Some(<[u8; 16]>::try_from(value(bytes, kind6)?).ok()?.into());
    v4().or_else(v6)
}

fn ignore_gone(result: Result<(), Failure>) -> Result<(), Failure> {
    match result {
        Err(failure) if is(&failure, &[Errno::ENOENT]) => Ok(()),
        other => other,
    }
}

fn is(failure: &Failure, errors: &[Errno]) -> bool {
    errors.iter().any(|errno| failure.error.raw_os_error() == Some(*errno as i32))
}
