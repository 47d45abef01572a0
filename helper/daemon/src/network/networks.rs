//! Who has which address and which port, from the start of a task to the end of its payload.
//!
//! What a task has stands in its unit's record, so a new process finds it again. Trusts the policy
//! for what may be published. Never touches a table or a link that is not the project's own.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use proto::error::Refusal;
use proto::link::{BridgePort, LinkName};
use proto::name::TaskKey;
use tokio::sync::Mutex;
use tokio::task::spawn_local;

use crate::context::Context;
use crate::network::conntrack::{self, Wanted};
use crate::network::elements::Elements;
use crate::network::filter::PacketFilter;
use crate::network::hosts_files::{self, Pending};
use crate::network::links;
use crate::network::pool::{self, Pools};
use crate::network::table::Rules;
use crate::network::threads;
use crate::systemd::notify;
use crate::tasks::record::Record;
use crate::tasks::table::Entry;

/// Name of the packet filter's socket in the descriptor store: the table goes with its last copy.
pub(crate) const STORED: &str = "packet-filter";

/// What a host that has IPv6 switched on has.
const IPV6_OFF: &str = "/proc/sys/net/ipv6/conf/default/disable_ipv6";

/// The networks of all tasks.
#[derive(Default)]
pub(crate) struct Networks {
    pub(super) filter: Option<PacketFilter>,
    /// Known once the table is in the kernel.
    pub(crate) pools: Option<Pools>,
    /// Names of zones' tasks that are to be written.
    pub(crate) pending_hosts: Pending,
    /// Entries for connections that the next look at the kernel's list deletes.
    stale: Vec<Wanted>,
    /// Held by the one that looks.
    look: Rc<Mutex<()>>,
}

/// Takes over the table of an earlier process, or makes it, for the tasks that run. Without it tasks
/// run on, and those that want a network of their own are refused.
pub(crate) async fn take_over(context: &Context, stored: Option<OwnedFd>) {
    // Kept whatever fails from here on: the table goes with it.
    let adopted = stored.map(PacketFilter::adopt).transpose();
    match adopted {
        Ok(filter) => context.networks.borrow_mut().filter = filter,
        Err(error) => tracing::error!(%error, "the packet filter's socket is lost"),
    }
    if let Err(error) = set_up(context) {
        tracing::error!(error, "no packet filter: tasks with a network of their own are refused");
    }
    sweep(context).await;
}

/// Makes the table, or replaces it, for the tasks that run and the policy in force.
pub(crate) fn set_up(context: &Context) -> Result<(), String> {
    let pools = pools(context).map_err(|e| format!("addresses of tasks: {e}"))?;
    let (rules, tasks) = (rules(context, &pools), published(context));
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
    filter.replace(&rules, tasks).map_err(|e| e.to_string())?;
    networks.pools = Some(pools);
    Ok(())
}

/// The elements of the tasks that run.
fn published(context: &Context) -> Vec<Elements> {
    let table = context.table.borrow();
    let running = table.entries().filter(|entry| entry.published);
    running.map(|entry| entry.record.elements()).collect()
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
async fn sweep(context: &Context) {
    let is_over = |entry: &&Entry| !entry.published && !entry.starting;
    let (kept, ended): (Vec<String>, Vec<IpAddr>) = {
        let table = context.table.borrow();
        let kept = table.entries().filter(|entry| !is_over(entry) || !entry.record.is_readable());
        let names = |entry: &Entry| {
            let unit = entry.record.unit();
            [LinkName::from(unit).to_string(), BridgePort::from(unit).to_string()]
        };
        let kept = kept.flat_map(names).collect();
        let ended = table.entries().filter(is_over);
        (kept, ended.flat_map(|entry| entry.record.addresses()).collect())
    };
    match threads::run(|| Ok(links::own_links(&mut links::open()?)?)).await {
        Ok(links) => {
            let left = links.into_iter().filter(|link| !kept.contains(&link.name));
            let deletions: Vec<_> = left.map(|link| spawn_local(delete_left(link.name))).collect();
            // No task is given an address before the old link to it is gone.
            for deletion in deletions {
                if let Err(error) = deletion.await {
                    tracing::error!(%error, "cannot delete a link");
                }
            }
        }
        Err(error) => tracing::error!(%error, "links of ended tasks cannot be looked for"),
    }
    forget_connections(context, ended.into_iter()).await;
}

async fn delete_left(link: String) {
    tracing::info!(link, "link of an ended task: deleted");
    let name = link.clone();
    if let Err(error) = threads::run(move || links::delete(&mut links::open()?, &name)).await {
        tracing::error!(link, %error, "cannot delete a link");
    }
}

/// Publishes a task's ports, and its name in its zone: right before its payload, so that its first
/// listen is reached, and its first instruction finds the others by name.
pub(crate) async fn publish(context: &Context, record: &Record) -> Result<(), Refusal> {
    publish_ports(context, record)?;
    if let Some(zone) = record.link.as_ref().and_then(|link| link.zone.as_ref()) {
        hosts_files::update(context, &zone.name).await;
    }
    Ok(())
}

/// Publishes a task's ports.
pub(crate) fn publish_ports(context: &Context, record: &Record) -> Result<(), Refusal> {
    let failed = |reason: String| Refusal::failed("ports", "table inet nomad_nspawn", reason);
    let elements = record.elements();
    match &mut context.networks.borrow_mut().filter {
        // A task in a network of the operator's needs none for itself.
        _ if elements.is_empty() => {}
        Some(filter) => filter.add(elements.clone()).map_err(|e| failed(e.to_string()))?,
        None => return Err(failed("is not there".into())),
    }
    if let Some(entry) = context.table.borrow_mut().get_mut(&record.key) {
        entry.published = true;
    }
    let senders: Vec<_> = elements.into_places().map(Wanted::UdpTo).collect();
    // A long list of connections may take its time; the payload need not wait for that.
    spawn_local(delete_connections(senders));
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
        if let Err(error) = withdraw(&context, &key).await {
            tracing::error!(%key, error, "stays until its removal");
        }
    });
}

/// Withdraws what a task has. The end of its payload and its removal may both ask: who comes second
/// waits, so that a removed task's address leads nowhere. What fails may be tried again.
pub(crate) async fn withdraw(context: &Rc<Context>, key: &TaskKey) -> Result<(), String> {
    let (record, withdrawn, was_published) = {
        let mut table = context.table.borrow_mut();
        let Some(entry) = table.get_mut(key) else { return Ok(()) };
        let was_published = std::mem::take(&mut entry.published);
        if !entry.record.has_network() {
            return Ok(());
        }
        (entry.record.clone(), entry.withdrawn.clone(), was_published)
    };
    if let Some(filter) = &mut context.networks.borrow_mut().filter {
        filter.remove(record.elements()).map_err(|error| format!("ports: {error}"))?;
    }
    let zone = record.link.as_ref().and_then(|link| link.zone.as_ref());
    if let Some(zone) = zone.filter(|_| was_published) {
        hosts_files::withdraw(context, key.into(), &zone.name);
    }
    let delete = || async {
        if let Some(name) = record.own_link() {
            threads::run(move || links::delete(&mut links::open()?, &name)).await?;
        }
        // After the elements: a client that sends all the while would make a new entry for this
        // task. Before the removal ends: the next run may have the same address.
        forget_connections(context, record.addresses()).await;
        io::Result::Ok(())
    };
    let deleted = withdrawn.get_or_try_init(delete).await;
    deleted.map(drop).map_err(|error| format!("link and addresses: {error}"))
}

/// Deletes the kernel's entries for connections of these addresses of tasks, both ways.
async fn forget_connections(context: &Context, addresses: impl Iterator<Item = IpAddr>) {
    let both = |address| [Wanted::RepliesFrom(address), Wanted::From(address)];
    context.networks.borrow_mut().stale.extend(addresses.flat_map(both));
    // A look takes the kernel 10 ms: one is for all that ended during the last.
    let look = context.networks.borrow().look.clone();
    let _held = look.lock().await;
    let all = std::mem::take(&mut context.networks.borrow_mut().stale);
    delete_connections(all).await;
}

/// Deletes the kernel's entries for connections.
async fn delete_connections(all: Vec<Wanted>) {
    if all.is_empty() {
        return;
    }
    if let Err(error) = threads::run(move || Ok(conntrack::delete(&all)?)).await {
        tracing::warn!(%error, "connections of before may lead to a task that has ended");
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
    let tasks = published(context);
    let Networks { filter, pools, .. } = &mut *context.networks.borrow_mut();
    if let (Some(filter), Some(pools)) = (filter, pools)
        && let Err(error) = filter.release(&rules(context, pools), tasks)
    {
        tracing::error!(%error, "the table of the packet filter goes with this service");
    }
}
