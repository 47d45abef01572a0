//! What `ports` and `port_map` become.

use super::*;
use crate::translate::ports::{have_no_effect, inside};
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{NetworkIsolationSpec, PortMapping, Resources};
use proto::limits;
use proto::path::Absolute;
use proto::task_spec::Network;
use std::collections::HashMap;
use std::net::SocketAddr;

fn mapping(label: &str, host_ip: &str, value: i32, to: i32) -> PortMapping {
    PortMapping { label: label.to_owned(), value, to, host_ip: host_ip.to_owned() }
}

/// A task with these keys, whose group has these ports.
fn task_with(keys: &[(&str, Value)], ports: Vec<PortMapping>) -> TaskConfig {
    TaskConfig { resources: Some(Resources { ports, ..Resources::default() }), ..task(keys) }
}

fn group_ports() -> Vec<PortMapping> {
    vec![
        mapping("http", "192.0.2.1", 20_001, 80),
        mapping("admin", "2001:db8::1", 20_002, 0),
        mapping("local", "127.0.0.1", 9000, 9000),
        mapping("mapped", "::ffff:192.0.2.1", 20_003, -1),
    ]
}

/// Host address and port, and the port inside, of every port that these keys publish.
fn published(keys: &[(&str, Value)]) -> Vec<(String, u16)> {
    let network = try_task(&task_with(keys, group_ports())).unwrap().network;
    let Network::Private(wanted) = network else { panic!("{network:?}") };
    let place = |address, port| SocketAddr::new(address, port).to_string();
    wanted
        .ports
        .iter()
        .map(|port| (place(port.address, port.host.get()), port.task.get()))
        .collect()
}

fn ports(labels: &[&str]) -> (&'static str, Value) {
    ("ports", list(labels))
}

#[test]
fn labels_are_published_at_their_own_address() {
    let own = |place: &str, task| (place.to_owned(), task);
    // Nothing that the job does not name.
    assert_eq!(published(&[]), []);
    assert_eq!(published(&[ports(&["http"])]), [own("192.0.2.1:20001", 80)]);
    assert_eq!(published(&[ports(&["admin"])]), [own("[2001:db8::1]:20002", 20_002)]);
    assert_eq!(published(&[ports(&["local"])]), [own("127.0.0.1:9000", 9000)]);
    assert_eq!(published(&[ports(&["mapped"])]), [own("192.0.2.1:20003", 20_003)]);
    let both = [own("192.0.2.1:20001", 80), own("[2001:db8::1]:20002", 20_002)];
    assert_eq!(published(&[ports(&["admin", "http"])]), both);
    assert_eq!(published(&[ports(&["http", "admin", "http"])]), both);
    let map = ("port_map", pairs(&[("http", "8080"), ("admin", "22")]));
    let mapped = [own("192.0.2.1:20001", 8080), own("[2001:db8::1]:20002", 22)];
    assert_eq!(published(&[map]), mapped);
}

#[test]
fn ports_that_cannot_be_published_are_named() {
    let refused = |keys: &[(&str, Value)], ports| try_task(&task_with(keys, ports)).unwrap_err();
    let map = |label| ("port_map", pairs(&[(label, "80")]));
    let bad = |host_ip: &str, value| vec![mapping("http", host_ip, value, 80)];
    let many = || (0..=128).map(|n| mapping("http", "192.0.2.1", 20_000 + n, n)).collect();
    let veth = || ("network_veth", Value::from(false));
    let private = || ("private_network", Value::from(true));
    let http = || ports(&["http"]);
    for (text, part) in [
        (
            refused(&[ports(&["htp"])], group_ports()),
            "ports = \"htp\": is no port of the group's network block, which has admin, http, \
             local, mapped (correct the label",
        ),
        (refused(&[map("htp")], group_ports()), "port_map = \"htp\": is no port of the group's"),
        (
            refused(&[http()], vec![]),
            "ports = \"http\": the group's network block has no ports (add port \"http\"",
        ),
        (refused(&[map("http")], vec![]), "port_map = \"http\": the group's network block has no"),
        (refused(&[http()], bad("", 1)), "port \"http\": Nomad gave it the host address \"\""),
        (refused(&[http()], bad("eth0", 1)), "the host address \"eth0\", which is none"),
        (refused(&[http()], bad("::1", 0)), "the host port 0, which is none"),
        (refused(&[http()], bad("::1", 65_536)), "the host port 65536, which is none"),
        (refused(&[http()], many()), "ports: 129, but at most 128 are published"),
        (refused(&[http(), veth()], group_ports()), "ports: excludes network_veth = false"),
        (refused(&[map("x"), veth()], group_ports()), "port_map: excludes network_veth = false"),
        (refused(&[http(), private()], group_ports()), "ports: excludes private_network = true"),
    ] {
        assert!(text.contains(part), "{text}\n{part}");
    }
    assert_eq!(limits::PORTS_MAX, 128);
}

#[test]
fn nomad_learns_the_port_inside() {
    let map = |pairs: &[(&str, i32)]| -> HashMap<_, _> {
        pairs.iter().map(|(label, port)| ((*label).to_owned(), *port)).collect()
    };
    let inside = |keys: &[(&str, Value)]| inside(&task_with(keys, group_ports()));
    assert_eq!(inside(&[]), map(&[]));
    assert_eq!(inside(&[ports(&["http", "admin"])]), map(&[("http", 80), ("admin", 20_002)]));
    assert_eq!(inside(&[("port_map", pairs(&[("http", "8080")]))]), map(&[("http", 8080)]));
}

#[test]
fn ports_have_no_effect_in_a_group_with_a_network() {
    let mut task = task_with(&[ports(&["htp"])], group_ports());
    task.network_isolation_spec = Some(NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: format!("/var/run/netns/{ALLOC}"),
        ..NetworkIsolationSpec::default()
    });
    let joined = Network::Join(Absolute::parse(&format!("/var/run/netns/{ALLOC}")).unwrap());
    assert_eq!(try_task(&task).unwrap().network, joined);
    assert!(have_no_effect(&task, &joined));
    assert!(!have_no_effect(&super::task(&[]), &joined));
    assert!(!have_no_effect(&task, &Network::with_ports(Vec::new())));
}
