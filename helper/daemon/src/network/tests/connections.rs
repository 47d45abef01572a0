//! The kernel's entries for connections: those that would lead past the table are deleted, and no
//! other.

use std::net::{IpAddr, UdpSocket};

use kernel::netlink::{DUMP, Failure, Message, Socket};
use nix::sys::socket::SockProtocol;
use proto::link::Link;

use super::super::conntrack::{self, Wanted};
use super::super::expression::{IPV4, IPV6};
use super::namespaces::{Namespace, strict};
use super::traffic::{HOST4, HOST6, LAN4, LAN6, LONG, SHORT, received, socket_address, with_world};

/// Where replies come from in the kernel's entries for connections in this namespace.
pub(super) fn entries() -> Vec<String> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
    let mut all = Vec::new();
    socket
        .dump(Message::new(0x101, DUMP, &[0; 4]), |_, content| {
            all.push(conntrack::reply_source(&content[4..]).unwrap().to_string());
        })
        .unwrap();
    all.sort();
    all
}

/// A client that sends from one port goes on reaching the ended task, until the entry is deleted.
fn move_a_flow(
    host_address: &'static str,
    client_address: &'static str,
    delete: impl Fn(IpAddr) -> Result<(), Failure> + Send + 'static,
) {
    with_world(strict(), move |mut world| {
        let bind = |place: &Namespace, address: &str, port: u16| {
            place.within(|| UdpSocket::bind((address, port))).unwrap()
        };
        let client = bind(&world.lan, client_address, 40000);
        let bystander = bind(&world.lan, client_address, 40001);
        let (first, second) = (bind(&world.first, "::", 80), bind(&world.second, "::", 80));
        let send = |from: &UdpSocket, port: u16, text: &str| {
            from.send_to(text.as_bytes(), (host_address, port)).unwrap();
        };
        send(&client, 20001, "one");
        let (text, from) = received(&first, LONG).unwrap();
        assert_eq!((text.as_str(), from.port()), ("one", 40000));
        first.send_to(b"answer", from).unwrap();
        let (_, from) = received(&client, LONG).unwrap();
        assert_eq!(from, socket_address(host_address, 20001));
        send(&bystander, 20002, "bystander");
        received(&second, LONG).unwrap();
        let both = entries();
        assert_eq!(both.len(), 2, "{both:?}");

        // The port moves to the other task.
        let [link_of_first, link_of_second] = &world.links;
        world.filter.remove(link_of_first).unwrap();
        world.filter.remove(link_of_second).unwrap();
        let ports = link_of_first.ports.iter().chain(&link_of_second.ports).copied().collect();
        world.filter.add(&Link { ports, ..link_of_second.clone() }).unwrap();
        send(&client, 20001, "two");
        assert_eq!(received(&first, LONG).unwrap().0, "two", "the entry is in use");

        link_of_first.addresses().for_each(|address| delete(address).unwrap());
        assert_eq!(entries(), both[1..], "the other task's alone stays");
        // Nothing to delete.
        link_of_first.addresses().for_each(|address| delete(address).unwrap());
        send(&client, 20001, "three");
        assert_eq!(received(&second, LONG).unwrap().0, "three");
        assert_eq!(received(&first, SHORT), None);
    });
}

fn delete_entries(address: IpAddr) -> Result<(), Failure> {
    conntrack::delete(&[Wanted::RepliesFrom(address)])
}

/// As when many tasks have ended at once.
fn delete_among_many(address: IpAddr) -> Result<(), Failure> {
    let others = (1..=9).map(|number| Wanted::RepliesFrom([192, 0, 2, number].into()));
    conntrack::delete(&others.chain([Wanted::RepliesFrom(address)]).collect::<Vec<_>>())
}

fn delete_by_list(address: IpAddr) -> Result<(), Failure> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
    let family = if address.is_ipv4() { IPV4 } else { IPV6 };
    conntrack::delete_by_list(&mut socket, family, &[Wanted::RepliesFrom(address)])
}

fn delete_by_filter(address: IpAddr) -> Result<(), Failure> {
    let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
    match address {
        IpAddr::V4(_) => conntrack::delete_by_filter(&mut socket, Wanted::RepliesFrom(address)),
        IpAddr::V6(_) => Ok(()),
    }
}

#[test]
fn a_udp_client_reaches_the_new_task() {
    move_a_flow(HOST4, LAN4, delete_entries);
    move_a_flow(HOST6, LAN6, delete_entries);
    move_a_flow(HOST4, LAN4, delete_among_many);
    move_a_flow(HOST6, LAN6, delete_among_many);
}

#[test]
fn entries_are_deleted_by_filter_and_by_list() {
    move_a_flow(HOST4, LAN4, delete_by_list);
    move_a_flow(HOST6, LAN6, delete_by_list);
    // An older kernel refuses the filter, which is when the list is used.
    let result = std::thread::spawn(|| {
        let _namespace = Namespace::new();
        delete_by_filter([10, 64, 0, 11].into())
    });
    match result.join().unwrap() {
        Ok(()) => move_a_flow(HOST4, LAN4, delete_by_filter),
        Err(failure) => println!("this kernel has no filter: {failure}"),
    }
}

/// Before a port is published, its senders leave entries that lead to the host itself.
fn find_early_senders(
    host_address: &'static str,
    client_address: &'static str,
    delete: impl Fn(&mut Socket, Wanted) -> Result<(), Failure> + Send + 'static,
) {
    with_world(strict(), move |mut world| {
        let client = world.lan.within(|| UdpSocket::bind((client_address, 40000))).unwrap();
        let server = world.first.within(|| UdpSocket::bind(("::", 80))).unwrap();
        let send = |text: &str| drop(client.send_to(text.as_bytes(), (host_address, 20001)));
        let link = world.links[0].clone();
        world.filter.remove(&link).unwrap();
        send("one");
        world.filter.add(&link).unwrap();
        send("two");
        assert_eq!(received(&server, SHORT), None, "the entry is in use");
        let to = socket_address(host_address, 20001);
        let mut socket = Socket::open(SockProtocol::NetlinkNetFilter).unwrap();
        // Others stay.
        delete(&mut socket, Wanted::UdpTo(socket_address(host_address, 20002))).unwrap();
        assert_eq!(entries().len(), 1);
        delete(&mut socket, Wanted::UdpTo(to)).unwrap();
        assert_eq!(entries(), [""; 0]);
        send("three");
        assert_eq!(received(&server, LONG).unwrap().0, "three");
    });
}

#[test]
fn senders_from_before_a_port_was_published_find_it() {
    let list = |family| {
        move |socket: &mut Socket, wanted| conntrack::delete_by_list(socket, family, &[wanted])
    };
    find_early_senders(HOST4, LAN4, list(IPV4));
    find_early_senders(HOST6, LAN6, list(IPV6));
    let any = |_: &mut Socket, wanted| conntrack::delete(&[wanted]);
    find_early_senders(HOST4, LAN4, any);
    find_early_senders(HOST6, LAN6, any);
}
