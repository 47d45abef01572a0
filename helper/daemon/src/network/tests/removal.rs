//! What a task leaves is taken away beside the daemon's other work, once, and for good.

use std::net::UdpSocket;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::SockProtocol;
use proto::link::{BridgePort, Link, LinkName};
use proto::name::{AllocId, Instance, TaskKey, TaskName};
use proto::unit_id::UnitId;
use tokio::runtime;
use tokio::task::{LocalSet, spawn_local};

use super::super::allocate::check_attached;
use super::super::attached::Attached;
use super::super::filter::PacketFilter;
use super::super::networks;
use super::connections::entries;
use super::namespaces::{NONE, Namespace, in_namespace, link, make_link, run, strict};
use crate::context::Context;
use crate::tasks::record::{Form, Record};
use crate::tasks::table::Entry;

/// A daemon of this namespace with so many tasks, and the namespaces to which their links lead.
fn with_tasks(count: u16) -> (Rc<Context>, Vec<TaskKey>, Vec<Namespace>) {
    let context = Rc::new(Context::new(policy::parse("").unwrap()));
    let mut filter = PacketFilter::open().unwrap();
    filter.replace(&strict(), NONE).unwrap();
    let tasks = (0..count).map(|number| add_task(&context, &mut filter, number));
    let (keys, namespaces) = tasks.unzip();
    context.networks.borrow_mut().filter = Some(filter);
    (context, keys, namespaces)
}

fn add_task(context: &Context, filter: &mut PacketFilter, number: u16) -> (TaskKey, Namespace) {
    let task = TaskName::new("web").unwrap();
    let key = TaskKey { alloc: AllocId([7; 16]), task, instance: Instance(number.into()) };
    let unit = UnitId::from(&key);
    let made = link(number + 2, &[("198.51.100.1", 20000 + number, 80)]);
    let made = Link { name: unit.into(), ..made };
    let record = Record { form: Form::Whole, link: Some(made.clone()), ..Record::parse(unit, &[]) };
    let namespace = make_link(&made);
    filter.add(&made).unwrap();
    let mut entry = Entry::new(Record { key: key.clone(), ..record }, 0, false);
    entry.published = true;
    context.table.borrow_mut().insert(entry);
    (key, namespace)
}

/// Runs it as the daemon runs: on one thread.
fn on_one_thread(work: impl Future<Output = ()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work);
}

fn links() -> usize {
    run("ip -o link show type veth").lines().filter(|link| link.contains(": nv-")).count()
}

/// The kernel takes 15 ms for each, and 20 tasks may end at once.
#[test]
fn the_daemon_answers_while_twenty_links_are_deleted() {
    in_namespace(|_host| {
        // Another program of the machine may take the processor.
        let answers = |_| {
            let (context, keys, _namespaces) = with_tasks(20);
            assert_eq!(links(), 20);
            let (mut all, mut longest) = (Duration::ZERO, Duration::ZERO);
            on_one_thread(async {
                let begin = Instant::now();
                let removals: Vec<_> = keys
                    .into_iter()
                    .map(|key| {
                        let context = context.clone();
                        spawn_local(
                            async move { networks::withdraw(&context, &key).await.unwrap() },
                        )
                    })
                    .collect();
                while removals.iter().any(|removal| !removal.is_finished()) {
                    let last = Instant::now();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    longest = longest.max(last.elapsed());
                }
                all = begin.elapsed();
            });
            println!("20 links deleted in {all:?}, longest pause {longest:?}");
            assert_eq!(links(), 0);
            assert!(!run("nft list table inet nomad_nspawn").contains("198.51.100.1"));
            longest < Duration::from_millis(10).max(all / 2)
        };
        assert!((0..5).any(answers));
    });
}

/// Its address is another's, or the next run's, as soon as a removal has ended.
#[test]
fn a_removal_waits_for_what_the_end_of_the_payload_has_begun() {
    in_namespace(|_host| {
        let (context, keys, _namespaces) = with_tasks(5);
        assert_eq!(links(), 5);
        on_one_thread(async {
            for key in &keys {
                let name =
                    context.table.borrow().get(key).unwrap().record.link.clone().unwrap().name;
                let exists = || links_named(&name.to_string());
                let (first, of_first) = (context.clone(), key.clone());
                let at_end =
                    spawn_local(
                        async move { networks::withdraw(&first, &of_first).await.unwrap() },
                    );
                // It has begun, and waits for the kernel.
                tokio::task::yield_now().await;
                networks::withdraw(&context, key).await.unwrap();
                assert!(!exists(), "{name} is there after the removal");
                at_end.await.unwrap();
                // A third time, as when a removal is asked for again.
                networks::withdraw(&context, key).await.unwrap();
            }
        });
        assert_eq!(links(), 0);
    });
}

/// Else the next run, at the same address, would lose connections to a late clean-up.
#[test]
fn connections_are_forgotten_when_a_removal_has_ended() {
    in_namespace(|_host| {
        let (context, keys, _namespaces) = with_tasks(2);
        let addresses = ["10.64.0.2:9", "10.64.0.3:9", "[fd64::2]:9", "[fd64::3]:9"];
        for address in addresses {
            let socket = UdpSocket::bind(if address.contains('[') { "[::]:0" } else { "0:0" });
            socket.unwrap().send_to(b"x", address).unwrap();
        }
        assert_eq!(entries(), ["10.64.0.2", "10.64.0.3", "fd64::2", "fd64::3"]);
        on_one_thread(async {
            networks::withdraw(&context, &keys[0]).await.unwrap();
            assert_eq!(entries(), ["10.64.0.3", "fd64::3"]);
            networks::withdraw(&context, &keys[1]).await.unwrap();
            assert_eq!(entries(), [""; 0]);
        });
    });
}

/// What ended while there was no daemon, and what belongs to no task.
#[test]
fn links_of_ended_tasks_are_gone_before_a_new_daemon_answers() {
    in_namespace(|_host| {
        let (context, keys, mut namespaces) = with_tasks(3);
        let unknown = link(99, &[]);
        namespaces.push(make_link(&unknown));
        run("ip link add nv-of-another type veth peer name nv-peer");
        context.networks.borrow_mut().filter = None;
        let name = |key: &TaskKey| LinkName::from(UnitId::from(key)).to_string();
        context.table.borrow_mut().get_mut(&keys[1]).unwrap().published = false;
        on_one_thread(networks::take_over(&context, None));
        assert!(links_named(&name(&keys[0])) && links_named(&name(&keys[2])));
        assert!(!links_named(&name(&keys[1])) && !links_named(&unknown.name.to_string()));
        assert!(run("ip link").contains("nv-of-another"));
        let table = run("nft list table inet nomad_nspawn");
        assert!(table.contains("20000") && !table.contains("20001"), "{table}");
        // No connection is looked for, which takes its time.
        context.table.borrow_mut().remove(&keys[1]);
        namespaces.push(make_link(&unknown));
        context.networks.borrow_mut().filter = None;
        on_one_thread(networks::take_over(&context, None));
        assert!(links_named(&name(&keys[0])) && !links_named(&unknown.name.to_string()));
    });
}

/// A bridge's port is as slow to go, and its address is one that a job names: another may at once.
#[test]
fn an_address_on_a_bridge_is_free_when_its_port_is_gone() {
    in_namespace(|_host| {
        let (context, _, _namespaces) = with_tasks(0);
        let task = TaskName::new("bridged").unwrap();
        let key = TaskKey { alloc: AllocId([8; 16]), task, instance: Instance(1) };
        let unit = UnitId::from(&key);
        let attached = Attached::read("b=br0,a=192.0.2.9").unwrap();
        let record = Record {
            form: Form::Whole,
            key: key.clone(),
            attached: Some(attached.clone()),
            ..Record::parse(unit, &[])
        };
        let mut entry = Entry::new(record, 0, false);
        entry.published = true;
        context.table.borrow_mut().insert(entry);
        let (port, unknown) = (BridgePort::from(unit).to_string(), "nb-0123456789ab");
        run(&format!("ip link add {port} type veth peer name peer0"));
        run(&format!("ip link add {unknown} type veth peer name peer1"));
        context.networks.borrow_mut().filter = None;
        on_one_thread(networks::take_over(&context, None));
        assert!(links_named(&port) && !links_named(unknown));
        on_one_thread(async {
            let (of_end, ended) = (context.clone(), key.clone());
            let at_end =
                spawn_local(async move { networks::withdraw(&of_end, &ended).await.unwrap() });
            tokio::task::yield_now().await;
            let refused = check_attached(&context, &attached).unwrap_err().to_string();
            assert!(refused.contains("192.0.2.9") && refused.contains("task bridged"), "{refused}");
            at_end.await.unwrap();
            assert!(!links_named(&port));
            check_attached(&context, &attached).unwrap();
        });
    });
}

fn links_named(name: &str) -> bool {
    let mut socket = kernel::netlink::Socket::open(SockProtocol::NetlinkRoute).unwrap();
    let links = super::super::links::own_links(&mut socket).unwrap();
    links.iter().any(|link| link.name == name)
}
