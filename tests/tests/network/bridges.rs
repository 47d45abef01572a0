//! Interfaces in networks of the operator's: ports of a bridge, and macvlan.

use crate::{HOST_4, HOST_6, IN_LAN, LAN_4, SERVER, ask, host, page, port, soon, task, with_ports};
use nspawn_tests::Rig;
use nspawn_tests::stand::{Running, Stand};
use serde_json::{Value, json};

/// A bridge with a machine behind it, and interfaces for macvlan; what is no bridge, or is down.
pub(crate) const MADE: &str = "set -e
ip link add br0 type bridge; ip link set br0 up
ip address add 192.0.2.1/24 dev br0; ip address add 2001:db8:5::1/64 dev br0 nodad
ip netns add behind; ip link add behind0 type veth peer name eth0 netns behind
ip link set behind0 address 52:54:00:00:00:05
ip link set behind0 master br0; ip link set behind0 up
b='ip netns exec behind'; $b ip link set lo up
$b ip address add 192.0.2.2/24 dev eth0; $b ip address add 2001:db8:5::2/64 dev eth0 nodad
$b ip link set eth0 up; $b ip route add default via 192.0.2.1
ip link add br1 type bridge
ip link add brx type veth peer name bry; ip link set brx up
ip netns add beside; ip link add mac0 type veth peer name eth0 netns beside; ip link set mac0 up
b='ip netns exec beside'; $b ip address add 203.0.113.129/25 dev eth0; $b ip link set eth0 up";

const FILTERED: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// The machine behind the bridge, and the one beside mac0.
const BEHIND: &[&str] = &["ip", "netns", "exec", "behind"];
const BESIDE: &[&str] = &["ip", "netns", "exec", "beside"];

/// A task with more keys.
fn with(script: &str, more: Value) -> Value {
    let mut config = task(script);
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// [`SERVER`] on the bridge with the last part of its addresses, its port 80 at this of the host.
fn serve(stand: &Stand, last: u8, value: i32) -> Running<'_> {
    let (v4, v6) = (format!("192.0.2.{last}"), format!("2001:db8:5::{last}"));
    let keys = json!({ "network_bridge": "br0", "ipv4_address": v4, "ipv6_address": v6,
                       "ports": ["http4", "http6"] });
    let ports = vec![port("http4", HOST_4, value, 80), port("http6", HOST_6, value, 80)];
    let mut server = stand.start(&with(SERVER, keys), with_ports(ports)).unwrap().unwrap();
    server.wait_output("ready").unwrap();
    server
}

/// The server at this address sees the client as this one.
fn assert_seen(rig: &Rig, netns: &[&str], at: &str, client: &str) {
    let seen = page(rig, netns, at, 80);
    assert!(seen.contains("client ") && seen.contains(client), "{at}: {seen}");
}

#[test]
fn a_bridge_leads_in_and_out_and_ports_lead_to_its_task() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let server = serve(stand, 20, 20_101);
    // By its own addresses, from the machine behind the bridge, which is seen as it is.
    assert_seen(rig, BEHIND, "192.0.2.20", "192.0.2.2");
    assert_seen(rig, BEHIND, "2001:db8:5::20", "2001:db8:5::2");
    assert_seen(rig, &[], "192.0.2.20", "192.0.2.1");
    // By the published port: from the local network, the host, and the bridge's own network.
    for filtered in ["1", "0"] {
        // Whether the packet filter sees what a bridge passes on (br_netfilter): both ways differ.
        let set = format!("[ ! -e {FILTERED} ] || echo {filtered} >{FILTERED}");
        rig.sh(&set).unwrap();
        for (from, netns) in [("LAN", IN_LAN), ("host", &[][..]), ("behind", BEHIND)] {
            let seen = page(rig, netns, HOST_4, 20_101);
            assert!(seen.contains("client "), "{from}, {filtered}: {seen}");
        }
    }
    for (from, netns) in [("LAN", IN_LAN), ("host", &[][..])] {
        let seen = page(rig, netns, HOST_6, 20_101);
        assert!(seen.contains("client "), "{from}: {seen}");
    }
    // From a task with a network of the helper's, and from itself: where a bridge's packets are
    // filtered, the bridge does not send what it got from a port back there.
    let seen = stand.run(&task(&ask(HOST_4, 20_101, "/cgi-bin/who"))).unwrap().stdout;
    assert!(seen.contains("client "), "another task: {seen}");
    let leader = server.leader().unwrap();
    let inside = |words: &[&str]| {
        let netns = format!("--net=/proc/{leader}/ns/net");
        rig.run(&[&["nsenter", &netns], words].concat()).unwrap()
    };
    let netns = format!("--net=/proc/{leader}/ns/net");
    assert!(page(rig, &["nsenter", &netns], HOST_4, 20_101).contains("client "), "itself");
    rig.sh(&format!("[ ! -e {FILTERED} ] || echo 1 >{FILTERED}")).unwrap();
    // Nothing of the operator's bridge is on loopback.
    assert!(!page(rig, &[], "127.0.0.1", 20_101).contains("client "));
    // Out: the gateway is the bridge's address, and beyond it the local network.
    assert!(inside(&["ip", "route"]).contains("default via 192.0.2.1"));
    assert!(inside(&["ip", "-6", "route"]).contains("default via 2001:db8:5::1"));
    assert!(inside(&["ip", "-4", "-br", "address"]).contains("192.0.2.20/24"));
    inside(&["busybox", "ping", "-c", "1", "-W", "2", LAN_4]);
    let network = server.network().expect("the driver reports a network");
    assert_eq!((network.addr.as_str(), network.port_map.get("http4")), ("192.0.2.20", Some(&80)));
    // All of it goes when the payload ends.
    let link = rig.sh("ip -br link show master br0 | grep -o 'nb-[0-9a-f]*'").unwrap();
    assert_eq!(link.trim().len(), 15, "{link}");
    rig.run(&["kill", "-9", &leader]).unwrap();
    soon("port and elements are gone", || {
        let links = rig.run(&["ip", "-br", "link"])?;
        let table = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"])?;
        Ok(!links.contains(link.trim()) && !table.contains("192.0.2.20"))
    });
    server.stop("SIGKILL").unwrap();
}

#[test]
fn a_port_on_a_bridge_outlives_the_helper_and_a_bridge_keeps_its_address() {
    let (_life, stand) = crate::alone();
    let (stand, rig) = (&stand.stand, &stand.stand.rig);
    let mac = || rig.run(&["cat", "/sys/class/net/br0/address"]).unwrap();
    let before = mac();
    let server = serve(stand, 21, 20_102);
    assert_eq!(mac(), before);
    rig.run(&["systemctl", "kill", "-s", "KILL", crate::HELPER]).unwrap();
    assert!(page(rig, IN_LAN, HOST_4, 20_102).contains("client "), "without the helper");
    soon("the helper", || {
        Ok(stand.refusal(&with("true", json!({ "network_bridge": "br7" }))).is_ok())
    });
    assert!(page(rig, IN_LAN, HOST_4, 20_102).contains("client "), "after it");
    // Its place is known to the new process.
    let keys = json!({ "network_bridge": "br0", "ipv4_address": "192.0.2.21" });
    let refused = stand.refusal(&with("true", keys)).unwrap();
    assert!(refused.text.contains("address 192.0.2.21: task t of allocation"), "{}", refused.text);
    let ports = with_ports(vec![port("http", HOST_4, 20_102, 80)]);
    let mut other = task("true");
    other["ports"] = json!(["http"]);
    let refused = stand.refusal_with(&other, ports).unwrap();
    assert!(refused.text.contains("task t of allocation"), "{}", refused.text);
    server.stop("SIGKILL").unwrap();
    soon("the bridge's port is gone", || {
        Ok(!rig.run(&["ip", "-br", "link", "show", "master", "br0"])?.contains("nb-"))
    });
}

#[test]
fn a_bridge_that_is_none_or_not_listed_is_refused() {
    let (_life, stand) = host();
    for (name, words) in [
        ("br0x", &["\"bridge:br0x\" added to [network] allow"][..]),
        ("lan0", &["\"bridge:lan0\" added to [network] allow"]),
        ("br7", &["network_bridge br7", "no such interface on this host"]),
        ("brx", &["network_bridge brx", "is not a bridge"]),
        ("br1", &["network_bridge br1", "is down: ip link set br1 up"]),
        ("nv-0123456789ab", &["not a link of a task"]),
        ("br0 type bridge", &["not a valid interface name"]),
        ("../br0", &["not a valid interface name"]),
        ("br0123456789abcdef", &["1 to 15 bytes"]),
    ] {
        let refused = stand.refusal(&with("true", json!({ "network_bridge": name }))).unwrap();
        for word in words {
            assert!(refused.text.contains(word), "{name}: {}", refused.text);
        }
    }
    for (keys, words) in [
        (json!({ "ipv4_address": "198.18.0.9" }), "write it with the length of its prefix"),
        (json!({ "ipv4_address": "192.0.2.1" }), "is the host's own address on br0"),
        (json!({ "ipv4_address": "127.0.0.9/8" }), "must be the address of one interface"),
        (json!({ "ipv4_address": "192.0.2.9/33" }), "must be an address"),
        (json!({ "mac_address": "01:00:00:00:00:01" }), "must be of one interface"),
    ] {
        let mut config = with("true", json!({ "network_bridge": "br0" }));
        config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let refused = stand.refusal(&config).unwrap();
        assert!(refused.text.contains(words), "{keys}: {}", refused.text);
    }
}

/// A job that names a neighbour's address would have the host's port lead to the neighbour.
#[test]
fn a_port_leads_to_the_bridge_alone() {
    let (_life, stand) = host();
    let neighbour = crate::serve(stand, &[HOST_4], 20_103);
    let inner = crate::address(&neighbour);
    for (address, words) in [
        (format!("{inner}/8"), "is an address of tasks"),
        ("198.51.100.2/24".to_owned(), "cannot lead to 198.51.100.2"),
    ] {
        let keys = json!({ "network_bridge": "br0", "ipv4_address": address, "ports": ["http"] });
        let ports = with_ports(vec![port("http", HOST_4, 20_104, 80)]);
        let refused = stand.refusal_with(&with("sleep 1000", keys), ports).unwrap();
        assert!(refused.text.contains(words), "{address}: {}", refused.text);
    }
    neighbour.stop("SIGKILL").unwrap();
}

#[test]
fn without_an_address_the_interface_is_there_and_ports_are_refused() {
    let (_life, stand) = host();
    let keys = json!({ "network_bridge": "br0", "mac_address": "02:00:00:00:00:07" });
    let look = "cat /sys/class/net/host0/address /sys/class/net/host0/operstate; ip -4 address";
    let said = stand.run(&with(look, keys)).unwrap().stdout;
    assert!(said.starts_with("02:00:00:00:00:07\nup\n") && !said.contains("192.0.2."), "{said}");
    let keys = json!({ "network_bridge": "br0", "ports": ["http"] });
    let ports = with_ports(vec![port("http", HOST_4, 20_105, 80)]);
    let refused = stand.refusal_with(&with("true", keys), ports).unwrap();
    assert!(refused.text.contains("leads to the task's ipv4_address"), "{}", refused.text);
}

#[test]
fn macvlan_reaches_its_network_and_not_the_host() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let keys = json!({ "macvlan": "mac0", "ipv4_address": "203.0.113.140/25" });
    let mut server = stand.start(&with(SERVER, keys), |_| {}).unwrap().unwrap();
    server.wait_output("ready").unwrap();
    assert_seen(rig, BESIDE, "203.0.113.140", "203.0.113.129");
    assert!(!page(rig, &[], "203.0.113.140", 80).contains("client "));
    assert_eq!(server.network().map(|it| it.addr.as_str()), Some("203.0.113.140"));
    server.stop("SIGKILL").unwrap();
    let keys = json!({ "macvlan": "mac0", "ipv4_address": "203.0.113.141/25", "ports": ["http"] });
    let ports = with_ports(vec![port("http", HOST_4, 20_106, 80)]);
    let refused = stand.refusal_with(&with("true", keys), ports).unwrap();
    assert!(refused.text.contains("the host does not reach the task"), "{}", refused.text);
    let refused = stand.refusal(&with("true", json!({ "macvlan": "lan0" }))).unwrap();
    assert!(refused.text.contains("\"macvlan:lan0\" added to [network] allow"), "{}", refused.text);
}
