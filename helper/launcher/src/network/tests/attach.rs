//! Interfaces in networks of the operator's: ports of a bridge, and macvlan.

use std::net::Ipv4Addr;

use proto::link::BridgePort;
use proto::name::{AllocId, Instance, MachineName, ParentName};
use proto::plan::{NetworkOwner, PlannedNetwork};
use proto::task_spec::network::{Address, Attached, Parent};
use proto::unit_id::UnitId;

use super::namespace::{Namespace, port};
use crate::network::enter_network_namespace;
use crate::step::Problem;

const UNIT: UnitId = UnitId { alloc: AllocId([0x77; 16]), instance: Instance(1) };

/// A host with a bridge that its uplink is a port of, as on many hosts.
fn host() -> (Namespace, Namespace) {
    let (host, lan) = Namespace::host();
    host.ip("link add br0 type bridge");
    host.ip("link set br0 up");
    host.ip("address flush dev up0");
    host.ip("link set up0 master br0");
    host.ip("address add 198.51.100.1/24 dev br0");
    host.ip("address add 2001:db8:1::1/64 dev br0 nodad");
    host.ip("route add default via 198.51.100.2");
    for namespace in [&host, &lan] {
        namespace.set("ipv4/ping_group_range", "0 2147483647");
    }
    (host, lan)
}

fn name(text: &str) -> ParentName {
    ParentName::new(text).unwrap()
}

fn bridge(v4: Option<u8>, v6: bool) -> Attached {
    let v4 = v4.map(|last| Address { address: Ipv4Addr::new(198, 51, 100, last), bits: None });
    let v6 = v6.then(|| Address { address: "2001:db8:1::9".parse().unwrap(), bits: None });
    Attached { parent: Parent::Bridge(name("br0")), v4, v6, mac: None, ports: Vec::new() }
}

fn start(host: &Namespace, attached: Attached) -> Result<Namespace, Problem> {
    host.run(|| {
        let network = PlannedNetwork::Attached {
            attached,
            port: BridgePort::from(UNIT),
            enable_forwarding: true,
            owner: NetworkOwner::Host,
        };
        enter_network_namespace(&network, &MachineName::new("web-77").unwrap(), &[])?;
        Ok(Namespace::current())
    })
}

#[test]
fn a_port_of_a_bridge_has_its_addresses_and_the_hosts_router() {
    let (host, lan) = host();
    let mac = host.ip("-o link show br0");
    let task = start(&host, bridge(Some(9), true)).unwrap();
    assert!(task.ping([198, 51, 100, 1]), "the host");
    assert!(task.ping([198, 51, 100, 2]), "the machine behind the uplink");
    assert!(lan.ping([198, 51, 100, 9]), "and back");
    assert!(lan.ping("2001:db8:1::9".parse::<std::net::Ipv6Addr>().unwrap()), "by IPv6");
    assert!(task.ip("-4 address show host0").contains("198.51.100.9/24"));
    assert_eq!(
        task.ip("-4 route show default"),
        "default via 198.51.100.2 dev host0 proto kernel\n"
    );
    assert!(task.ip("-6 route show default").starts_with("default via 2001:db8:1::1 "));
    // The bridge's own address follows the lowest of its ports.
    assert_eq!(host.ip("-o link show br0"), mac);
    let port = BridgePort::from(UNIT).to_string();
    let link = host.ip(&format!("link show {port}"));
    assert!(link.contains("master br0") && link.contains("altname web-77"), "{link}");
    assert!(link.contains("link/ether fe:"), "{link}");
    assert_eq!(host.ip(&format!("-6 address show {port}")), "");
    // A start of the same run once more, whose link is still there.
    drop(start(&host, bridge(Some(9), false)).unwrap());
}

#[test]
fn without_an_address_it_is_up_alone() {
    let (host, _lan) = host();
    let task = start(&host, bridge(None, false)).unwrap();
    assert!(!task.ip("-4 address show host0").contains("inet "));
    assert!(task.ip("link show host0").contains("UP"));
    assert_eq!(task.ip("-4 route show default"), "");
}

#[test]
fn macvlan_reaches_the_network_of_its_interface() {
    let (host, lan) = Namespace::host();
    lan.set("ipv4/ping_group_range", "0 2147483647");
    let macvlan = || Attached { parent: Parent::Macvlan(name("up0")), ..bridge(Some(9), false) };
    let task = start(&host, macvlan()).unwrap();
    assert!(task.ip("-d link show host0").contains("macvlan mode bridge"));
    assert!(lan.ping([198, 51, 100, 9]));
    assert_eq!(
        task.ip("-4 route show default"),
        "default via 198.51.100.2 dev host0 proto kernel\n"
    );
}

#[test]
fn what_cannot_be_attached_to_is_refused() {
    let (host, _lan) = host();
    host.ip("link add down0 type bridge");
    host.ip("link property add dev br0 altname alias0");
    let to =
        |parent: &str| Attached { parent: Parent::Bridge(name(parent)), ..bridge(None, false) };
    let with = |v4: &str, bits| Attached {
        v4: Some(Address { address: v4.parse().unwrap(), bits }),
        ..bridge(None, false)
    };
    let ports = |attached: Attached| Attached {
        ports: vec![port("198.51.100.1", 20_001).port],
        ..attached
    };
    for (attached, words) in [
        (to("none0"), "no such interface"),
        (to("up0"), "is not a bridge"),
        (to("lo"), "is not a bridge"),
        (to("down0"), "is down"),
        (to("alias0"), "is a second name of br0"),
        (with("10.0.0.9", None), "10.0.0.9/24"),
        (with("198.51.100.1", None), "host's own address"),
        (ports(with("10.0.0.9", Some(8))), "cannot lead to 10.0.0.9"),
    ] {
        let error = start(&host, attached).err().expect(words);
        assert!(format!("{error:?}").contains(words), "{words}: {error:?}");
        assert!(!host.ip("link").contains("nb-"), "{words}");
    }
}
