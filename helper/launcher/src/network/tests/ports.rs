//! Ports of the host: held by a server, or only used by a connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::namespace::{Namespace, link, port};

/// What a start with a port of the host reports.
fn start(host: &Namespace, address: &str, number: u16) -> Result<(), String> {
    let started = host.start(&link(vec![port(address, number)]));
    started.map(drop).map_err(|problem| format!("{problem:?}"))
}

fn refused(host: &Namespace, address: &str, number: u16, object: &str) {
    let problem = start(host, address, number).unwrap_err();
    let held = format!("port {number} of {object}");
    let holder = format!("(pid {})", std::process::id());
    assert!(problem.contains(&held), "{held}: {problem}");
    assert!(problem.contains(&holder), "{holder}: {problem}");
    assert!(!host.ip("link show").contains("nv-"), "refused before anything was made");
}

#[test]
fn a_port_that_a_program_of_the_host_serves_on_is_refused() {
    let (host, _lan) = Namespace::host();
    let listen = |at: &str| host.run(|| TcpListener::bind(at).unwrap());
    let receive = |at: &str| host.run(|| UdpSocket::bind(at).unwrap());
    // Where it serves, and which address the message names for a label at 198.51.100.1.
    for (at, object) in [
        ("198.51.100.1:8080", "198.51.100.1"),
        ("0.0.0.0:8080", "198.51.100.1"),
        ("[::]:8080", "198.51.100.1"),
        ("127.0.0.1:8080", "127.0.0.1"),
        ("[::1]:8080", "::1"),
    ] {
        let server = listen(at);
        refused(&host, "198.51.100.1", 8080, object);
        drop(server);
        let server = receive(at);
        refused(&host, "198.51.100.1", 8080, object);
        drop(server);
    }
    let server = listen("[2001:db8:1::1]:8080");
    refused(&host, "2001:db8:1::1", 8080, "2001:db8:1::1");
    // Others are free.
    start(&host, "198.51.100.1", 8080).unwrap();
    start(&host, "2001:db8:1::1", 8081).unwrap();
    drop(server);
    // A label on loopback leads from there alone.
    let server = listen("198.51.100.1:8080");
    start(&host, "127.0.0.1", 8080).unwrap();
    drop(server);
    start(&host, "198.51.100.1", 8080).unwrap();
}

/// A listener whose connections are open or being closed, and then is gone itself.
#[test]
fn connections_of_a_server_that_has_ended_do_not_hold_its_port() {
    let (host, lan) = Namespace::host();
    let server = host.run(|| TcpListener::bind("198.51.100.1:8080").unwrap());
    let connect = || lan.run(|| TcpStream::connect("198.51.100.1:8080").unwrap());
    let mut closing = connect();
    let (accepted, _) = server.accept().unwrap();
    // The end that closes first waits (TIME_WAIT).
    drop(accepted);
    assert_eq!(closing.read(&mut [0; 1]).unwrap(), 0);
    drop(closing);
    let _open = connect();
    let _accepted = server.accept().unwrap();
    drop(server);
    let list = host.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap());
    let states: Vec<_> = list
        .lines()
        .filter(|line| line.contains(": 016433C6:1F90 "))
        .filter_map(|line| line.split_whitespace().nth(3))
        .collect();
    assert!(states.contains(&"06") && states.contains(&"01"), "{list}");
    start(&host, "198.51.100.1", 8080).unwrap();
}

/// nomad#3456: the kernel picks any port for an outgoing connection.
#[test]
fn an_outgoing_connection_does_not_hold_its_port() {
    let (host, lan) = Namespace::host();
    let server = lan.run(|| TcpListener::bind("198.51.100.2:80").unwrap());
    let mut client = host.run(|| TcpStream::connect("198.51.100.2:80").unwrap());
    let (mut accepted, _) = server.accept().unwrap();
    let at = client.local_addr().unwrap();
    assert_eq!(at.ip().to_string(), "198.51.100.1");
    start(&host, "198.51.100.1", at.port()).unwrap();
    // It works on.
    client.write_all(b"x").unwrap();
    accepted.read_exact(&mut [0; 1]).unwrap();

    let udp = host.run(|| {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
        udp.connect("198.51.100.2:53").unwrap();
        udp
    });
    start(&host, "198.51.100.1", udp.local_addr().unwrap().port()).unwrap();
    // And what a client has bound itself, as ssh and others do.
    let client = host.run(|| {
        let v6: SocketAddr = "[2001:db8:1::2]:80".parse().unwrap();
        let _server = lan.run(|| TcpListener::bind(v6).unwrap());
        TcpStream::connect(v6).unwrap()
    });
    start(&host, "2001:db8:1::1", client.local_addr().unwrap().port()).unwrap();
}

#[test]
fn an_address_that_the_host_does_not_have_is_refused() {
    let (host, _lan) = Namespace::host();
    for address in ["198.51.100.9", "2001:db8:1::9"] {
        let problem = start(&host, address, 8080).unwrap_err();
        assert!(problem.contains(&format!("port 8080 of {address}")), "{problem}");
        assert!(problem.contains("is not an address of this host"), "{problem}");
    }
    let mut without = link(vec![port("2001:db8:1::1", 8080)]);
    without.v6 = None;
    let problem = format!("{:?}", host.start(&without).map(drop).unwrap_err());
    assert!(problem.contains("no IPv6"), "{problem}");
}
