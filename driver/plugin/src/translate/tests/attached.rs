//! What the keys of bridges, macvlan and container setup become in the specification.

use super::*;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{NetworkIsolationSpec, PortMapping, Resources};
use proto::link::Mac;
use proto::name::ParentName;
use proto::task_spec::Network;
use proto::task_spec::network::{Address, Attached, Container, ContainerLink, Parent};

/// The network of a task with a port under labels of both families, and this plugin configuration.
fn network_by(keys: &[(&str, Value)], plugin: &[(&str, Value)]) -> Result<Network, String> {
    let port = |label: &str, address: &str| PortMapping {
        label: label.into(),
        value: 20_001,
        to: 80,
        host_ip: address.into(),
    };
    let mut task = task(keys);
    let ports = vec![port("http", "198.51.100.1"), port("http6", "2001:db8:1::1")];
    task.resources = Some(Resources { ports, ..Resources::default() });
    let block = plugin.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut bytes = Vec::new();
    encode(&Value::Map(vec![("network".into(), Value::Map(block))]), &mut bytes);
    let config = PluginConfig::decode(&bytes).unwrap();
    build(&task, &node(&config)).map(|spec| spec.network).map_err(|error| error.text().to_owned())
}

fn network(keys: &[(&str, Value)]) -> Result<Network, String> {
    network_by(keys, &[])
}

fn name(text: &str) -> ParentName {
    ParentName::new(text).unwrap()
}

fn labels(labels: &[&str]) -> (&'static str, Value) {
    ("ports", Value::List(labels.iter().map(|label| Value::from(*label)).collect()))
}

#[test]
fn bridges_and_macvlan_take_addresses() {
    let wanted = Network::Attached(Attached {
        parent: Parent::Bridge(name("br0")),
        v4: Some(Address { address: [192, 0, 2, 9].into(), bits: None }),
        v6: Some(Address { address: "2001:db8::9".parse().unwrap(), bits: Some(64) }),
        mac: Some(Mac([2, 0, 0, 0, 0, 1])),
        ports: Vec::new(),
    });
    let keys = [
        ("network_bridge", "br0".into()),
        ("ipv4_address", "192.0.2.9".into()),
        ("ipv6_address", "2001:db8::9/64".into()),
        ("mac_address", "02:00:00:00:00:01".into()),
    ];
    assert_eq!(network(&keys), Ok(wanted));
    let Ok(Network::Attached(plain)) = network(&[("macvlan", "eth0".into())]) else { panic!() };
    assert_eq!(plain.parent, Parent::Macvlan(name("eth0")));
    assert!(plain.addresses().next().is_none() && plain.mac.is_none());
    let published = network(&[keys[0].clone(), keys[1].clone(), labels(&["http"])]);
    assert_eq!(published.unwrap().ports().len(), 1);
}

#[test]
fn the_setup_is_the_jobs_else_the_plugins() {
    let is_container = |keys: &[(&str, Value)], default: &str| {
        let network = network_by(keys, &[("default_setup", default.into())]).unwrap();
        matches!(network, Network::Container(_))
    };
    let setup = |word: &str| ("network_setup", Value::from(word));
    let command = || ("boot", Value::from(false));
    assert!(is_container(&[setup("container"), command()], "helper"));
    assert!(is_container(&[setup("auto")], "helper"));
    assert!(!is_container(&[setup("auto"), command()], "container"));
    assert!(!is_container(&[setup("helper")], "container"));
    assert!(!is_container(&[], "helper"));
    assert!(is_container(&[], "auto"));
    assert!(!is_container(&[command()], "auto"));
    // The operator's default does not stand in the way of what has no such network.
    let plugin = [("default_setup", "container".into())];
    assert_eq!(network_by(&[("network_veth", false.into())], &plugin), Ok(Network::Host));
    assert_eq!(network_by(&[("private_network", true.into())], &plugin), Ok(Network::Loopback));
    let timed = [("default_setup", "container".into()), ("address_timeout", "2s".into())];
    let wanted = Container { link: ContainerLink::Veth, ports: Vec::new(), wait_s: 2 };
    assert_eq!(network_by(&[], &timed), Ok(Network::Container(wanted)));
    let bridged = network(&[setup("container"), ("network_bridge", "br0".into())]);
    let Ok(Network::Container(bridged)) = bridged else { panic!() };
    assert_eq!(bridged.link, ContainerLink::Bridge(name("br0")));
}

#[test]
fn what_excludes_what_has_its_message() {
    let container = || ("network_setup", Value::from("container"));
    let bridge = || ("network_bridge", Value::from("br0"));
    let macvlan = || ("macvlan", Value::from("eth0"));
    for (keys, words) in [
        (vec![bridge(), macvlan()], "macvlan = \"eth0\": excludes network_bridge"),
        (vec![("network_bridge", "a/b".into())], "network_bridge = \"a/b\": not a valid interface"),
        (vec![("macvlan", "nb-001122334455".into())], "not a link of a task"),
        (
            vec![bridge(), ("ipv4_address", "2001:db8::9".into())],
            "ipv4_address = \"2001:db8::9\": must",
        ),
        (
            vec![bridge(), ("ipv4_address", "192.0.2.9/0".into())],
            "the bits of its prefix (1 to 32)",
        ),
        (vec![bridge(), ("ipv4_address", "192.0.2.9/+8".into())], "the bits of its prefix"),
        (vec![bridge(), ("ipv6_address", "2001:db8::9/129".into())], "(1 to 128)"),
        (vec![bridge(), ("mac_address", "03:00:00:00:00:01".into())], "must be of one interface"),
        (vec![bridge(), ("mac_address", "02".into())], "six pairs of hexadecimal digits"),
        (vec![bridge(), labels(&["http"])], "a port leads to the task's ipv4_address"),
        (
            vec![bridge(), ("ipv4_address", "192.0.2.9".into()), labels(&["http6"])],
            "a port leads to the task's ipv6_address",
        ),
        (vec![macvlan(), labels(&["http"])], "excludes macvlan: the host does not reach"),
        (vec![container(), macvlan(), labels(&["http"])], "excludes macvlan"),
        (vec![container(), ("ipv4_address", "192.0.2.9".into())], "excludes network_setup"),
        (vec![container(), ("mac_address", "02:00:00:00:00:01".into())], "excludes network_setup"),
        (vec![container(), ("network_veth", false.into())], "excludes network_veth = false"),
        (vec![bridge(), ("private_network", true.into())], "excludes private_network = true"),
        (
            vec![
                container(),
                ("sysctl", Value::Map(vec![("net.core.somaxconn".into(), "1".into())])),
            ],
            "excludes network_setup = \"container\"",
        ),
    ] {
        let refused = network(&keys).unwrap_err();
        assert!(refused.contains(words), "{keys:?}: {refused}");
    }
    let mut grouped = task(&[bridge()]);
    grouped.network_isolation_spec = Some(NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: format!("/var/run/netns/{ALLOC}"),
        ..NetworkIsolationSpec::default()
    });
    let refused = try_task(&grouped).unwrap_err();
    assert!(refused.contains("excludes the group's own network"), "{refused}");
}
