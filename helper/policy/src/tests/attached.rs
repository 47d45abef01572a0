//! Bridges, macvlan, and networks that systemd-nspawn makes.

use super::{check, check_invalid, networks, port, row};
use crate::*;
use proto::link::Mac;
use proto::name::{LinkZoneName, ParentName};
use proto::plan::{NetworkOwner, PlannedNetwork};
use proto::task_spec::network::{Address, Attached, Container, ContainerLink, Parent, Port};
use proto::task_spec::process::Ready;
use proto::task_spec::{Network, TaskSpec};

fn name(text: &str) -> ParentName {
    ParentName::new(text).unwrap()
}

fn address<A: std::str::FromStr>(text: &str) -> Option<Address<A>> {
    let (address, bits) = text.split_once('/').unwrap_or((text, ""));
    Some(Address { address: address.parse().ok()?, bits: bits.parse().ok() })
}

fn bridge(name_of: &str, v4: &str, v6: &str, ports: &[(&str, u16)]) -> Attached {
    let ports: Vec<Port> = ports.iter().map(|(address, host)| port(address, *host, 80)).collect();
    let parent = Parent::Bridge(name(name_of));
    Attached { parent, v4: address(v4), v6: address(v6), mac: None, ports }
}

fn container(link: ContainerLink, wait_s: u32, ports: Vec<Port>) -> Network {
    Network::Container(Container { link, ports, wait_s })
}

const BRIDGE: &str = "[network]\nallow = [\"bridge:br0\"]";
const BRIDGES: &str = "[network]\nallow = [\"bridge:br*\"]";
const MACVLAN: &str = "[network]\nallow = [\"macvlan:eth0\"]";
const VETH: &str = "[network]\nallow = [\"container\", \"veth\"]";

#[test]
fn what_a_task_is_attached_to_is_listed() {
    let allow = "network.allow";
    let to = |name: &str| networks(Network::Attached(bridge(name, "", "", &[])));
    let macvlan = |text: &str| {
        let parent = Parent::Macvlan(name(text));
        networks(Network::Attached(Attached { parent, ..bridge("br0", "", "", &[]) }))
    };
    let made = |link| networks(container(link, 30, Vec::new()));
    let zone = || made(ContainerLink::Zone(LinkZoneName::new("shop").unwrap()));
    check(vec![
        row(allow, "\"bridge:br0\" added to [network] allow", ("", to("br0")), (BRIDGE, to("br0"))),
        row(allow, "\"bridge:br1\"", (BRIDGE, to("br1")), (BRIDGES, to("br1"))),
        row(allow, "\"bridge:eth0\"", (MACVLAN, to("eth0")), ("preset = \"compat\"", to("eth0"))),
        row(allow, "\"macvlan:eth0\"", (BRIDGES, macvlan("eth0")), (MACVLAN, macvlan("eth0"))),
        row(allow, "\"macvlan:eth1\"", (MACVLAN, macvlan("eth1")), (MACVLAN, macvlan("eth0"))),
        row(
            allow,
            "\"container\"",
            ("", made(ContainerLink::Veth)),
            (VETH, made(ContainerLink::Veth)),
        ),
        row(
            allow,
            "\"veth\"",
            ("[network]\nallow = [\"container\"]", made(ContainerLink::Veth)),
            ("preset = \"compat\"", made(ContainerLink::Veth)),
        ),
        row(
            allow,
            "\"zone\"",
            (VETH, zone()),
            ("[network]\nallow = [\"zone\", \"container\"]", zone()),
        ),
        row(
            allow,
            "\"bridge:br0\"",
            (VETH, made(ContainerLink::Bridge(name("br0")))),
            ("preset = \"compat\"", made(ContainerLink::Bridge(name("br0")))),
        ),
        row(
            allow,
            "\"container\"",
            (MACVLAN, made(ContainerLink::Macvlan(name("eth0")))),
            (
                "[network]\nallow = [\"macvlan:*\", \"container\"]",
                made(ContainerLink::Macvlan(name("eth0"))),
            ),
        ),
        row(
            "network.ports",
            "host port 192.0.2.1:80",
            (
                BRIDGE,
                networks(Network::Attached(bridge("br0", "10.0.0.9", "", &[("192.0.2.1", 80)]))),
            ),
            (
                BRIDGE,
                networks(Network::Attached(bridge("br0", "10.0.0.9", "", &[("192.0.2.1", 8080)]))),
            ),
        ),
    ]);
}

#[test]
fn addresses_are_those_of_one_interface() {
    let with = |v4: &str, v6: &str| Network::Attached(bridge("br0", v4, v6, &[]));
    let judged = |network: Network| {
        let change = networks(network);
        let mut spec: TaskSpec = super::spec();
        change(&mut spec);
        decide(spec, &parse("preset = \"compat\"").unwrap())
    };
    for v4 in ["10.0.0.9", "10.0.0.9/1", "10.0.0.9/32", "198.51.100.9/24"] {
        assert!(judged(with(v4, "")).is_ok(), "{v4}");
    }
    for (v4, v6, words) in [
        ("127.0.0.9", "", "must be the address of one interface"),
        ("169.254.1.1", "", "must be the address of one interface"),
        ("224.0.0.1", "", "must be the address of one interface"),
        ("255.255.255.255", "", "must be the address of one interface"),
        ("0.0.0.0", "", "must be the address of one interface"),
        ("10.0.0.9/0", "", "must be 1 to 32"),
        ("10.0.0.9/33", "", "must be 1 to 32"),
        ("", "::1", "must be the address of one interface"),
        ("", "fe80::9", "must be the address of one interface"),
        ("", "ff02::9", "must be the address of one interface"),
        ("", "::ffff:10.0.0.9", "must be the address of one interface"),
        ("", "2001:db8::9/129", "must be 1 to 128"),
    ] {
        let refusal = judged(with(v4, v6)).unwrap_err().refusal;
        assert!(refusal.to_string().contains(words), "{v4} {v6}: {refusal}");
    }
    let mac =
        |mac| Network::Attached(Attached { mac: Some(Mac(mac)), ..bridge("br0", "", "", &[]) });
    assert!(judged(mac([2, 0, 0, 0, 0, 1])).is_ok());
    for bad in [[0; 6], [1, 0, 0, 0, 0, 1], [0xff; 6]] {
        assert!(
            judged(mac(bad)).unwrap_err().refusal.to_string().contains("MAC address"),
            "{bad:?}"
        );
    }
}

#[test]
fn a_port_needs_an_address_to_lead_to() {
    const V4: (&str, u16) = ("192.0.2.1", 8080);
    const V6: (&str, u16) = ("2001:db8::1", 8080);
    let judged = |network: Network| {
        let mut spec = super::spec();
        spec.network = network;
        decide(spec, &parse("preset = \"compat\"\n[network]\nallow = [\"bridge:*\", \"macvlan:*\", \"container\", \"veth\"]").unwrap())
    };
    let of =
        |v4: &str, v6: &str, ports: &[(&str, u16)]| Network::Attached(bridge("br0", v4, v6, ports));
    assert!(judged(of("10.0.0.9", "", &[V4])).is_ok());
    assert!(judged(of("10.0.0.9", "2001:db8::9", &[V4, V6])).is_ok());
    let macvlan = |ports: &[(&str, u16)]| {
        let parent = Parent::Macvlan(name("eth0"));
        Network::Attached(Attached { parent, ..bridge("br0", "10.0.0.9", "", ports) })
    };
    assert!(judged(macvlan(&[])).is_ok());
    let ports = || vec![port("192.0.2.1", 8080, 80)];
    assert!(judged(container(ContainerLink::Veth, 600, ports())).is_ok());
    for (network, words) in [
        (of("", "", &[V4]), "leads nowhere"),
        (of("", "2001:db8::9", &[V4]), "leads nowhere"),
        (of("10.0.0.9", "", &[V6]), "leads nowhere"),
        (of("10.0.0.9", "", &[V4, V4]), "given twice"),
        (macvlan(&[V4]), "macvlan"),
        (container(ContainerLink::Macvlan(name("eth0")), 30, ports()), "macvlan"),
        (container(ContainerLink::Veth, 601, Vec::new()), "at most 600 s"),
    ] {
        let refusal = judged(network).unwrap_err().refusal;
        assert!(refusal.to_string().contains(words), "{words}: {refusal}");
    }
}

#[test]
fn a_plan_has_what_the_job_asks_for() {
    let mut spec = super::spec();
    let wanted = bridge("br0", "10.0.0.9/24", "", &[("192.0.2.1", 8080)]);
    spec.network = Network::Attached(wanted.clone());
    let unit = proto::unit_id::UnitId::from(&spec.key);
    let decision = decide(spec, &parse(BRIDGE).unwrap()).unwrap();
    assert!(decision.network().is_none());
    let (plan, _) = decision.complete(Allocated::default());
    let planned = PlannedNetwork::Attached {
        attached: wanted,
        port: unit.into(),
        enable_forwarding: true,
        owner: NetworkOwner::Host,
    };
    assert_eq!(plan.network, planned);
}

#[test]
fn loopback_alone_is_never_ready_with_an_address() {
    let ready = |timeout_s, network: Network| {
        super::change(move |spec| {
            spec.process.ready = Ready::Network { timeout_s };
            spec.network = network.clone();
        })
    };
    let private = || Network::with_ports(Vec::new());
    check_invalid(vec![
        ("loopback alone", ready(5, Network::Loopback), ready(5, private())),
        ("1 to 3,600", ready(0, private()), ready(1, private())),
        ("1 to 3,600", ready(3601, private()), ready(3600, private())),
    ]);
}
