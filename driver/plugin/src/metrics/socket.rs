//! The TCP sockets of the metrics endpoint: made before the sandbox closes, bound when the operator
//! has asked for it.
//!
//! Afterwards the process can make no socket of the internet, and while it is not configured it
//! does not keep these. The kernel ties them to the loopback device, and it takes a capability to
//! undo that: whatever address a compromised plugin binds, nobody outside of the host reaches it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::sockopt::{BindToDevice, Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
};

/// Connections that wait to be accepted: a scraper or two.
const BACKLOG: i32 = 16;

/// One socket for each family of addresses.
#[derive(Debug)]
pub(crate) struct Sockets {
    v4: Result<OwnedFd, String>,
    v6: Result<OwnedFd, String>,
}

impl Sockets {
    /// Makes them. A host without IPv6 has no socket of it: that is an error only for who asks for
    /// an address of it.
    pub(crate) fn make() -> Self {
        Self { v4: make(AddressFamily::Inet), v6: make(AddressFamily::Inet6) }
    }

    /// The socket for an address; the other one is closed.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn choose(self, address: SocketAddr) -> Result<OwnedFd, String> {
        if address.is_ipv4() { self.v4 } else { self.v6 }
    }
}

fn make(family: AddressFamily) -> Result<OwnedFd, String> {
    let make = || -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        // The port of an instance that has ended is free at once.
        setsockopt(&socket, ReuseAddr, &true)?;
        if family == AddressFamily::Inet6 {
            setsockopt(&socket, Ipv6V6Only, &true)?;
        }
        setsockopt(&socket, BindToDevice, &"lo".into())?;
        Ok(socket)
    };
    make().map_err(|e| format!("socket {family:?}: {e}"))
}

/// Binds a socket and listens; it can be tried again when the address is in use.
///
/// # Errors
/// The kernel's.
pub(crate) fn bind_to(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(listen(socket, Backlog::new(BACKLOG)?)?)
}

/// The listener of a bound socket.
///
/// # Errors
/// The kernel's.
pub(crate) fn listener(socket: OwnedFd) -> io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::from_std(TcpListener::from(socket))
}
