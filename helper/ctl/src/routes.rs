//! Routes of the host, and the pools of tasks' addresses among them (rtnetlink(7)). Trusts the
//! kernel; changes nothing.

use std::fs;
use std::net::IpAddr;

use kernel::layout::POOL_METRIC;
use kernel::netlink::{DUMP, Message, Socket, attributes};
use nix::sys::socket::SockProtocol;
use proto::link::LINK_PREFIX;

/// RTM_GETROUTE, and bytes of struct rtmsg (linux/rtnetlink.h).
const GET_ROUTE: u16 = 26;
const HEADER: usize = 12;
/// Attributes: RTA_DST, RTA_OIF, RTA_PRIORITY.
const DESTINATION: u16 = 1;
const LINK: u16 = 4;
const METRIC: u16 = 6;

/// Addresses with a common beginning of so many bits.
pub(super) type Prefix = (IpAddr, u8);

/// A route; an address of the host is one as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `None`: a default route.
    pub(super) to: Option<Prefix>,
    /// Name of the link, where it leads over one.
    pub(super) link: Option<String>,
    metric: u32,
}

impl Route {
    #[cfg(test)]
    pub(super) fn new(to: Option<Prefix>, link: Option<&str>) -> Self {
        Self { to, link: link.map(str::to_owned), metric: 0 }
    }

    /// Whether it is that of a pool, which leads nowhere.
    fn is_pool(&self) -> bool {
        self.metric == POOL_METRIC
    }

    /// Whether it is not the project's own.
    pub(super) fn is_foreign(&self) -> bool {
        let of_task = |link: &String| link.starts_with(LINK_PREFIX);
        !self.is_pool() && !self.link.as_ref().is_some_and(of_task)
    }
}

/// All of them.
///
/// # Errors
/// The kernel's.
pub(super) fn all() -> Result<Vec<Route>, String> {
    let failed = |e: std::io::Error| format!("routes of the host: {e}");
    let links = link_names();
    let mut socket = Socket::open(SockProtocol::NetlinkRoute).map_err(failed)?;
    let mut routes = Vec::new();
    let each = |_, content: &[u8]| routes.extend(read(content, &links));
    let done = socket.dump(Message::new(GET_ROUTE, DUMP, &[0; HEADER]), each);
    done.map_err(|failure| failed(failure.into()))?;
    Ok(routes)
}

fn read(content: &[u8], links: &[(u32, String)]) -> Option<Route> {
    let [_, bits, ..] = *content.first_chunk::<HEADER>()?;
    let (mut to, mut link, mut metric) = (None, None, 0);
    for (kind, value) in attributes(content.get(HEADER..)?) {
        match kind {
            DESTINATION => to = address(value).map(|address| (address, bits)),
            LINK => link = number(value),
            METRIC => metric = number(value).unwrap_or(0),
            _ => {}
        }
    }
    let named = |index| links.iter().find(|(number, _)| *number == index);
    let link = link.and_then(named).map(|(_, name)| name.clone());
    Some(Route { to, link, metric })
}

/// Numbers and names of the links.
fn link_names() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let link = |entry: fs::DirEntry| {
        let index = fs::read_to_string(entry.path().join("ifindex")).ok()?;
        Some((index.trim().parse().ok()?, entry.file_name().into_string().ok()?))
    };
    entries.filter_map(link).collect()
}

/// The pools from which tasks have had addresses since the host was booted.
pub(super) fn pools(routes: &[Route]) -> Vec<Prefix> {
    routes.iter().filter(|route| route.is_pool()).filter_map(|route| route.to).collect()
}

/// The link over which the host's default route leads.
pub(super) fn uplink(routes: &[Route]) -> Option<&str> {
    let mut defaults = routes.iter().filter(|route| route.to.is_none());
    defaults.find_map(|route| route.link.as_deref())
}

/// First and last address of a prefix.
pub(super) fn ends(address: IpAddr, bits: u8) -> (IpAddr, IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            let rest = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            let [first, last] = [v4.to_bits() & !rest, v4.to_bits() | rest];
            (IpAddr::V4(first.into()), IpAddr::V4(last.into()))
        }
        IpAddr::V6(v6) => {
            let rest = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
            let [first, last] = [v6.to_bits() & !rest, v6.to_bits() | rest];
            (IpAddr::V6(first.into()), IpAddr::V6(last.into()))
        }
    }
}

/// Whether two prefixes have addresses in common.
pub(super) fn overlap(one: Prefix, other: Prefix) -> bool {
    let ((a, b), (c, d)) = (ends(one.0, one.1), ends(other.0, other.1));
    a.is_ipv4() == c.is_ipv4() && a <= d && c <= b
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').unwrap();
        (address.parse().unwrap(), bits.parse().unwrap())
    }

    #[test]
    fn prefixes_overlap_where_one_is_in_the_other() {
        for (one, other, expected) in [
            ("10.0.0.0/8", "10.64.0.0/20", true),
            ("10.64.15.255/32", "10.64.0.0/20", true),
            ("10.64.16.0/20", "10.64.0.0/20", false),
            ("0.0.0.0/0", "10.64.0.0/20", true),
            ("::/0", "10.64.0.0/20", false),
            ("fd00::/8", "fd64::/64", true),
            ("fd64:0:0:1::/64", "fd64::/64", false),
        ] {
            assert_eq!(overlap(prefix(one), prefix(other)), expected, "{one} {other}");
            assert_eq!(overlap(prefix(other), prefix(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn the_kernels_routes_are_read() {
        let routes = all().unwrap();
        let loopback = Some(prefix("127.0.0.1/32"));
        let found = routes.iter().find(|route| route.to == loopback);
        let found = found.unwrap_or_else(|| panic!("{routes:?}"));
        assert!(found.link.as_deref() == Some("lo") && found.is_foreign());
    }

    #[test]
    fn what_leads_to_tasks_is_the_projects_own() {
        let route = |link: Option<&str>, metric| Route {
            to: Some(prefix("10.64.0.0/20")),
            link: link.map(str::to_owned),
            metric,
        };
        let routes = [route(None, POOL_METRIC), route(Some("nv-0123456789ab"), 0)];
        assert!(routes.iter().all(|route| !route.is_foreign()));
        assert_eq!(pools(&routes), [prefix("10.64.0.0/20")]);
        assert!(route(Some("tun0"), 0).is_foreign());
    }
}
