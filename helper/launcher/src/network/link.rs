//! The link between the host and a task with a network of its own: a veth with one address of each
//! family on both ends and a route to exactly the task's.
//!
//! The host's side is changed through a netlink socket and directories that were opened in the
//! host's network namespace, the task's side from inside. Trusts the plan. Never removes a link of
//! another name; the link itself goes with the task's namespace.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel::layout::POOL_METRIC;
use kernel::netlink::{Message, Socket};
use nix::fcntl::OFlag;
use nix::sys::socket::SockProtocol;
use proto::link::Link;
use proto::name::MachineName;

use super::rtnetlink::{self, End, Known};
use super::settings::Both;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Name of the task's end.
pub(super) const TASK_END: &str = "host0";
/// The host's address on each link, by which tasks find it (link-local, so it may be the same).
pub(super) const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Of the routes to `[::1]`: two links cannot have the same.
const LOOPBACK_METRIC: u32 = 1000;
/// IPv6 needs the first, veth takes at most the second.
const MTU: std::ops::RangeInclusive<u32> = 1280..=65_535;
/// The kernel takes less than a millisecond, or up to a second where it has just looked at links.
const WAIT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_micros(100);
/// Of a link without a better one.
const ETHERNET_MTU: u32 = 1500;

/// The host's side.
pub(super) struct Host {
    netlink: Socket,
    settings: Both,
}

impl Host {
    /// Takes hold of the network namespace that the process is in.
    pub(super) fn open() -> Result<Self, Problem> {
        Ok(Self { netlink: open_netlink()?, settings: Both::open()? })
    }

    /// Sees to it that the host forwards packets of both families.
    pub(super) fn check_forwarding(&mut self, enable: bool) -> Result<(), Problem> {
        self.settings.check_forwarding(&mut self.netlink, enable, true)
    }

    /// The socket and the settings of the host's network namespace.
    pub(super) fn parts(&mut self) -> (&mut Socket, &Both) {
        (&mut self.netlink, &self.settings)
    }

    /// Checks that the host can carry the link, and sees to it that the host forwards packets.
    pub(super) fn check(&mut self, link: &Link, enable_forwarding: bool) -> Result<(), Problem> {
        if link.v6.is_some() && self.settings.v6.is_none() {
            let reason = "the kernel of this host has none (/proc/sys/net/ipv6 is missing); \
                          restart nomad-nspawn-helper.service";
            return Err(Problem::refused("IPv6 of the task", reason));
        }
        let has_v6 = link.v6.is_some();
        self.settings.check_forwarding(&mut self.netlink, enable_forwarding, has_v6)
    }

    /// Makes the link between the host and the network namespace that the process is in now.
    pub(super) fn connect(&mut self, link: &Link, machine: &MachineName) -> Result<(), Problem> {
        let name = link.name.to_string();
        self.create(&name, link)?;
        let index = self.configure_host_end(&name, link, machine)?;
        configure_task_end(link)?;
        let own = link.v6.map(|v6| [GATEWAY, v6.gateway]);
        wait_until_it_works(&mut self.netlink, index, own.iter().flatten()).at(name)
    }

    fn create(&mut self, name: &str, link: &Link) -> Result<(), Problem> {
        let namespace = own_namespace()?;
        let group = link.zone.as_ref().map_or(0, |zone| zone.group);
        let host = End { name, mac: link.host_mac(), group };
        let task = End { name: TASK_END, mac: link.task_mac(), group: 0 };
        let request = rtnetlink::create_link(&host, &task, self.mtu()?, namespace.as_fd());
        let object = format!("link {name}");
        match self.netlink.request(vec![request.clone()]) {
            Err(failure) if failure.error.raw_os_error() == Some(libc::EEXIST) => {
                // Of an earlier run: a link outlives its task's last process by some 30 ms, and
                // one whose start was killed may have lost its namespace or not.
                delete(&mut self.netlink, name).at(&object)?;
                self.netlink.request(vec![request]).at(object)
            }
            result => result.at(object),
        }
    }

    fn configure_host_end(
        &mut self,
        name: &str,
        link: &Link,
        machine: &MachineName,
    ) -> Result<u32, Problem> {
        // Before it is up: from then on the task's packets arrive.
        self.set_host_end(name, link)?;
        let object = format!("link {name}");
        let index = find(&mut self.netlink, rtnetlink::link_named(name)).at(&object)?.index;
        let v4 = &link.v4;
        let mut messages = vec![
            rtnetlink::unreachable(v4.pool.into(), v4.prefix, POOL_METRIC),
            rtnetlink::address(index, v4.gateway.into(), v4.task.into()),
            rtnetlink::set_up(index),
        ];
        if let Some(v6) = &link.v6 {
            messages.extend([
                rtnetlink::unreachable(v6.pool.into(), v6.prefix, POOL_METRIC),
                rtnetlink::link_local(index, GATEWAY),
                rtnetlink::address(index, v6.gateway.into(), v6.gateway.into()),
                // A peer's address makes the wrong one while the link is down.
                rtnetlink::route_to(index, v6.task.into()),
                rtnetlink::local_route(index, LOOPBACK_METRIC.saturating_add(index)),
            ]);
        }
        // The last, because it may fail: the one of an earlier run may still be there.
        messages.push(rtnetlink::add_name(index, machine.as_str()));
        let last = messages.len() - 1;
        match self.netlink.request(messages) {
            Err(failure) if failure.message == last => {
                eprintln!("{object} has no second name {machine}: {}", failure.error);
            }
            result => result.at(object)?,
        }
        Ok(index)
    }

    fn set_host_end(&self, name: &str, link: &Link) -> Result<(), Problem> {
        let Both { v4, v6 } = &self.settings;
        // A source other than the task's comes over no route here.
        v4.set(name, "rp_filter", "1")?;
        v4.set(name, "forwarding", "1")?;
        if !link.ports.is_empty() {
            // Lets connections to 127.0.0.1 leave over this link. Packets to it that a task sends
            // would arrive as well: the packet filter drops them (chain guard).
            v4.set(name, "route_localnet", "1")?;
        }
        let Some(v6) = v6 else { return Ok(()) };
        // A router advertisement of the task's would become the host's default route.
        v6.set(name, "accept_ra", "0")?;
        // No address but those given.
        v6.set(name, "addr_gen_mode", "1")?;
        v6.set(name, "accept_dad", "0")?;
        v6.set(name, "disable_ipv6", if link.v6.is_some() { "0" } else { "1" })
    }

    /// As large as what the uplink carries, so that nothing must be split on the way.
    fn mtu(&mut self) -> Result<u32, Problem> {
        for question in rtnetlink::all_routes() {
            let mut routes = Vec::new();
            let read = |_, content: &[u8]| routes.extend(rtnetlink::read_default_route(content));
            self.netlink.dump(question, read).at("routes of the host")?;
            let Some((_, uplink)) = routes.into_iter().min() else { continue };
            let found = find(&mut self.netlink, rtnetlink::link_numbered(uplink));
            let mtu = found.at("link of the default route")?.mtu;
            return Ok(mtu.clamp(*MTU.start(), *MTU.end()));
        }
        Ok(ETHERNET_MTU)
    }
}

/// The network namespace that the process is in.
pub(super) fn own_namespace() -> Result<OwnedFd, Problem> {
    let path = OwnPath::constant("/proc/thread-self/ns/net");
    path.open(OFlag::O_RDONLY).at(&path)
}

fn configure_task_end(link: &Link) -> Result<(), Problem> {
    let settings = Both::open()?;
    if let Some(v6) = &settings.v6 {
        v6.set(TASK_END, "accept_ra", "0")?;
        v6.set(TASK_END, "accept_dad", "0")?;
        v6.set(TASK_END, "disable_ipv6", if link.v6.is_some() { "0" } else { "1" })?;
    }
    let mut netlink = open_netlink()?;
    let index = find(&mut netlink, rtnetlink::link_named(TASK_END)).at(TASK_END)?.index;
    let (task, gateway): (Ipv4Addr, Ipv4Addr) = (link.v4.task, link.v4.gateway);
    let mut messages = vec![
        rtnetlink::address(index, task.into(), gateway.into()),
        rtnetlink::set_up(index),
        rtnetlink::default_route(index, gateway.into()),
    ];
    if let Some(v6) = &link.v6 {
        messages.extend([
            rtnetlink::address(index, v6.task.into(), v6.task.into()),
            rtnetlink::default_route(index, GATEWAY.into()),
        ]);
    }
    netlink.request(messages).at(TASK_END)?;
    let own = link.v6.map(|v6| v6.task);
    wait_until_it_works(&mut netlink, index, own.iter()).at(TASK_END)
}

/// Waits for what threads of the kernel's do when a link is up on both ends: without it, the first
/// packet would be lost, and be repeated a second later.
///
/// The end that was set up first sends nothing until the kernel has noticed the other (linkwatch;
/// from Linux 6.8 on the question alone sees to it). An IPv6 address takes packets when its turn
/// for the detection of duplicates has come, even with none to be done (addrconf_dad_work()).
pub(super) fn wait_until_it_works<'a>(
    netlink: &mut Socket,
    index: u32,
    own: impl Iterator<Item = &'a Ipv6Addr>,
) -> io::Result<()> {
    let works = |content: &[u8]| Known::read(content).is_some_and(|link| link.works);
    wait(netlink, &rtnetlink::link_numbered(index), works)?;
    for address in own {
        wait(netlink, &rtnetlink::way_to(index, *address), rtnetlink::is_local)?;
    }
    Ok(())
}

fn wait(netlink: &mut Socket, question: &Message, is_so: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let mut found = false;
        match netlink.dump(question.clone(), |_, content| found = is_so(content)) {
            Ok(()) if found => return Ok(()),
            // There is no route yet, or that of the pool.
            Err(failure) if !is_unreachable(&failure.error) => return Err(failure.error),
            _ if begun.elapsed() > WAIT => return Err(io::ErrorKind::TimedOut.into()),
            _ => sleep(PAUSE),
        }
    }
}

/// Whether the kernel has no route.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
}

pub(super) fn open_netlink() -> Result<Socket, Problem> {
    Socket::open(SockProtocol::NetlinkRoute).at("netlink socket")
}

/// The kernel's report of one link.
pub(super) fn find(netlink: &mut Socket, question: Message) -> io::Result<Known> {
    let mut found = None;
    netlink.dump(question, |_, content| found = Known::read(content))?;
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

pub(super) fn delete(netlink: &mut Socket, name: &str) -> io::Result<()> {
    match netlink.request(vec![rtnetlink::delete_link(name)]) {
        // It has gone by itself meanwhile.
        Err(failure) if failure.error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => Ok(result?),
    }
}
