//! The network namespace of a task.
//!
//! Trusts the plan; a network namespace to join is opened beneath the policy's directory, and is
//! never the host's own.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use proto::name::MachineName;
use proto::plan::PlannedNetwork;

use super::link::Host;
use super::ports;
use crate::open;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Enters the task's network namespace, and makes its link to the host where it has one.
pub(crate) fn enter_network_namespace(
    network: &PlannedNetwork,
    machine: &MachineName,
) -> Result<(), Problem> {
    match network {
        PlannedNetwork::Host => return Ok(()),
        PlannedNetwork::Loopback => unshare_network()?,
        PlannedNetwork::Private { link, enable_forwarding } => {
            ports::check(link)?;
            let mut host = Host::open()?;
            unshare_network()?;
            host.connect(link, machine, *enable_forwarding)?;
        }
        PlannedNetwork::Join(place) => {
            let file = open::place(place, OFlag::O_RDONLY).at(place)?;
            // Compared by the opened file, not by its name: any file can be mounted at that name.
            let theirs = open::metadata(&file).at(place)?;
            let own = OwnPath::constant("/proc/self/ns/net");
            let hosts = own.metadata().at(&own)?;
            if (theirs.dev(), theirs.ino()) == (hosts.dev(), hosts.ino()) {
                return Err(Problem::refused(place, "is the host's own network namespace"));
            }
            // CLONE_NEWNET has the kernel check that the file is a network namespace.
            setns(file, CloneFlags::CLONE_NEWNET).at(place)?;
        }
    }
    // lo is down in a new namespace, and nobody may have set it up in one to join.
    let inet = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .at("socket for lo")?;
    syscalls::loopback_up(inet.as_fd()).at("lo")?;
    // The namespace belongs to the host's user namespace, so container root has no power in it:
    // without these two, it could neither serve on port 80 nor ping.
    set_ipv4("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    set_ipv4("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
}

fn unshare_network() -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWNET).at("network namespace")
}

fn set_ipv4(path: &'static str, value: &str) -> Result<(), Problem> {
    OwnPath::constant(path).write(value).at(path)
}
