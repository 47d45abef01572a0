//! Who serves on a port of the host, for people: from the kernel's lists of sockets to the process
//! and its unit.
//!
//! Trusts the kernel's files in /proc. Processes come and go meanwhile: what has gone is skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::stage::OwnPath;

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
}

/// Finds what serves on an address and port; `None` where nothing does, whatever else uses it.
pub(super) fn find(protocol: Protocol, at: SocketAddr) -> io::Result<Option<String>> {
    // Through the thread: the process itself may be in another network namespace.
    let (lists, state) = match protocol {
        Protocol::Tcp => (["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"], LISTENS),
        Protocol::Udp => (["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"], OPEN),
    };
    for list in lists {
        // Without IPv6 there is one list only.
        let Some(bytes) = crate::open::if_there(OwnPath::constant(list).read())? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let mut sockets = text.lines().filter_map(Socket::parse);
        if let Some(socket) = sockets.find(|it| it.state == state && it.takes(at)) {
            return describe(socket.inode).map(Some);
        }
    }
    Ok(None)
}

/// TCP_LISTEN of the kernel (net/tcp_states.h).
const LISTENS: u8 = 10;
/// TCP_CLOSE: of a UDP socket that is not connected to somebody, which takes packets of all.
const OPEN: u8 = 7;

/// A line of the kernel's list.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    state: u8,
    inode: u64,
}

impl Socket {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (address, port) = fields.next()?.split_once(':')?;
        let state = u8::from_str_radix(fields.nth(1)?, 16).ok()?;
        // Each 32 bits of the address as the number that they are in memory.
        let word = |at| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
        let ip = if address.len() == 8 {
            IpAddr::from(word(0)?)
        } else {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(<[u8; 16]>::try_from(words).ok()?)
        };
        Some(Self {
            local: SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?),
            state,
            inode: fields.nth(5)?.parse().ok()?,
        })
    }

    /// Whether what is sent there arrives at this socket.
    fn takes(&self, at: SocketAddr) -> bool {
        let own = self.local.ip();
        let any = match at.ip() {
            // A socket of IPv6 for all addresses takes IPv4 as well.
            IpAddr::V4(_) => own == Ipv4Addr::UNSPECIFIED || own == Ipv6Addr::UNSPECIFIED,
            IpAddr::V6(_) => own == Ipv6Addr::UNSPECIFIED,
        };
        self.local.port() == at.port() && (any || own.to_canonical() == at.ip())
    }
}

fn describe(inode: u64) -> io::Result<String> {
    let holders = processes(inode)?;
    // PID 1 passes sockets on and keeps them: whoever has it besides is the better answer.
    let Some(pid) = holders.iter().find(|pid| **pid != 1) else {
        let other = "the kernel, or a process that /proc does not show";
        let unit = "a socket unit (systemctl list-sockets)";
        return Ok(if holders.is_empty() { other } else { unit }.to_owned());
    };
    let text = |name| {
        let bytes = OwnPath::of_process(*pid, name).read().unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    };
    let groups = text("cgroup");
    let name = unit(&groups).map_or_else(|| text("comm"), str::to_owned);
    Ok(format!("{name} (pid {pid})"))
}

/// The processes that have a socket open.
fn processes(inode: u64) -> io::Result<Vec<u32>> {
    let wanted = format!("socket:[{inode}]");
    let has_it = |pid: &u32| {
        let directory = OwnPath::of_process(*pid, "fd");
        numbers(&directory).is_ok_and(|fds| {
            fds.into_iter().any(|fd| {
                directory.join(fd).read_link().is_ok_and(|text| text == Path::new(&wanted))
            })
        })
    };
    Ok(numbers(&OwnPath::constant("/proc"))?.into_iter().filter(has_it).collect())
}

/// The entries of a directory of /proc that are numbers.
fn numbers(directory: &OwnPath) -> io::Result<Vec<u32>> {
    let entries = directory.entries()?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The unit of the host's in a process's list of cgroups: below slices, above those that a
/// container makes for itself.
fn unit(groups: &str) -> Option<&str> {
    let mut lines = groups.lines().filter_map(|line| {
        line.strip_prefix("0::").or_else(|| line.split_once(":name=systemd:").map(|(_, path)| path))
    });
    lines.find_map(|path| {
        let mut parts = path.split('/').filter(|part| !part.ends_with(".slice"));
        parts.find(|part| part.ends_with(".service") || part.ends_with(".scope"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   \
                    997        0 41254 1 0000000000000000 100 0 0 10 0";
        let local = "127.0.0.1:8080".parse().unwrap();
        assert_eq!(Socket::parse(line), Some(Socket { local, state: LISTENS, inode: 41254 }));
        let line = " 912: B80D01200000000000000000010000FF:0035 \
                    00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 \
                    00000000     0        0 77 2 0000000000000000 0";
        let local = "[2001:db8::ff00:1]:53".parse().unwrap();
        assert_eq!(Socket::parse(line), Some(Socket { local, state: OPEN, inode: 77 }));
        assert_eq!(Socket::parse("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(Socket::parse(""), None);
    }

    #[test]
    fn a_socket_takes_what_is_sent_to_it() {
        let socket = |local: &str| Socket { local: local.parse().unwrap(), state: 0, inode: 0 };
        for (own, at, taken) in [
            ("10.0.0.5:80", "10.0.0.5:80", true),
            ("10.0.0.5:80", "10.0.0.5:81", false),
            ("10.0.0.5:80", "127.0.0.1:80", false),
            ("0.0.0.0:80", "10.0.0.5:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "10.0.0.5:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::ffff:10.0.0.5]:80", "10.0.0.5:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            assert_eq!(socket(own).takes(at.parse().unwrap()), taken, "{own} {at}");
        }
    }

    #[test]
    fn the_unit_is_the_hosts() {
        for (groups, expected) in [
            ("0::/system.slice/nginx.service\n", Some("nginx.service")),
            ("0::/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("0::/user.slice/user-0.slice/session-3.scope", Some("session-3.scope")),
            ("0::/machine.slice/a.service/payload/system.slice/b.service", Some("a.service")),
            ("5:cpu:/x\n1:name=systemd:/system.slice/sshd.service\n0::/\n", Some("sshd.service")),
            ("0::/", None),
            ("", None),
        ] {
            assert_eq!(unit(groups), expected, "{groups}");
        }
    }
}
