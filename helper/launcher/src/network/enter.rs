//! The network namespace of a task.
//!
//! Trusts the plan; a network namespace to join is opened beneath the policy's directory, and is
//! never the host's own.

use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use proto::link::Published;
use proto::name::MachineName;
use proto::plan::{NetworkOwner, Place, PlannedNetwork};
use proto::task_spec::network::Port;
use proto::task_spec::process::Sysctl;

use super::doorman::{Doorman, Made};
use super::link::{Host, own_namespace};
use super::{payload_cgroup, ports};
use crate::open;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Leaves the namespace to the host's user namespace where the container cannot have one of its own,
/// with a note for the task's events.
pub(crate) fn settle_owner(network: &mut PlannedNetwork) -> Option<String> {
    match network {
        PlannedNetwork::Private { owner: owner @ NetworkOwner::Container, .. }
        | PlannedNetwork::Attached { owner: owner @ NetworkOwner::Container, .. }
            if payload_cgroup::is_missing() =>
        {
            *owner = NetworkOwner::Host;
            let note = "network: root in the container cannot change it (no CAP_NET_ADMIN), because \
                        this host has no cgroup v2 at /sys/fs/cgroup";
            Some(note.to_owned())
        }
        _ => None,
    }
}

/// Enters the task's network namespace, and makes its link to the host where it has one. One that
/// belongs to the container is not there yet: its doorman is returned.
pub(crate) fn enter_network_namespace(
    network: &PlannedNetwork,
    machine: &MachineName,
    sysctls: &[Sysctl],
) -> Result<Option<Doorman>, Problem> {
    match network {
        PlannedNetwork::Host => return Ok(None),
        PlannedNetwork::Loopback => unshare_network()?,
        PlannedNetwork::Private { link, enable_forwarding, owner } => {
            ports::check(&link.ports, link.v6.is_some())?;
            let mut host = Host::open()?;
            host.check(link, *enable_forwarding)?;
            if *owner == NetworkOwner::Container {
                return Ok(Some(Doorman::new(host, Made::Link(link.clone()), machine, sysctls)));
            }
            unshare_network()?;
            host.connect(link, machine)?;
        }
        PlannedNetwork::Attached { attached, port, enable_forwarding, owner } => {
            ports::check(&at_their_addresses(&attached.ports), true)?;
            let mut host = Host::open()?;
            if *owner == NetworkOwner::Container {
                // Refused now rather than when the payload waits.
                host.check_parent(attached)?;
                let made = Made::Attached(attached.clone(), *port, *enable_forwarding);
                return Ok(Some(Doorman::new(host, made, machine, sysctls)));
            }
            unshare_network()?;
            let namespace = own_namespace()?;
            let fd = namespace.as_fd();
            let inside = host.attach(attached, *port, machine, *enable_forwarding, fd)?;
            inside.configure()?;
        }
        PlannedNetwork::Container { container, enable_forwarding } => {
            ports::check(&at_their_addresses(&container.ports), true)?;
            if !container.ports.is_empty() {
                Host::open()?.check_forwarding(*enable_forwarding)?;
            }
            // systemd-nspawn makes the namespace.
            return Ok(None);
        }
        PlannedNetwork::Join(place) => join(place)?,
    }
    // lo is down in a new namespace, and nobody may have set it up in one to join.
    let inet = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .at("socket for lo")?;
    syscalls::loopback_up(inet.as_fd()).at("lo")?;
    // The namespace belongs to the host's user namespace, so container root has no power in it:
    // without these two, it could neither serve on port 80 nor ping.
    set_ipv4("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")?;
    set_ipv4("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    Ok(None)
}

/// Enters a network namespace that is there already.
fn join(place: &Place) -> Result<(), Problem> {
    let file = open::place(place, OFlag::O_RDONLY).at(place)?;
    // Compared by the opened file, not by its name: any file can be mounted at that name.
    let theirs = open::metadata(&file).at(place)?;
    let own = OwnPath::constant("/proc/self/ns/net");
    let hosts = own.metadata().at(&own)?;
    if (theirs.dev(), theirs.ino()) == (hosts.dev(), hosts.ino()) {
        return Err(Problem::refused(place, "is the host's own network namespace"));
    }
    // CLONE_NEWNET has the kernel check that the file is a network namespace.
    setns(file, CloneFlags::CLONE_NEWNET).at(place)
}

/// Ports that are not on loopback: nothing of the host's loopback leaves over a link that is not ours.
fn at_their_addresses(ports: &[Port]) -> Vec<Published> {
    ports.iter().map(|port| Published { port: *port, on_loopback: false }).collect()
}

fn unshare_network() -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWNET).at("network namespace")
}

fn set_ipv4(path: &'static str, value: &str) -> Result<(), Problem> {
    OwnPath::constant(path).write(value).at(path)
}
