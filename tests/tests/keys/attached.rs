//! Bridges, macvlan and networks that systemd-nspawn makes; the traffic is in `tests/tests/network`.

use crate::*;
use nspawn_tests::stand::Other;
use std::sync::Once;

/// A bridge, and an interface for macvlan. No other test of this directory looks at them.
const MADE: &str = "set -e; ip link add br0 type bridge; ip link set br0 up
ip address add 192.0.2.1/24 dev br0; ip address add 2001:db8:5::1/64 dev br0 nodad
ip link add mac0 type veth peer name mac1; ip link set mac0 up; ip link set mac1 up";

fn made() {
    static MADE_ONCE: Once = Once::new();
    MADE_ONCE.call_once(|| drop(stand().rig.sh(MADE).unwrap()));
}

/// What the task has for addresses and a way out.
const LOOK: &str = "ip address show dev host0; ip route; ip -6 route";

#[test]
fn key_network_bridge() {
    made();
    let said = says(json!({ "network_bridge": "br0" }), LOOK);
    assert!(said.contains("UP") && !said.contains("192.0.2."), "{said}");
    refusals(&[
        (json!({ "network_bridge": "mac0" }), &["network_bridge mac0", "is not a bridge"]),
        (json!({ "network_bridge": "none" }), &["network_bridge none", "no such interface"]),
        (json!({ "network_bridge": "a b" }), &["network_bridge = \"a b\"", "interface name"]),
        (
            json!({ "network_bridge": "br0", "private_network": true }),
            &["network_bridge", "excludes"],
        ),
    ]);
    let words = ["network bridge", "\"bridge:br0\" added to [network] allow"];
    strict_refusals(&[(json!({ "network_bridge": "br0" }), &words)]);
}

#[test]
fn key_ipv4_address() {
    made();
    let with = |address: &str| json!({ "network_bridge": "br0", "ipv4_address": address });
    let said = says(with("192.0.2.30"), LOOK);
    assert!(said.contains("192.0.2.30/24") && said.contains("default via 192.0.2.1 "), "{said}");
    let said = says(with("198.18.0.9/16"), LOOK);
    assert!(said.contains("198.18.0.9/16") && !said.contains("default"), "{said}");
    refusals(&[
        (with("192.0.2"), &["ipv4_address", "must be an address"]),
        (with("198.18.0.9"), &["198.18.0.9", "length of its prefix"]),
        (with("224.0.0.1/8"), &["224.0.0.1", "must be the address of one interface"]),
    ]);
}

#[test]
fn key_ipv6_address() {
    made();
    let with = |address: &str| json!({ "network_bridge": "br0", "ipv6_address": address });
    let said = says(with("2001:db8:5::30"), LOOK);
    assert!(said.contains("2001:db8:5::30/64"), "{said}");
    assert!(said.contains("default via 2001:db8:5::1 "), "{said}");
    refusals(&[
        (with("192.0.2.9"), &["ipv6_address", "must be an address"]),
        (with("fe80::9/64"), &["fe80::9", "must be the address of one interface"]),
    ]);
}

#[test]
fn key_mac_address() {
    made();
    let with = |mac: &str| json!({ "network_bridge": "br0", "mac_address": mac });
    let look = "cat /sys/class/net/host0/address";
    assert_eq!(says(with("02:00:00:00:0a:01"), look), "02:00:00:00:0a:01\n");
    // Without one, two tasks have two.
    let plain = || says(json!({ "network_bridge": "br0" }), look);
    assert_ne!(plain(), plain());
    refusals(&[(with("ff:ff:ff:ff:ff:ff"), &["mac_address", "must be of one interface"])]);
}

#[test]
fn key_macvlan() {
    made();
    let keys = json!({ "macvlan": "mac0", "ipv4_address": "203.0.113.9/24" });
    let said = says(keys, LOOK);
    assert!(said.contains("203.0.113.9/24"), "{said}");
    refusals(&[
        (json!({ "macvlan": "none" }), &["\"macvlan:none\" added to [network] allow"]),
        (json!({ "macvlan": "mac9" }), &["macvlan mac9", "no such interface"]),
        (
            json!({ "macvlan": "mac0", "network_bridge": "br0" }),
            &["macvlan", "excludes network_bridge"],
        ),
    ]);
}

/// Whose the network is: in one that systemd-nspawn makes root has power.
fn setup(plugin: &Other<'_>, more: Value) -> String {
    let task = plugin.start(
        &sh(
            more,
            "ls /sys/class/net/host0 >/dev/null; ip address add 192.0.2.77/32 dev lo \
                                        2>/dev/null && echo own || echo the helpers",
        ),
        |_| {},
    );
    let task = task.unwrap().unwrap_or_else(|refused| panic!("{}", refused.text));
    good("setup", task.finish().unwrap())
}

#[test]
fn key_network_setup() {
    let plugin =
        |network: Value| stand().another_plugin_with(&json!({ "network": network })).unwrap();
    let short = plugin(json!({ "address_timeout": "0s" }));
    assert_eq!(setup(&short, json!({ "network_setup": "container" })), "own\n");
    assert_eq!(setup(&short, json!({ "network_setup": "helper" })), "the helpers\n");
    assert_eq!(setup(&short, json!({ "network_setup": "auto" })), "the helpers\n");
    refusals(&[
        (
            json!({ "network_setup": "host" }),
            &["network_setup", "must be one of helper, container, auto"],
        ),
        (
            json!({ "network_setup": "container", "ipv4_address": "192.0.2.9" }),
            &["ipv4_address", "excludes network_setup"],
        ),
    ]);
    let words = ["network made by systemd-nspawn", "\"container\" added to [network] allow"];
    strict_refusals(&[(json!({ "network_setup": "container" }), &words)]);
}

#[test]
fn plugin_key_network() {
    let plugin = |network: Value| stand().another_plugin_with(&json!({ "network": network }));
    let other = plugin(json!({ "default_setup": "container", "address_timeout": "0s" })).unwrap();
    assert_eq!(setup(&other, json!({})), "own\n");
    assert_eq!(setup(&other, json!({ "network_setup": "helper" })), "the helpers\n");
    for (network, words) in [
        (json!({ "pool_ipv4": "10.0.0.0/20" }), "into [network] of"),
        (json!({ "pool_ipv6": "fd00::/64" }), "into [network] of"),
        (json!({ "address_timeout": "11m" }), "must be 0s to 10m"),
        (json!({ "default_setup": "none" }), "must be one of helper, container, auto"),
    ] {
        let error = format!("{:#}", plugin(network).map(drop).unwrap_err());
        assert!(error.contains(words), "{error}");
    }
}
