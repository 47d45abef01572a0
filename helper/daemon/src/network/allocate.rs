//! What a start gets of the network: a place in the pool, its zone's number, and its ports.
//!
//! Decides by what other tasks have, as the table says. Never waits: no other start can come between
//! the look and the entry.

use std::collections::HashSet;
use std::net::IpAddr;

use proto::error::{Code, Refusal};
use proto::limits::{PORTS_TOTAL_MAX, ZONE_TASKS_MAX};
use proto::link::{Link, LinkName, Published};
use proto::name::TaskKey;
use proto::step::Step;
use proto::task_spec::network::{Port, Private};
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::network::attached::Attached;
use crate::network::pool::{Fixed, Pools};
use crate::network::{links, networks, zones};
use crate::tasks::record::Record;
use crate::tasks::table::{Entry, Table};

/// Finds addresses for a task and checks that its ports are nobody else's.
pub(crate) fn allocate(
    context: &Context,
    key: &TaskKey,
    wanted: &Private,
) -> Result<Link, Refusal> {
    let pools = current_pools(context)?;
    let table = context.table.borrow();
    let name = LinkName::from(UnitId::from(key));
    let same = |entry: &&Entry| LinkName::from(entry.record.unit()) == name;
    if let Some(other) = table.entries().find(same) {
        let reason = format!("task {} has it; restart the allocation", other.record.key);
        return Err(busy(format!("link {name}"), reason));
    }
    check_addresses(&wanted.ports, &pools)?;
    let ports = claim_ports(&wanted.ports, &table)?;
    let links = || table.records().filter_map(|record| record.link.as_ref());
    let fixed = Fixed { v4: wanted.v4, v6: wanted.v6 };
    check_fixed(fixed, &pools, &table)?;
    let taken: HashSet<IpAddr> = links().flat_map(Link::addresses).collect();
    let place = pools.place(key, fixed, |address| taken.contains(&address));
    let (v4, v6) = place.ok_or_else(|| {
        let reason = "all addresses of the pool are taken; give it a shorter prefix ([network] pool \
                      of the policy file)";
        busy("address".into(), reason.into())
    })?;
    check_room(wanted, links())?;
    let zone = |name| zones::zone(name, links(), groups_in_use);
    let zone = wanted.zone.as_ref().map(zone).transpose().map_err(|error| {
        Refusal::failed(Step::Decide.name(), "zone", format!("links of the host: {error}"))
    })?;
    let link = Link { name, v4, v6, mac: wanted.mac, zone, ports };
    check_mac(&link, &table)?;
    Ok(link)
}

/// Refuses a task whose zone has as many as it can.
fn check_room<'a>(wanted: &Private, links: impl Iterator<Item = &'a Link>) -> Result<(), Refusal> {
    let Some(name) = &wanted.zone else { return Ok(()) };
    let is_in = |link: &&Link| link.zone.as_ref().is_some_and(|zone| zone.name == *name);
    if links.filter(is_in).count() < ZONE_TASKS_MAX {
        return Ok(());
    }
    Err(busy(format!("zone {name}"), format!("{ZONE_TASKS_MAX} tasks on one host at once")))
}

/// Interface groups of the links that are there, with a record or without.
fn groups_in_use() -> Result<Vec<u32>, String> {
    let mut socket = links::open().map_err(|e| e.to_string())?;
    let links = links::own_links(&mut socket).map_err(|e| e.to_string())?;
    Ok(links.into_iter().map(|link| link.group).collect())
}

/// Refuses addresses of the job that no task can have, or that another has: also one that has ended
/// and is not removed yet.
fn check_fixed(fixed: Fixed, pools: &Pools, table: &Table) -> Result<(), Refusal> {
    let wanted = [fixed.v4.map(IpAddr::from), fixed.v6.map(IpAddr::from)];
    for address in wanted.into_iter().flatten() {
        pools.check(address).map_err(|rule| {
            let reason = format!("{rule}; choose another, or none");
            Refusal::new(Code::Invalid, Step::Decide.name(), format!("address {address}"), reason)
        })?;
        let has_it = |link: &Link| link.addresses().any(|taken| taken == address);
        check_nobody(table, has_it, || format!("address {address}"))?;
    }
    Ok(())
}

/// Refuses a MAC address that an end of another link has, or the other end of this one.
fn check_mac(link: &Link, table: &Table) -> Result<(), Refusal> {
    let Some(mac) = link.mac else { return Ok(()) };
    let object = || format!("MAC address {mac}");
    if mac == link.host_mac() {
        let reason = "the host's end of the link has it; choose another, or none";
        return Err(Refusal::new(Code::Invalid, Step::Decide.name(), object(), reason));
    }
    check_nobody(table, |other| [other.task_mac(), other.host_mac()].contains(&mac), object)
}

/// Refuses what a task has; names the task.
fn check_nobody(
    table: &Table,
    has_it: impl Fn(&Link) -> bool,
    object: impl FnOnce() -> String,
) -> Result<(), Refusal> {
    let holds = |record: &&Record| record.link.as_ref().is_some_and(&has_it);
    let Some(holder) = table.records().find(holds) else { return Ok(()) };
    Err(held_by(object(), &holder.key))
}

/// Checks that the ports and addresses of a task are nobody else's whose network is not of the pool.
pub(crate) fn check_attached(context: &Context, wanted: &Attached) -> Result<(), Refusal> {
    let pools = match wanted.ports.as_slice() {
        [] => context.networks.borrow().pools,
        _ => Some(current_pools(context)?),
    };
    let table = context.table.borrow();
    for address in &wanted.addresses {
        let object = format!("address {address}");
        if pools.is_some_and(|pools| pools.holds(*address)) {
            let reason =
                "is an address of tasks ([network] pool): name one of the bridge's network";
            return Err(Refusal::new(Code::Invalid, Step::Decide.name(), object, reason));
        }
        // Longer than its ports: until then, the kernel's entries for its connections are deleted.
        let mut holders =
            table.entries().filter(|it| it.starting || it.published || !it.withdrawn.initialized());
        if let Some(other) = holders.find(|it| it.record.addresses().any(|a| a == *address)) {
            return Err(held_by(object, &other.record.key));
        }
    }
    if let Some(pools) = pools {
        check_addresses(&wanted.ports, &pools)?;
    }
    claim_ports(&wanted.ports, &table).map(drop)
}

/// The pools; with the first task they are chosen again, because routes of the host may have come
/// since the daemon was started.
fn current_pools(context: &Context) -> Result<Pools, Refusal> {
    let failed = |error: String| {
        let reason = format!("{error}; a task with private_network = true needs none");
        Refusal::failed(Step::Decide.name(), "packet filter", reason)
    };
    let is_first = context.table.borrow().records().all(|record| record.link.is_none());
    let known = context.networks.borrow().pools;
    let is_current = match known {
        Some(known) if is_first => networks::pools(context).map_err(failed)? == known,
        known => known.is_some(),
    };
    if !is_current {
        networks::set_up(context).map_err(failed)?;
    }
    let pools = context.networks.borrow().pools;
    pools.ok_or_else(|| failed("no addresses".into()))
}

/// Refuses to publish at an address that is a task's, or the host's end of their links.
fn check_addresses(ports: &[Port], pools: &Pools) -> Result<(), Refusal> {
    match ports.iter().find(|port| pools.holds(port.address)) {
        None => Ok(()),
        Some(Port { address, host, .. }) => {
            let reason =
                "is an address of tasks ([network] pool); see the host_network of the label";
            let object = format!("port {host} of {address}");
            Err(Refusal::new(Code::Invalid, Step::Decide.name(), object, reason))
        }
    }
}

/// The ports of a task, unless another task that runs has one of them. On loopback a port is the
/// first one's.
fn claim_ports(wanted: &[Port], table: &Table) -> Result<Vec<Published>, Refusal> {
    let running = || table.entries().filter(|entry| entry.starting || entry.published);
    let all: usize = running().map(|entry| entry.record.ports().count()).sum();
    if all.saturating_add(wanted.len()) > PORTS_TOTAL_MAX {
        return Err(busy("ports".into(), format!("{PORTS_TOTAL_MAX} of all tasks at once")));
    }
    let mut claimed: Vec<Published> = Vec::new();
    for port in wanted {
        let mut on_loopback = claimed.iter().all(|other| other.port.host != port.host);
        for entry in running() {
            for other in entry.record.ports().filter(|other| other.port.host == port.host) {
                let on_loopback_both = port.address.is_loopback() && other.on_loopback;
                if other.port.address == port.address || on_loopback_both {
                    let object = format!("port {} of {}", port.host, port.address);
                    return Err(held_by(object, &entry.record.key));
                }
                on_loopback &= !other.on_loopback && !other.port.address.is_loopback();
            }
        }
        claimed.push(Published { port: *port, on_loopback });
    }
    Ok(claimed)
}

fn held_by(object: String, holder: &TaskKey) -> Refusal {
    let TaskKey { alloc, task, .. } = holder;
    let reason =
        format!("task {task} of allocation {alloc} has it; stop that job or choose another");
    busy(object, reason)
}

fn busy(object: String, reason: String) -> Refusal {
    Refusal::new(Code::Busy, Step::Decide.name(), object, reason)
}
