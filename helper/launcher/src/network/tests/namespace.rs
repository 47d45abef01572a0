//! A network namespace of a test's own: a thread enters it, runs something there and ends.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
};
use proto::link::{Ends, Link, LinkName, Published};
use proto::name::{AllocId, Instance, MachineName};
use proto::plan::{NetworkOwner, PlannedNetwork};
use proto::task_spec::network::Port;
use proto::unit_id::UnitId;

use crate::network::enter_network_namespace;
use crate::step::Problem;

pub(super) struct Namespace(File);

impl Namespace {
    /// One that plays the host: loopback, and an uplink with these addresses of a documentation
    /// network, whose other end is in a namespace that plays the LAN.
    pub(super) fn host() -> (Self, Self) {
        install_tools();
        let new = || {
            thread::spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                Self::current()
            })
            .join()
            .unwrap()
        };
        let (host, lan) = (new(), new());
        host.ip("link set lo up");
        host.ip("link add up0 mtu 1400 type veth peer name lan0 mtu 1400");
        host.ip("address add 198.51.100.1/24 dev up0");
        host.ip("address add 2001:db8:1::1/64 dev up0 nodad");
        // As a host that takes its routes from a router.
        host.set("ipv6/conf/up0/accept_ra", "1");
        lan.ip("link set lo up");
        host.run(|| {
            use std::os::fd::AsRawFd;
            let place = format!("/proc/{}/fd/{}", std::process::id(), lan.0.as_raw_fd());
            // `ip` takes a name below /run/netns, or a path of this form.
            let text = format!("link set lan0 netns {place}");
            assert!(Command::new("ip").args(text.split(' ')).status().unwrap().success());
        });
        lan.ip("address add 198.51.100.2/24 dev lan0");
        lan.ip("address add 2001:db8:1::2/64 dev lan0 nodad");
        lan.ip("link set lan0 up");
        host.ip("link set up0 up");
        host.ip("route add default via 198.51.100.2");
        (host, lan)
    }

    pub(super) fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// Runs something inside.
    pub(super) fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            inside.join().unwrap()
        })
    }

    /// Makes a task's network as the launcher does; this is the host.
    pub(super) fn start(&self, link: &Link) -> Result<Self, Problem> {
        self.start_with(link, true)
    }

    /// The same, under a policy that lets forwarding be switched on or not.
    pub(super) fn start_with(&self, link: &Link, enable_forwarding: bool) -> Result<Self, Problem> {
        self.run(|| {
            let machine = MachineName::new(machine(link)).unwrap();
            let owner = NetworkOwner::Host;
            let network = PlannedNetwork::Private { link: link.clone(), enable_forwarding, owner };
            enter_network_namespace(&network, &machine, &[])?;
            Ok(Self::current())
        })
    }

    /// What `ip` prints, without what it appends to lines.
    pub(super) fn ip(&self, words: &str) -> String {
        let output = self.run(|| {
            Command::new("ip").args(words.split(' ')).output().expect("ip: apt install iproute2")
        });
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {words}: {error}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// A kernel setting below /proc/sys/net.
    pub(super) fn get(&self, name: &str) -> String {
        let text = self.run(|| fs::read_to_string(format!("/proc/sys/net/{name}")));
        text.unwrap_or_else(|error| panic!("{name}: {error}")).trim_end().to_owned()
    }

    pub(super) fn set(&self, name: &str, value: &str) {
        self.run(|| fs::write(format!("/proc/sys/net/{name}"), value)).unwrap();
    }

    /// Sends an echo request and waits for the reply.
    pub(super) fn ping(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.run(|| {
            let (family, protocol, request, reply) = match address {
                IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
                IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
            };
            let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
            let socket = UdpSocket::from(fd);
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let sent = [request, 0, 0, 0, 0, 0, 0, 1, 7, 7, 7, 7];
            if socket.connect((address, 0)).and_then(|()| socket.send(&sent)).is_err() {
                return false;
            }
            let mut answer = [0; 64];
            socket.recv(&mut answer).is_ok_and(|_| answer[0] == reply && answer[8..12] == [7; 4])
        })
    }
}

impl Namespace {
    /// As a task: sends the host a router advertisement (RFC 4861, 4.2).
    pub(super) fn advertise(&self) {
        self.run(|| {
            let (family, flags) = (AddressFamily::Inet6, SockFlag::SOCK_CLOEXEC);
            let raw = socket(family, SockType::Raw, flags, SockProtocol::IcmpV6).unwrap();
            setsockopt(&raw, sockopt::Ipv6Ttl, &255).unwrap();
            let index = if_nametoindex("host0").unwrap();
            let to = SocketAddrV6::new("fe80::1".parse().unwrap(), 0, 0, index);
            // A lifetime of 1800 s as a default router.
            let message = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
            UdpSocket::from(raw).send_to(&message, to).unwrap();
        });
    }
}

/// Installs what the tests look with where the machine lacks it, once.
fn install_tools() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let has = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
        if has("ip") {
            return;
        }
        println!("installing Debian packages on this machine: iproute2");
        for words in ["update", "install --yes --no-install-recommends iproute2"] {
            let words = words.split(' ');
            let mut apt = Command::new("apt-get");
            let done = apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-q").args(words).status();
            assert!(done.is_ok_and(|status| status.success()), "install by hand: iproute2");
        }
    });
}

/// The machine name of the task of a link.
pub(super) fn machine(link: &Link) -> String {
    format!("web-{}-0707-0707-070707070707", link.v4.task.octets()[3])
}

/// The link of a task's first run.
pub(super) fn link(ports: Vec<Published>) -> Link {
    numbered(0x15, ports)
}

/// The link of the task with this number.
pub(super) fn numbered(number: u8, ports: Vec<Published>) -> Link {
    let unit = UnitId { alloc: AllocId([number; 16]), instance: Instance(1) };
    let of = |last: u8| Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, last.into());
    Link {
        name: LinkName::from(unit),
        v4: Ends {
            task: Ipv4Addr::new(10, 64, 0, number),
            gateway: Ipv4Addr::new(10, 64, 0, 1),
            pool: Ipv4Addr::new(10, 64, 0, 0),
            prefix: 20,
        },
        v6: Some(Ends { task: of(number), gateway: of(1), pool: of(0), prefix: 64 }),
        mac: None,
        zone: None,
        ports,
    }
}

pub(super) fn port(address: &str, host: u16) -> Published {
    let number = |number: u16| number.try_into().unwrap();
    let address = address.parse().unwrap();
    let port = Port { address, host: number(host), task: number(80) };
    Published { port, on_loopback: true }
}
