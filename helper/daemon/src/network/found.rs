//! Addresses that a container gets by itself: waiting for them, and publishing ports at them.
//!
//! They come from systemd-machined, which reads them in the container's network namespace: root in
//! the container chooses them. So none is taken that is the host's or another task's, and ports lead
//! only to one that the host reaches over the container's own link. An address ends no task.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::error::{Code, Refusal};
use proto::name::TaskKey;
use proto::plan::{Plan, PlannedNetwork};
use proto::task_spec::process::Ready;

use crate::context::Context;
use crate::network::{links, networks};
use crate::process::Process;
use crate::systemd::machined;
use crate::tasks::record::Record;
use crate::tasks::table::Entry;

/// Pauses between two looks: the first, the longest of a start, and the longest after it.
const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(30);
/// Time for an IPv4 address to follow one of IPv6, which routers announce sooner.
const V4: Duration = Duration::from_secs(2);
/// Addresses of one container that are looked at.
const MOST: usize = 16;

/// How a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    limit_s: u32,
    /// Whether the start fails without one.
    required: bool,
}

impl Wait {
    /// `None` for a task that has its addresses before it runs, or needs none.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let comes_later = match &plan.network {
            PlannedNetwork::Container { container, .. } => Some(container.wait_s),
            PlannedNetwork::Attached { attached, .. } if attached.addresses().next().is_none() => {
                None
            }
            _ => return None,
        };
        match plan.process.ready {
            Ready::Network { timeout_s } => Some(Self { limit_s: timeout_s, required: true }),
            _ => comes_later.map(|limit_s| Self { limit_s, required: false }),
        }
    }

    /// Waits until the task has an address or has ended; the caller holds the task's gate.
    pub(crate) async fn run(
        self,
        context: &Rc<Context>,
        record: &Record,
        main: &Process,
    ) -> Result<(), Refusal> {
        let key = &record.key;
        machined::enter_held(context, key).await;
        let mut why = String::new();
        let limit = Duration::from_secs(self.limit_s.into());
        let found = tokio::time::timeout(limit, poll(context, key, LONGEST, &mut why));
        tokio::select! {
            found = found => if found.is_ok() { return Ok(()) },
            _ = main.await_end() => return Ok(()),
        }
        let reason = format!("the task has no address after {} s{why}", self.limit_s);
        if self.required {
            let hint = "raise the timeout of the ready block, or see to the host's DHCP server \
                        (systemd-networkd) and the container's client";
            let reason = format!("{reason}; {hint}");
            return Err(Refusal::new(Code::Failed, "ready", "network", reason));
        }
        let note = format!(
            "network: {reason}; it runs on, and its ports lead to it once it has one. With \
             network_setup = \"container\" the host needs systemd-networkd (or another DHCP server \
             on the link), and the image a DHCP client"
        );
        tracing::warn!(%key, note);
        context.table.borrow_mut().note(key, note);
        Ok(())
    }
}

/// Goes on looking, for a task that has no address yet, until it has one or has ended.
pub(crate) fn follow(context: &Rc<Context>, key: &TaskKey) {
    let leader = {
        let table = context.table.borrow();
        let Some(entry) = table.get(key) else { return };
        let attached = entry.record.attached.as_ref();
        if !attached.is_some_and(|it| it.kind.is_containers() && it.addresses.is_empty()) {
            return;
        }
        entry.leader.clone()
    };
    let Some(leader) = leader else { return };
    let (context, key) = (context.clone(), key.clone());
    tokio::task::spawn_local(async move {
        let mut why = String::new();
        tokio::select! {
            () = poll(&context, &key, LATER, &mut why) => {}
            _ = leader.await_end() => {}
        }
    });
}

/// Looks until there is an address, and enters it. `why`: what went wrong at the last look.
async fn poll(context: &Context, key: &TaskKey, longest: Duration, why: &mut String) {
    let mut pause = FIRST;
    let mut first_seen = None;
    loop {
        match look(context, key).await {
            Ok(None) => return,
            Ok(Some(found)) => {
                let seen = *first_seen.get_or_insert_with(Instant::now);
                let is_enough = found.iter().any(|it| it.address.is_ipv4()) || seen.elapsed() > V4;
                if !found.is_empty() && is_enough {
                    return enter(context, key, &found);
                }
                if found.is_empty() {
                    first_seen = None;
                }
                why.clear();
            }
            Err(error) => *why = format!(" ({error})"),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(longest);
    }
}

/// An address of a container.
struct Found {
    address: IpAddr,
    /// Whether the host reaches it over the container's link.
    is_reached: bool,
}

/// The addresses that are the task's alone; `None` when it is gone.
async fn look(context: &Context, key: &TaskKey) -> Result<Option<Vec<Found>>, String> {
    let (machine, attached) = {
        let table = context.table.borrow();
        let Some(entry) = table.get(key) else { return Ok(None) };
        let Some(attached) = entry.record.attached.clone() else { return Ok(None) };
        // A machine of that name could be another's.
        if !entry.registered {
            return Err("systemd-machined does not have the task".to_owned());
        }
        (entry.record.machine.clone(), attached)
    };
    let all = machined::addresses(context, machine.as_str()).await?;
    let mut socket = links::open().map_err(|e| e.to_string())?;
    let via = links::index(&mut socket, &attached.via);
    let mut found = Vec::new();
    for address in all.into_iter().filter(|it| is_of_a_network(*it)).take(MOST) {
        let pools = context.networks.borrow().pools;
        let way = links::way(&mut socket, address);
        let is_others = |entry: &Entry| {
            entry.record.key != *key && entry.record.addresses().any(|its| its == address)
        };
        let has_another = context.table.borrow().entries().any(is_others);
        if has_another || way.is_local || pools.is_some_and(|pools| pools.holds(address)) {
            tracing::warn!(%key, %address, "is not the task's own, and is not taken");
            continue;
        }
        found.push(Found { address, is_reached: way.link.is_some() && way.link == via });
    }
    Ok(Some(found))
}

/// Whether others can have a use for it.
fn is_of_a_network(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Enters the addresses, IPv4 first, and publishes the ports.
fn enter(context: &Context, key: &TaskKey, found: &[Found]) {
    let mut addresses: Vec<_> = found.iter().map(|it| it.address).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    let record = {
        let mut table = context.table.borrow_mut();
        let Some(entry) = table.get_mut(key) else { return };
        // What it had is withdrawn already.
        if entry.leader.as_ref().is_some_and(Process::has_ended) {
            return;
        }
        let Some(attached) = &mut entry.record.attached else { return };
        attached.addresses = addresses;
        // Ports lead to the first of each family that is reached.
        let is_reached =
            |address: &IpAddr| found.iter().any(|it| it.is_reached && it.address == *address);
        attached.addresses.sort_by_key(|it| (it.is_ipv6(), !is_reached(it)));
        let mut reached = attached.clone();
        reached.addresses.retain(is_reached);
        if reached.ports.iter().any(|port| reached.address_for(port).is_none()) {
            let note = format!(
                "network: a port cannot lead to the task, because this host does not reach its \
                 address over {}",
                reached.via
            );
            tracing::warn!(%key, note);
            attached.ports.retain(|port| reached.address_for(port).is_some());
            entry.notes.push(note);
        }
        tracing::info!(%key, addresses = ?attached.addresses, "the task has its addresses");
        entry.record.clone()
    };
    if let Err(error) = networks::publish_ports(context, &record) {
        tracing::error!(%key, %error, "its ports do not lead to it");
        context.table.borrow_mut().note(key, format!("network: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_no_use_to_others_are_not_reported() {
        let is_one = |text: &str| is_of_a_network(text.parse().unwrap());
        for text in
            ["127.0.0.1", "::1", "169.254.3.4", "fe80::1", "0.0.0.0", "224.0.0.1", "ff02::1"]
        {
            assert!(!is_one(text), "{text}");
        }
        assert!(is_one("192.0.2.9") && is_one("2001:db8::9") && is_one("fd00::9"));
    }
}
