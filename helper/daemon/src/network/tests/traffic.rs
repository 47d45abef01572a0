//! Packets between a network, a host and two tasks, each in a namespace of the test's own.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use proto::link::{Link, Zone};
use proto::name::ZoneName;

use super::super::filter::PacketFilter;
use super::super::table::Rules;
use super::namespaces::{
    NONE, Namespace, compat, in_namespace, link, make_link, run, strict, sysctl, wait_for_carrier,
};

pub(super) const HOST4: &str = "198.51.100.1";
pub(super) const HOST6: &str = "2001:db8:1::1";
pub(super) const LAN4: &str = "198.51.100.9";
pub(super) const LAN6: &str = "2001:db8:1::9";
/// A neighbour that answers at the address of clouds' metadata services.
const METADATA: &str = "169.254.169.254";
const METADATA6: &str = "fd00:ec2::254";
/// How long to wait for what must come, on a busy machine, and for what must not.
pub(super) const LONG: Duration = Duration::from_secs(5);
pub(super) const SHORT: Duration = Duration::from_millis(500);

/// A host on a network, with two tasks. The first has port 20001 of the host, the second 20002.
pub(super) struct World {
    pub(super) host: Namespace,
    pub(super) lan: Namespace,
    pub(super) first: Namespace,
    pub(super) second: Namespace,
    pub(super) links: [Link; 2],
    pub(super) filter: PacketFilter,
}

pub(super) fn with_world(rules: Rules, test: impl FnOnce(World) + Send + 'static) {
    in_namespace(move |host| {
        run("ip link set lo up");
        let lan = host.another();
        run(&format!("ip link add eth0 type veth peer name eth0 netns {}", lan.path()));
        run(&format!("ip addr add {HOST4}/24 dev eth0"));
        run(&format!("ip addr add {HOST6}/64 dev eth0 nodad"));
        sysctl("ipv6/conf/eth0", "accept_dad=0");
        run("ip link set eth0 up");
        run(&format!("ip route add {METADATA} dev eth0"));
        run(&format!("ip route add {METADATA6} dev eth0"));
        sysctl("ipv4/conf/all", "forwarding=1");
        sysctl("ipv6/conf/all", "forwarding=1");
        // Its loopback link is down: it can send to 127.0.0.1 of others.
        lan.within(|| {
            sysctl("ipv4/conf/eth0", "route_localnet=1");
            sysctl("ipv6/conf/eth0", "accept_dad=0");
            run(&format!("ip addr add {LAN4}/24 dev eth0"));
            run(&format!("ip addr add {METADATA}/32 dev eth0"));
            run(&format!("ip addr add {METADATA6}/128 dev eth0 nodad"));
            run(&format!("ip addr add {LAN6}/64 dev eth0 nodad"));
            run("ip link set eth0 up");
            run(&format!("ip route add 10.64.0.0/20 via {HOST4}"));
            run(&format!("ip route add fd64::/64 via {HOST6}"));
            run(&format!("ip route add 127.0.0.1/32 via {HOST4} src {LAN4}"));
        });
        let links = [
            link(11, &[(HOST4, 20001, 80), (HOST6, 20001, 80)]),
            link(12, &[(HOST4, 20002, 80), (HOST6, 20002, 80)]),
        ];
        let mut filter = PacketFilter::open().unwrap();
        filter.replace(&rules, NONE).unwrap();
        run("ip route add unreachable 10.64.0.0/20 proto kernel metric 4278198272");
        run("ip -6 route add unreachable fd64::/64 proto kernel metric 4278198272");
        let [first, second] = links.each_ref().map(make_link);
        links.iter().for_each(|link| filter.add(link).unwrap());
        for place in [&host, &lan, &first, &second] {
            place.within(wait_for_carrier);
        }
        test(World { host, lan, first, second, links, filter });
    });
}

pub(super) fn socket_address(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Listens on a port of a namespace, for both families.
fn listen(place: &Namespace, port: u16) -> TcpListener {
    let listener = place.within(|| TcpListener::bind(("::", port))).unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

fn connect(from: &Namespace, to: SocketAddr, wait: Duration) -> io::Result<TcpStream> {
    from.within(|| TcpStream::connect_timeout(&to, wait))
}

/// The listener's end of a connection that was made.
fn accept(listener: &TcpListener) -> TcpStream {
    let begin = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) if begin.elapsed() > LONG => panic!("nobody connected: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn exchange(one: &mut TcpStream, other: &mut TcpStream) {
    for stream in [&*one, &*other] {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
    }
    let mut bytes = [0; 4];
    one.write_all(b"ping").unwrap();
    other.read_exact(&mut bytes).unwrap();
    other.write_all(b"pong").unwrap();
    one.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"pong");
}

/// Connects and exchanges bytes; the address that the listener sees.
fn reach(from: &Namespace, to: &str, port: u16, listener: &TcpListener) -> String {
    let to = socket_address(to, port);
    let mut client = connect(from, to, LONG).unwrap_or_else(|error| panic!("{to}: {error}"));
    let mut server = accept(listener);
    exchange(&mut client, &mut server);
    server.peer_addr().unwrap().ip().to_canonical().to_string()
}

/// A connection is refused at once.
fn refused(from: &Namespace, to: &str, port: u16) {
    refused_within(SHORT, from, to, port);
}

/// A connection is refused in time. TCP takes an ICMP error over IPv6 for a passing one until its
/// second attempt, after a second.
fn refused_within(limit: Duration, from: &Namespace, to: &str, port: u16) {
    let to = socket_address(to, port);
    let begin = Instant::now();
    let error = connect(from, to, LONG).err().unwrap_or_else(|| panic!("{to} answers"));
    assert!(begin.elapsed() < limit, "{to}: {error} after {:?}", begin.elapsed());
    println!("{to}: {error}");
}

/// A connection gets no answer.
fn dropped(from: &Namespace, to: &str, port: u16) {
    let error = connect(from, socket_address(to, port), SHORT).expect_err("no answer");
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{to}: {error}");
}

/// Text that arrives at a socket in time, and its sender.
pub(super) fn received(socket: &UdpSocket, wait: Duration) -> Option<(String, SocketAddr)> {
    let mut bytes = [0; 64];
    socket.set_read_timeout(Some(wait)).unwrap();
    let (length, from) = socket.recv_from(&mut bytes).ok()?;
    Some((String::from_utf8(bytes[..length].to_vec()).unwrap(), from))
}

/// Sends an echo request (its type is the family's); the type of what comes back.
fn ping(from: &Namespace, to: &str, request: u8) -> u8 {
    let to = socket_address(to, 0);
    let (family, protocol) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    from.within(|| {
        sysctl("ipv4", "ping_group_range=0 0");
        let socket = socket(family, SockType::Datagram, SockFlag::empty(), protocol).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.connect(to).unwrap();
        socket.send(&[request, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        let mut bytes = [0; 64];
        socket.recv(&mut bytes).unwrap();
        bytes[0]
    })
}

#[test]
fn a_published_port_answers_where_it_is_published_and_nowhere_else() {
    with_world(strict(), |world| {
        let World { host, lan, first, second, .. } = &world;
        let server = listen(first, 80);
        assert_eq!(reach(lan, HOST4, 20001, &server), LAN4);
        assert_eq!(reach(lan, HOST6, 20001, &server), LAN6);
        for address in [HOST4, HOST6, "127.0.0.1", "::1"] {
            reach(host, address, 20001, &server);
        }
        reach(host, "10.64.0.11", 80, &server);
        reach(host, "fd64::b", 80, &server);
        assert_eq!(reach(second, HOST4, 20001, &server), "10.64.0.12");
        assert_eq!(reach(second, HOST6, 20001, &server), "fd64::c");
        // The task itself.
        assert_eq!(reach(first, HOST4, 20001, &server), "10.64.0.1");
        assert_eq!(reach(first, HOST6, 20001, &server), "fd64::1");

        refused(lan, HOST4, 20003);
        refused(lan, HOST4, 80);
        refused(lan, "10.64.0.11", 80);
        refused(lan, "fd64::b", 80);
        refused(lan, "10.64.0.99", 80);
        refused_within(LONG, lan, "fd64::99", 80);
        dropped(lan, "127.0.0.1", 20001);
    });
}

#[test]
fn ended_tasks_ports_are_refused() {
    with_world(strict(), |mut world| {
        let server = listen(&world.first, 80);
        reach(&world.lan, HOST4, 20001, &server);
        world.filter.remove(&world.links[0]).unwrap();
        for (place, address) in [
            (&world.lan, HOST4),
            (&world.lan, HOST6),
            (&world.host, HOST4),
            (&world.host, "127.0.0.1"),
            (&world.host, "::1"),
            (&world.second, HOST4),
        ] {
            refused(place, address, 20001);
        }
        let other = listen(&world.second, 80);
        reach(&world.lan, HOST4, 20002, &other);
    });
}

#[test]
fn tasks_reach_the_world_and_not_each_other() {
    with_world(strict(), |world| {
        let World { lan, first, second, .. } = &world;
        let neighbour = listen(lan, 8080);
        assert_eq!(reach(first, LAN4, 8080, &neighbour), HOST4);
        assert_eq!(reach(first, LAN6, 8080, &neighbour), HOST6);
        let _server = listen(first, 80);
        refused(second, "10.64.0.11", 80);
        refused(second, "fd64::b", 80);
        let refusals = run("nft list chain inet nomad_nspawn from_task");
        assert!(refusals.contains("counter packets 2 "), "{refusals}");
    });
}

/// Everything between the two tasks of a zone, and nothing once one of them has left it.
#[test]
fn tasks_of_a_zone_reach_each_other() {
    with_world(strict(), |world| {
        let World { first, second, links, mut filter, .. } = world;
        let member = |number: usize, group| Link {
            zone: ZoneName::new("z").ok().map(|name| Zone { name, group }),
            ..links[number].clone()
        };
        let place = |link: &Link, group| run(&format!("ip link set {} group {group}", link.name));
        let server = listen(&first, 80);
        for (groups, together) in [([7, 7], true), ([7, 8], false), ([7, 0], false), ([8, 8], true)]
        {
            let [one, two] = [0, 1].map(|number| member(number, groups[number]));
            place(&one, groups[0]);
            place(&two, groups[1]);
            filter.add(&one).unwrap();
            if groups[1] != 0 {
                filter.add(&two).unwrap();
            }
            for (at, own, echo) in
                [("10.64.0.11", "10.64.0.12", (8, 0)), ("fd64::b", "fd64::c", (128, 129))]
            {
                if together {
                    // With its own address, and replies the other way.
                    assert_eq!(reach(&second, at, 80, &server), own);
                    assert_eq!(ping(&second, at, echo.0), echo.1);
                } else {
                    refused(&second, at, 80);
                }
            }
            // As long as one is there, so is the zone's element.
            filter.remove(&two).unwrap();
            let zones = run("nft list set inet nomad_nspawn zones");
            assert!(zones.contains(&format!("{} . {}", groups[0], groups[0])), "{zones}");
            filter.remove(&one).unwrap();
            assert!(!run("nft list set inet nomad_nspawn zones").contains("elements"));
        }
        refused(&second, "10.64.0.11", 80);
        refused_within(LONG, &second, "fd64::b", 80);
    });
}

#[test]
fn the_host_and_closed_addresses_are_reached_as_the_policy_has_it() {
    with_world(strict(), |world| {
        let World { host, lan, first, links, mut filter, .. } = world;
        let (host, lan, first) = (&host, &lan, &first);
        let (dns, ssh) = (listen(host, 53), listen(host, 22));
        let metadata = listen(lan, 80);
        reach(first, HOST4, 53, &dns);
        reach(first, HOST6, 53, &dns);
        for address in [HOST4, HOST6, "10.64.0.1", "fd64::1"] {
            refused(first, address, 22);
        }
        refused(first, METADATA, 80);
        refused_within(LONG, first, METADATA6, 80);
        for (gateway, request, reply) in [("10.64.0.1", 8, 0), ("fd64::1", 128, 129)] {
            assert_eq!(ping(first, gateway, request), reply);
        }

        filter.replace(&compat(), &links).unwrap();
        for address in [HOST4, HOST6, "10.64.0.1", "fd64::1"] {
            reach(first, address, 22, &ssh);
        }
        reach(first, METADATA, 80, &metadata);
        reach(first, METADATA6, 80, &metadata);
    });
}

#[test]
fn a_tasks_packets_to_the_hosts_loopback_are_dropped() {
    with_world(compat(), |world| {
        let World { host, first, filter, .. } = world;
        let private = host.within(|| UdpSocket::bind("127.0.0.1:9999")).unwrap();
        let client = first.within(|| {
            run("ip addr del 127.0.0.1/8 dev lo");
            sysctl("ipv4/conf/host0", "route_localnet=1");
            run("ip route add 127.0.0.1/32 via 10.64.0.1 src 10.64.0.11");
            UdpSocket::bind("10.64.0.11:0").unwrap()
        });
        client.send_to(b"one", "127.0.0.1:9999").unwrap();
        assert_eq!(received(&private, SHORT), None);
        dropped(&first, "127.0.0.1", 20002);
        // It is the table that keeps them out.
        drop(filter);
        // A program that another test starts has a copy of its socket up to its execve.
        let arrives = || {
            client.send_to(b"two", "127.0.0.1:9999").unwrap();
            received(&private, SHORT).is_some_and(|(text, _)| text == "two")
        };
        assert!((0..20).any(|_| arrives()));
    });
}

#[test]
fn a_task_sends_from_its_own_address_alone() {
    with_world(strict(), |world| {
        let World { lan, second, .. } = &world;
        let neighbour = lan.within(|| UdpSocket::bind((LAN4, 5000))).unwrap();
        let neighbour6 = lan.within(|| UdpSocket::bind((LAN6, 5000))).unwrap();
        second.within(|| {
            for address in ["10.64.0.11/32", "198.51.100.77/32", "fd64::b/128"] {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                run(&format!("ip addr add {address} dev host0 {nodad}"));
            }
            for (source, to) in [
                ("10.64.0.11", LAN4),
                ("198.51.100.77", LAN4),
                ("10.64.0.12", LAN4),
                ("fd64::b", LAN6),
                ("fd64::c", LAN6),
            ] {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.send_to(source.as_bytes(), (to, 5000)).unwrap();
            }
        });
        for (socket, own, seen) in
            [(&neighbour, "10.64.0.12", HOST4), (&neighbour6, "fd64::c", HOST6)]
        {
            let (text, from) = received(socket, LONG).unwrap();
            assert_eq!(text, own, "the first that arrives");
            assert_eq!(from.ip(), seen.parse::<IpAddr>().unwrap());
            assert_eq!(received(socket, SHORT), None, "another arrived");
        }
    });
}

#[test]
fn connections_go_on_while_the_table_is_replaced_and_others_are_flushed() {
    with_world(strict(), |mut world| {
        let server = listen(&world.first, 80);
        let mut client = connect(&world.lan, socket_address(HOST4, 20001), LONG).unwrap();
        let mut at_task = accept(&server);
        let links = world.links.clone();
        for round in 0..20 {
            run("nft flush ruleset");
            exchange(&mut client, &mut at_task);
            if round % 2 == 0 {
                world.filter.release(&strict(), &links).unwrap();
                exchange(&mut client, &mut at_task);
            }
            world.filter.replace(&strict(), &links).unwrap();
            exchange(&mut client, &mut at_task);
            reach(&world.lan, HOST6, 20001, &server);
        }
    });
}
