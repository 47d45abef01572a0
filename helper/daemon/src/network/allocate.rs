//! What a start gets of the network: a place in the pool, and its ports.
//!
//! Decides by what other tasks have, as the table says. Never waits: no other start can come between
//! the look and the entry.

use proto::error::{Code, Refusal};
use proto::limits::PORTS_TOTAL_MAX;
use proto::link::{Link, LinkName, Published};
use proto::name::TaskKey;
use proto::step::Step;
use proto::task_spec::network::Port;
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::network::networks;
use crate::network::pool::Pools;
use crate::tasks::table::{Entry, Table};

/// Finds addresses for a task and checks that its ports are nobody else's.
pub(crate) fn allocate(context: &Context, key: &TaskKey, ports: &[Port]) -> Result<Link, Refusal> {
    let pools = current_pools(context)?;
    let table = context.table.borrow();
    let name = LinkName::from(UnitId::from(key));
    let same = |entry: &&Entry| LinkName::from(entry.record.unit()) == name;
    if let Some(other) = table.entries().find(same) {
        let reason = format!("task {} has it; restart the allocation", other.record.key);
        return Err(busy(format!("link {name}"), reason));
    }
    check_addresses(ports, &pools)?;
    let ports = claim_ports(ports, &table)?;
    let taken: Vec<_> =
        table.records().filter_map(|record| record.link.as_ref()).map(|l| l.v4.task).collect();
    let place = pools.place(key, |address| taken.contains(&address));
    let (v4, v6) = place.ok_or_else(|| {
        let reason = "all addresses of the pool are taken; give it a shorter prefix ([network] pool \
                      of the policy file)";
        busy("address".into(), reason.into())
    })?;
    Ok(Link { name, v4, v6, ports })
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
    let all: usize = running().flat_map(|entry| &entry.record.link).map(|l| l.ports.len()).sum();
    if all.saturating_add(wanted.len()) > PORTS_TOTAL_MAX {
        return Err(busy("ports".into(), format!("{PORTS_TOTAL_MAX} of all tasks at once")));
    }
    let mut claimed: Vec<Published> = Vec::new();
    for port in wanted {
        let mut on_loopback = claimed.iter().all(|other| other.port.host != port.host);
        for entry in running() {
            let held = entry.record.link.iter().flat_map(|link| &link.ports);
            for other in held.filter(|other| other.port.host == port.host) {
                let on_loopback_both = port.address.is_loopback() && other.on_loopback;
                if other.port.address == port.address || on_loopback_both {
                    return Err(held_by(port, &entry.record.key));
                }
                on_loopback &= !other.on_loopback && !other.port.address.is_loopback();
            }
        }
        claimed.push(Published { port: *port, on_loopback });
    }
    Ok(claimed)
}

fn held_by(port: &Port, holder: &TaskKey) -> Refusal {
    let TaskKey { alloc, task, .. } = holder;
    let reason =
        format!("task {task} of allocation {alloc} has it; stop that job or use another port");
    busy(format!("port {} of {}", port.host, port.address), reason)
}

fn busy(object: String, reason: String) -> Refusal {
    Refusal::new(Code::Busy, Step::Decide.name(), object, reason)
}
