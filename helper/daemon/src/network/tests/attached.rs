//! Where addresses that a container has chosen lead, and what a published port leads to a bridge.

use std::net::IpAddr;

use super::super::attached::Attached;
use super::super::elements::Elements;
use super::super::filter::PacketFilter;
use super::super::links;
use super::namespaces::{NONE, in_namespace, run, strict};

fn attached(text: &str) -> Attached {
    Attached::read(text).unwrap()
}

#[test]
fn a_way_is_over_a_link_alone_or_none() {
    in_namespace(|_host| {
        run("ip link set lo up");
        run("ip link add br0 type bridge");
        run("ip address add 192.0.2.1/24 dev br0");
        run("ip link property add dev br0 altname ve-a-machine-with-a-long-name");
        run("ip link set br0 up");
        run("ip route add default via 192.0.2.254");
        let mut socket = links::open().unwrap();
        let index = links::index(&mut socket, "br0");
        assert!(index.is_some());
        assert_eq!(links::index(&mut socket, "ve-a-machine-with-a-long-name"), index);
        assert_eq!(links::index(&mut socket, "br1"), None);
        let mut way = |text: &str| {
            let way = links::way(&mut socket, text.parse::<IpAddr>().unwrap());
            (way.is_local, way.link)
        };
        assert_eq!(way("192.0.2.9"), (false, index));
        assert!(way("192.0.2.1").0 && way("127.0.0.5").0);
        // A router's business: it may lead to anybody.
        assert_eq!(way("198.51.100.9"), (false, None));
        assert_eq!(way("2001:db8::9"), (false, None));
    });
}

#[test]
fn ports_lead_to_known_addresses_alone() {
    let none = Elements::from(&attached("v=ve-web,p=198.51.100.1:20001-80"));
    assert!(none.is_empty());
    let one = attached("b=br0,a=192.0.2.9,p=198.51.100.1:20001-80,p=[2001:db8:1::1]:20001-80");
    let places: Vec<String> =
        Elements::from(&one).into_places().map(|place| place.to_string()).collect();
    // Neither loopback, nor the family without an address.
    assert_eq!(places, ["198.51.100.1:20001"]);
}

#[test]
fn elements_come_and_go() {
    in_namespace(|_host| {
        let mut filter = PacketFilter::open().unwrap();
        filter.replace(&strict(), NONE).unwrap();
        let empty = run("nft list table inet nomad_nspawn");
        let bridged = attached(
            "b=br0,a=192.0.2.9,a=2001:db8::9,p=198.51.100.1:20001-80,p=[2001:db8:1::1]:20001-80",
        );
        let mut routed = attached("v=ve-web,p=198.51.100.1:20002-80");
        routed.addresses.push([10, 0, 0, 9].into());
        filter.add(&bridged).unwrap();
        filter.add(&routed).unwrap();
        let listed = run("nft list table inet nomad_nspawn");
        for part in [
            "tcp . 198.51.100.1 . 20001 : 192.0.2.9 . 80",
            "udp . 2001:db8:1::1 . 20001 : 2001:db8::9 . 80",
            "tcp . 198.51.100.1 . 20002 : 10.0.0.9 . 80",
            "elements = { 192.0.2.9 }",
            "elements = { 2001:db8::9 }",
            "elements = { 10.0.0.9 . 10.0.0.9 }",
        ] {
            assert!(listed.contains(part), "{part}: {listed}");
        }
        assert!(!listed.contains("192.0.2.9 . 192.0.2.9") && !listed.contains("127.0.0.1 ."));
        filter.remove(&bridged).unwrap();
        filter.remove(&routed).unwrap();
        filter.remove(&routed).unwrap();
        assert_eq!(run("nft list table inet nomad_nspawn"), empty);
    });
}
