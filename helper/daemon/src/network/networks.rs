//! Who has which address and which port, from the start of a task to the end of its payload.
//!
//! What a task has stands in its unit's record, so a new process finds it again. Trusts the policy
//! for what may be published. Never touches a table or a link that is not the project's own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use proto::error::Refusal;
use proto::link::{Link, LinkName};
use proto::name::TaskKey;
use tokio::task::{spawn_blocking, spawn_local};

use crate::context::Context;
use crate::network::conntrack::{self, Wanted};
use crate::network::elements::Elements;
use crate::network::filter::PacketFilter;
use crate::network::links;
use crate::network::pool::{self, Pools};
use crate::network::table::Rules;
use crate::systemd::notify;
use crate::tasks::table::Entry;

/// Name of the packet filter's socket in the descriptor store: the table goes with its last copy.
pub(crate) const STORED: &str = "packet-filter";

/// What a host that has IPv6 switched on has.
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// The networks of all tasks.
#[derive(Default)]
pub(crate) struct Networks {
    filter: Option<PacketFilter>,
    /// Known once the table is in the kernel.
    pub(crate) pools: Option<Pools>,
}

/// Takes over the table of an earlier process, or makes it, for the tasks that run. Without it tasks
/// run on, and those that want a network of their own are refused.
pub(crate) fn take_over(context: &Context, stored: Option<OwnedFd>) {
    // Kept whatever fails from here on: the table goes with it.
    let adopted = stored.map(PacketFilter::adopt).transpose();
    match adopted {
        Ok(filter) => context.networks.borrow_mut().filter = filter,
        Err(error) => tracing::error!(%error, "the packet filter's socket is lost"),
    }
    if let Err(error) = set_up(context) {
        tracing::error!(error, "no packet filter: tasks with a network of their own are refused");
    }
    sweep(context);
}

/// Makes the table, or replaces it, for the tasks that run and the policy in force.
pub(crate) fn set_up(context: &Context) -> Result<(), String> {
    let pools = pools(context).map_err(|e| format!("addresses of tasks: {e}"))?;
    let (rules, links) = (rules(context, &pools), published(context));
    let mut networks = context.networks.borrow_mut();
    let filter = match &mut networks.filter {
        Some(filter) => filter,
        none => {
            let filter = PacketFilter::open().map_err(|e| format!("netlink: {e}"))?;
            if let Err(error) = notify::store(STORED, filter.fd()) {
                tracing::error!(%error, "the packet filter's table would not outlive this process");
            }
            none.insert(filter)
        }
    };
    filter.replace(&rules, &links.iter().collect::<Vec<_>>()).map_err(|e| e.to_string())?;
    networks.pools = Some(pools);
    Ok(())
}

/// The links of the tasks that run.
fn published(context: &Context) -> Vec<Link> {
    let table = context.table.borrow();
    let running = table.entries().filter(|entry| entry.published);
    running.filter_map(|entry| entry.record.link.clone()).collect()
}

fn rules(context: &Context, pools: &Pools) -> Rules {
    let network = &context.policy().network;
    Rules {
        pool4: pools.v4,
        pool6: pools.v6,
        closed: network.closed.iter().map(|prefix| (prefix.address, prefix.bits)).collect(),
        host_ports: network.host_ports.clone(),
    }
}

/// The pools: those of the tasks that are there, else the policy's, else free ones.
pub(crate) fn pools(context: &Context) -> Result<Pools, String> {
    let known = context.table.borrow().records().find_map(|record| record.link.clone());
    if let Some(link) = known {
        let v6 = link.v6.map(|ends| (ends.pool, ends.prefix));
        return Ok(Pools { v4: (link.v4.pool, link.v4.prefix), v6 });
    }
    let machine = fs::read("/etc/machine-id").map_err(|e| format!("/etc/machine-id: {e}"))?;
    let has_ipv6 = fs::read(IPV6_OFF).is_ok_and(|off| off.first() == Some(&b'0'));
    let mut socket = links::open().map_err(|e| e.to_string())?;
    let routes = links::routes(&mut socket).map_err(|e| e.to_string())?;
    let network = &context.policy().network;
    let named: Option<(Ipv4Addr, u8)> = network.pool.as_ref().map(|it| (it.0.address, it.0.bits));
    if let Some(pool) = named {
        pool::check_named(pool, &routes.foreign)?;
    }
    let v4 = named
        .or_else(|| pool::kept_4(&routes.pools, &routes.foreign))
        .unwrap_or_else(|| pool::choose_4(&machine, &routes.foreign));
    let named: Option<(Ipv6Addr, u8)> =
        network.pool_ipv6.as_ref().map(|it| (it.0.address, it.0.bits));
    let v6 = has_ipv6.then(|| named.unwrap_or_else(|| pool::choose_6(&machine)));
    Pools { v4, v6 }.checked()
}

/// Takes away what tasks have left that ended while no daemon was there. The name of a link follows
/// from its unit: that of a task whose record cannot be read is known, and stays.
fn sweep(context: &Context) {
    let is_over = |entry: &&Entry| !entry.published && !entry.starting;
    let table = context.table.borrow();
    let kept = table.entries().filter(|entry| !is_over(entry) || !entry.record.is_readable());
    let kept: Vec<String> =
        kept.map(|entry| LinkName::from(entry.record.unit()).to_string()).collect();
    let found = links::open().map_err(|e| e.to_string()).and_then(|mut socket| {
        let links = links::own_links(&mut socket).map_err(|e| e.to_string())?;
        Ok((socket, links))
    });
    match found {
        Ok((mut socket, links)) => {
            for link in links.iter().filter(|link| !kept.contains(&link.name)) {
                tracing::info!(link = link.name, "link of an ended task: deleted");
                if let Err(error) = links::delete(&mut socket, &link.name) {
                    tracing::error!(link = link.name, %error, "cannot delete a link");
                }
            }
        }
        Err(error) => tracing::error!(error, "links of ended tasks cannot be looked for"),
    }
    let ended = table.entries().filter(is_over).filter_map(|entry| entry.record.link.as_ref());
    forget_connections(ended.flat_map(Link::addresses));
}

/// Publishes a task's ports: right before its payload, so that its first listen is reached.
pub(crate) fn publish(context: &Context, key: &TaskKey, link: &Link) -> Result<(), Refusal> {
    let failed = |reason: String| Refusal::failed("ports", "table inet nomad_nspawn", reason);
    match &mut context.networks.borrow_mut().filter {
        Some(filter) => filter.add(link).map_err(|e| failed(e.to_string()))?,
        None => return Err(failed("is not there".into())),
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(key) {
        entry.published = true;
    }
    let senders: Vec<_> = Elements::from(link).into_places().map(Wanted::UdpTo).collect();
    if !senders.is_empty() {
        // A long list of connections may take its time; the payload need not wait for that.
        spawn_local(delete_connections(senders));
    }
    Ok(())
}

/// Withdraws a task's ports and its link as soon as its payload has ended, not only when it is
/// removed.
pub(crate) fn withdraw_at_end(context: &Rc<Context>, key: &TaskKey) {
    let entry = context.table.borrow().get(key).filter(|entry| entry.published).cloned();
    let Some(entry) = entry else { return };
    let (context, key) = (context.clone(), key.clone());
    spawn_local(async move {
        // Without a leader the payload has ended already.
        if let Some(leader) = entry.leader
            && let Err(error) = leader.await_end().await
        {
            tracing::warn!(%key, %error, "its ports stay until its removal");
            return;
        }
        withdraw(&context, &key);
    });
}

/// Withdraws what a task has; a second time is fine.
pub(crate) fn withdraw(context: &Context, key: &TaskKey) {
    let link = {
        let mut table = context.table.borrow_mut();
        let Some(entry) = table.get_mut(key) else { return };
        entry.published = false;
        entry.record.link.clone()
    };
    let Some(link) = link else { return };
    let failed = |what: &str, error: String| tracing::error!(%key, error, "{what} stay");
    if let Some(filter) = &mut context.networks.borrow_mut().filter
        && let Err(error) = filter.remove(&link)
    {
        failed("its ports", error.to_string());
    }
    let deleted = links::open().and_then(|mut it| links::delete(&mut it, &link.name.to_string()));
    if let Err(error) = deleted {
        failed("its link and addresses", error.to_string());
    }
    // After the elements: a client that sends all the while would make a new entry for this task.
    forget_connections(link.addresses());
}

/// Deletes the kernel's entries for connections of these addresses of tasks, both ways.
fn forget_connections(addresses: impl Iterator<Item = IpAddr>) {
    let both = |address| [Wanted::RepliesFrom(address), Wanted::From(address)];
    let all: Vec<_> = addresses.flat_map(both).collect();
    if !all.is_empty() {
        spawn_local(delete_connections(all));
    }
}

/// On a thread of its own: the kernel's list may be long.
async fn delete_connections(all: Vec<Wanted>) {
    let deleted = spawn_blocking(move || conntrack::delete(&all).map_err(|e| e.to_string()));
    if let Err(error) = deleted.await.unwrap_or_else(|e| Err(e.to_string())) {
        tracing::warn!(error, "connections of before may lead to a task that has ended");
    }
}

/// Replaces the table for a policy that was read again. Its pools count once no task has an address
/// of the old ones.
pub(crate) fn refresh(context: &Context) {
    if let Err(error) = set_up(context) {
        tracing::error!(error, "the packet filter keeps the old policy");
    }
}

/// Leaves the table to the kernel before an orderly stop that empties the descriptor store: then
/// nobody may hold its socket. Later versions of systemd keep the store (`$FDSTORE` is theirs), and
/// the table stays owned.
pub(crate) fn release(context: &Context) {
    if std::env::var_os("FDSTORE").is_some() {
        return;
    }
    let links = published(context);
    let Networks { filter, pools } = &mut *context.networks.borrow_mut();
    if let (Some(filter), Some(pools)) = (filter, pools)
        && let Err(error) =
            filter.release(&rules(context, pools), &links.iter().collect::<Vec<_>>())
    {
        tracing::error!(%error, "the table of the packet filter goes with this service");
    }
}
