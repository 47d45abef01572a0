//! Whether the ports of the host that are to lead to the task are free there.
//!
//! A port counts as held while a program of the host serves on it: a listening TCP socket, or a UDP
//! socket that takes packets from everybody. An outgoing connection whose own port happens to be
//! the same does not hold it: its packets find it before any rule. Ports of other tasks are the
//! daemon's to judge. Never listens, and keeps no port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use kernel::netlink::Socket;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket,
    sockopt,
};
use proto::link::Published;

use super::holder::{self, Protocol};
use super::link::is_unreachable;
use super::rtnetlink;
use crate::step::{At, Problem};

/// Refuses what is held. Call it in the host's network namespace.
///
/// `has_v6`: whether the task has an IPv6 address, or may get one.
pub(super) fn check(ports: &[Published], has_v6: bool) -> Result<(), Problem> {
    let mut netlink = Socket::open(SockProtocol::NetlinkRoute).at("netlink socket")?;
    for Published { port, on_loopback } in ports {
        let address = port.address;
        if !is_of_this_host(&mut netlink, address).at(name(address, port.host.get()))? {
            let reason = "is not an address of this host; compare host_network and \
                          network_interface of the agent with `ip address`";
            return Err(Problem::refused(name(address, port.host.get()), reason));
        }
        if address.is_ipv6() && !has_v6 {
            let reason = "tasks have no IPv6 on this host: give the label an IPv4 address";
            return Err(Problem::refused(name(address, port.host.get()), reason));
        }
        let mut all = vec![address];
        if *on_loopback && !address.is_loopback() {
            all.push(Ipv4Addr::LOCALHOST.into());
            all.extend(has_v6.then_some(IpAddr::from(Ipv6Addr::LOCALHOST)));
        }
        for at in all.into_iter().map(|ip| SocketAddr::new(ip, port.host.get())) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                check_one(protocol, at)?;
            }
        }
    }
    Ok(())
}

fn check_one(protocol: Protocol, at: SocketAddr) -> Result<(), Problem> {
    let object = name(at.ip(), at.port());
    match try_to_bind(protocol, at) {
        // A host without this loopback address.
        Err(Errno::EADDRNOTAVAIL) => Ok(()),
        // More than servers are in the way of bind(2).
        Err(Errno::EADDRINUSE) => match holder::find(protocol, at).at(&object)? {
            None => Ok(()),
            Some(holder) => {
                let reason = format!("is held by {holder}; choose another static port, or stop it");
                Err(Problem::held(object, reason))
            }
        },
        other => other.at(object),
    }
}

/// Whether the kernel delivers packets to an address here. bind(2) does not say so: it takes any
/// address with net.ipv4.ip_nonlocal_bind=1, and broadcast addresses.
fn is_of_this_host(netlink: &mut Socket, address: IpAddr) -> io::Result<bool> {
    let mut is_local = false;
    let question = rtnetlink::way_of_the_host_to(address);
    match netlink.dump(question, |_, content| is_local = rtnetlink::is_local(content)) {
        Err(failure) if is_unreachable(&failure.error) => Ok(false),
        other => Ok(other.map(|()| is_local)?),
    }
}

fn name(ip: IpAddr, port: u16) -> String {
    format!("port {port} of {ip}")
}

fn try_to_bind(protocol: Protocol, at: SocketAddr) -> nix::Result<()> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let probe = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if protocol == Protocol::Tcp {
        // As servers do: connections of an earlier one that are being closed are not in the way.
        // For UDP it would mean sharing the port.
        setsockopt(&probe, sockopt::ReuseAddr, &true)?;
    }
    bind(probe.as_raw_fd(), &SockaddrStorage::from(at))
}
