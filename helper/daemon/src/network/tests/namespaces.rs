//! Network namespaces of one test, and the programs that look into them.

use std::fs::File;
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use proto::link::{Ends, Link, LinkName, Published};
use proto::name::{AllocId, Instance};
use proto::task_spec::network::Port;
use proto::unit_id::UnitId;

use super::super::elements::Elements;
use super::super::table::Rules;
use policy::{HostPorts, Protocol};

/// A network namespace; it goes with the value and with its links.
pub(super) struct Namespace(File);

impl Namespace {
    /// Makes one; the thread stays in it.
    pub(super) fn new() -> Self {
        install_tools();
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
        Self::current()
    }

    /// Makes another; the thread stays in this one.
    pub(super) fn another(&self) -> Self {
        let other = Self::new();
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
        other
    }

    fn current() -> Self {
        Self(File::open("/proc/thread-self/ns/net").unwrap())
    }

    /// Runs `work` in it.
    pub(super) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let here = Self::current();
        setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
        let result = work();
        setns(&here.0, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }

    /// A path by which `ip` finds it.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Installs what the tests look with where the machine lacks it, once.
fn install_tools() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let has = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
        if has("ip") && has("nft") {
            return;
        }
        println!("installing Debian packages on this machine: iproute2 nftables");
        for words in ["update", "install --yes --no-install-recommends iproute2 nftables"] {
            let words = words.split(' ');
            let mut apt = Command::new("apt-get");
            let done = apt.env("DEBIAN_FRONTEND", "noninteractive").arg("-q").args(words).status();
            assert!(
                done.is_ok_and(|status| status.success()),
                "install by hand: iproute2 nftables"
            );
        }
    });
}

/// Runs a test on a thread in a namespace of its own.
pub(super) fn in_namespace(test: impl FnOnce(Namespace) + Send + 'static) {
    let thread = std::thread::spawn(|| test(Namespace::new()));
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program with the words of `line`; what it printed, or its complaint.
pub(super) fn try_run(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap();
    let output = match Command::new(program).args(words).output() {
        Ok(output) => output,
        Err(error) => {
            let package = if program == "nft" { "nftables" } else { "iproute2" };
            panic!("{program}: {error}: install {package} (apt-get install {package})")
        }
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// As [`try_run`], for what must succeed.
pub(super) fn run(line: &str) -> String {
    try_run(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Rules as the strict preset has them, with the pools of docs/NETWORK.md.
pub(super) fn strict() -> Rules {
    Rules {
        pool4: ("10.64.0.0".parse().unwrap(), 20),
        pool6: Some(("fd64::".parse().unwrap(), 64)),
        closed: ["169.254.0.0", "fd00:ec2::254"]
            .map(|address| (address.parse().unwrap(), if address.contains(':') { 128 } else { 16 }))
            .to_vec(),
        host_ports: HostPorts::Listed(vec![(Protocol::Tcp, 53), (Protocol::Udp, 53)]),
    }
}

/// Rules as the compat preset has them.
pub(super) fn compat() -> Rules {
    Rules { closed: Vec::new(), host_ports: HostPorts::All, ..strict() }
}

/// No task.
pub(super) const NONE: [Elements; 0] = [];

/// Link of the task with this number in the pools, with ports: address, host's, task's.
pub(in crate::network) fn link(number: u16, ports: &[(&str, u16, u16)]) -> Link {
    let [high, low] = number.to_be_bytes();
    let v6 = |last| Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, last);
    let port = |&(address, host, task): &(&str, u16, u16)| Published {
        port: Port {
            address: address.parse().unwrap(),
            host: host.try_into().unwrap(),
            task: task.try_into().unwrap(),
        },
        on_loopback: true,
    };
    Link {
        name: LinkName::from(UnitId { alloc: AllocId([0; 16]), instance: Instance(number.into()) }),
        v4: Ends {
            task: [10, 64, high, low].into(),
            gateway: [10, 64, 0, 1].into(),
            pool: [10, 64, 0, 0].into(),
            prefix: 20,
        },
        v6: Some(Ends { task: v6(number), gateway: v6(1), pool: v6(0), prefix: 64 }),
        mac: None,
        zone: None,
        ports: ports.iter().map(port).collect(),
    }
}

/// Makes both ends of a link, as the launcher does; the task's namespace.
pub(super) fn make_link(link: &Link) -> Namespace {
    let task = Namespace::current().another();
    let (name, v4, v6) = (link.name, &link.v4, link.v6.as_ref().unwrap());
    let peer = task.path();
    run(&format!("ip link add {name} type veth peer name host0 netns {peer}"));
    for (file, value) in [
        ("ipv6/conf", "accept_ra=0"),
        ("ipv6/conf", "addr_gen_mode=1"),
        ("ipv6/conf", "accept_dad=0"),
        ("ipv4/conf", "rp_filter=1"),
        ("ipv4/conf", "route_localnet=1"),
        ("ipv4/conf", "forwarding=1"),
    ] {
        sysctl(&format!("{file}/{name}"), value);
    }
    run(&format!("ip addr add {} peer {} dev {name}", v4.gateway, v4.task));
    run(&format!("ip link set {name} up"));
    run(&format!("ip addr add fe80::1/64 dev {name} nodad"));
    run(&format!("ip addr add {}/128 dev {name} nodad", v6.gateway));
    run(&format!("ip route add {} dev {name}", v6.task));
    let [_, low] = link.v4.task.to_bits().to_be_bytes()[2..] else { unreachable!() };
    let metric = 1000 + u32::from(low);
    run(&format!("ip -6 route add local ::1 dev {name} table local metric {metric}"));
    task.within(|| {
        sysctl("ipv6/conf/host0", "accept_ra=0");
        sysctl("ipv6/conf/host0", "accept_dad=0");
        run(&format!("ip addr add {} peer {} dev host0", v4.task, v4.gateway));
        run(&format!("ip addr add {}/128 dev host0 nodad", v6.task));
        run("ip link set lo up");
        run("ip link set host0 up");
        run(&format!("ip route add default via {}", v4.gateway));
        run("ip -6 route add default via fe80::1 dev host0");
    });
    task
}

/// Sets a value of this namespace.
pub(super) fn sysctl(directory: &str, setting: &str) {
    let (name, value) = setting.split_once('=').unwrap();
    let file = format!("/proc/sys/net/{directory}/{name}");
    std::fs::write(&file, value).unwrap_or_else(|error| panic!("{file}: {error}"));
}

/// Waits until all links of this namespace are ready: the kernel drops what is sent before.
pub(super) fn wait_for_carrier() {
    let begin = Instant::now();
    while run("ip -o link show up").lines().any(|link| link.contains(" state DOWN")) {
        assert!(begin.elapsed() < Duration::from_secs(10), "{}", run("ip link"));
        std::thread::sleep(Duration::from_millis(10));
    }
}
