//! P21 by trying: what a machine of the local network finds open, of all there is.

use crate::{HOST_4, HOST_6, OTHER_4, address, alone, assert_same, serve};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Ports of the address that answer a client of the local network; all others refuse at once.
fn open_ports(lan: &File, address: IpAddr) -> Vec<u16> {
    setns(lan, CloneFlags::CLONE_NEWNET).unwrap();
    let limit = Duration::from_secs(5);
    let answers =
        |port: &u16| match TcpStream::connect_timeout(&SocketAddr::new(address, *port), limit) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => false,
            Err(error) => panic!("{address}, port {port}: {error}"),
        };
    (1..=u16::MAX).filter(answers).collect()
}

#[test]
fn p21_of_all_addresses_and_ports_those_that_are_published_answer() {
    let (_alone, host) = alone();
    let rig = &host.stand.rig;
    let server = serve(&host.stand, &[HOST_4, HOST_6], 20_015);
    let inner = address(&server);
    let lan = File::open(format!("/proc/{}/root/run/netns/lan", rig.leader())).unwrap();
    let published: &[u16] = &[20_015];
    let expected: [(&str, &[u16]); 4] =
        [(HOST_4, published), (HOST_6, published), (OTHER_4, &[]), (&inner, &[])];
    std::thread::scope(|scope| {
        for (address, open) in expected {
            let lan = &lan;
            // A thread of its own each: it stays in the namespace.
            scope.spawn(move || {
                assert_eq!(open_ports(lan, address.parse().unwrap()), open, "{address}");
            });
        }
    });
    server.stop("SIGKILL").unwrap();
    assert_same(host);
}
