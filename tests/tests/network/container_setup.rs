//! Networks that systemd-nspawn makes, on a host with systemd-networkd and without.

use crate::{HOST_4, IN_LAN, LAN, port, with_ports};
use nspawn_tests::stand::{Running, Stand};
use nspawn_tests::wait;
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const POLICY: &str =
    "[network]\nallow = [\"veth\", \"zone\", \"private\", \"container\", \"bridge:br5\"]\n";
/// A container's DHCP client may lose its first packets (systemd-networkd starts its server late).
const LEASE: Duration = Duration::from_secs(40);

/// A host of its own: systemd-networkd on it changes links of others.
fn host() -> (MutexGuard<'static, ()>, &'static Stand) {
    static HOST: OnceLock<Stand> = OnceLock::new();
    static ONE: Mutex<()> = Mutex::new(());
    let held = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = HOST.get_or_init(|| {
        let stand = Stand::up(POLICY).unwrap();
        stand.rig.sh(LAN).unwrap();
        stand
    });
    (held, stand)
}

/// A booted Debian whose systemd-networkd is a DHCP client, as in images of the older driver.
fn booted(more: Value) -> Value {
    let mut config = json!({ "image": "debian", "ephemeral": true, "network_setup": "container",
                             "command": ["systemd.wants=systemd-networkd.service"] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn start_networkd(stand: &Stand) {
    stand.rig.run(&["systemctl", "start", "systemd-networkd.service"]).unwrap();
}

/// Its socket too, which the service brings with it: the next link would start it again.
fn stop_networkd(stand: &Stand) {
    let units = ["systemd-networkd.socket", "systemd-networkd.service"];
    stand.rig.run(&[&["systemctl", "stop"], &units[..]].concat()).unwrap();
}

fn events(stand: &Stand, server: &Running<'_>) -> String {
    let unit = server.unit();
    stand
        .rig
        .run(&["journalctl", "-b", "--no-pager", "-o", "cat", "-u", crate::HELPER, "-u", &unit])
        .unwrap()
}

#[test]
fn an_address_of_the_hosts_networkd_is_reported_and_ports_lead_to_it() {
    let (_held, stand) = host();
    let rig = &stand.rig;
    start_networkd(stand);
    let ports = with_ports(vec![port("http", HOST_4, 20_201, 80)]);
    let begun = Instant::now();
    let config =
        booted(json!({ "ports": ["http"], "ready": { "mode": "network", "timeout": "40s" } }));
    let server = stand.start(&config, ports).unwrap().unwrap_or_else(|it| panic!("{}", it.text));
    assert!(begun.elapsed() < LEASE);
    let network = server.network().expect("the driver reports a network").clone();
    let leader = server.leader().unwrap();
    let netns = format!("--net=/proc/{leader}/ns/net");
    let inside =
        rig.run(&["nsenter", &netns, "ip", "-4", "-br", "address", "show", "host0"]).unwrap();
    assert!(inside.contains(&format!(" {}/", network.addr)), "{network:?}: {inside}");
    assert_eq!(network.port_map.get("http"), Some(&80));
    // Root in the container has its network for itself (CAP_NET_ADMIN is bit 12).
    let status = rig.run(&["grep", "CapEff", &format!("/proc/{leader}/status")]).unwrap();
    let effective = u64::from_str_radix(status.trim_start_matches("CapEff:").trim(), 16).unwrap();
    assert!(effective & 1 << 12 != 0, "{status}");
    rig.sh(&format!(
        "systemd-run -q --unit inside nsenter {netns} busybox nc -ll -p 80 -e echo hello"
    ))
    .unwrap();
    wait::true_within("the port", Duration::from_secs(10), || {
        let words = [IN_LAN, &["busybox", "nc", "-w", "2", HOST_4, "20201"]].concat();
        Ok(rig.exec(&words)?.text().contains("hello"))
    })
    .unwrap();
    // A new process of the helper asks again.
    rig.run(&["systemctl", "kill", "-s", "KILL", crate::HELPER]).unwrap();
    wait::true_within("the port after the helper", Duration::from_secs(20), || {
        let words = [IN_LAN, &["busybox", "nc", "-w", "2", HOST_4, "20201"]].concat();
        Ok(rig.exec(&words)?.text().contains("hello"))
    })
    .unwrap();
    rig.run(&["systemctl", "stop", "inside"]).unwrap();
    server.stop("SIGKILL").unwrap();
    wait::true_within("its elements are gone", Duration::from_secs(10), || {
        let table = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"])?;
        Ok(!table.contains(&network.addr))
    })
    .unwrap();
    stop_networkd(stand);
}

/// In a network of the helper's own making: the container's client is its own, and so is the network.
#[test]
fn a_booted_system_on_a_bridge_gets_its_address_from_whoever_serves_there() {
    let (_held, stand) = host();
    let rig = &stand.rig;
    rig.sh("set -e; mkdir -p /run/systemd/network; ip link add br5 type bridge
         printf '[Match]\\nName=br5\\n[Network]\\nAddress=192.0.2.1/24\\nDHCPServer=yes\\n\
         ConfigureWithoutCarrier=yes\\n' >/run/systemd/network/br5.network")
        .unwrap();
    start_networkd(stand);
    rig.sh("ip link set br5 up; networkctl reload; networkctl reconfigure br5").unwrap();
    let ready = json!({ "mode": "network", "timeout": "40s" });
    let config =
        booted(json!({ "network_setup": "helper", "network_bridge": "br5", "ready": ready }));
    let server = stand.start(&config, |_| {}).unwrap().unwrap_or_else(|it| panic!("{}", it.text));
    let network = server.network().expect("the driver reports a network");
    assert!(network.addr.starts_with("192.0.2."), "{network:?}");
    rig.run(&["busybox", "ping", "-c", "1", "-W", "2", &network.addr]).unwrap();
    server.stop("SIGKILL").unwrap();
    stop_networkd(stand);
}

#[test]
fn without_an_address_a_task_runs_on_with_a_note() {
    let (_held, stand) = host();
    let plugin = json!({ "network": { "default_setup": "auto", "address_timeout": "2s" } });
    let other = stand.another_plugin_with(&plugin).unwrap();
    let config = booted(json!({}));
    let begun = Instant::now();
    let server = other.start(&config, |_| {}).unwrap().unwrap_or_else(|it| panic!("{}", it.text));
    let took = begun.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&took), "{took:?}");
    let said = events(stand, &server);
    assert!(said.contains("the task has no address after 2 s"), "{said}");
    assert!(server.network().is_none());
    assert!(!server.leader().unwrap().is_empty());
    server.stop("SIGKILL").unwrap();
}

#[test]
fn ready_with_a_network_fails_without_one() {
    let (_held, stand) = host();
    let config = booted(json!({ "ready": { "mode": "network", "timeout": "2s" } }));
    let refused = stand.refusal(&config).unwrap();
    assert!(refused.text.contains("the task has no address after 2 s"), "{}", refused.text);
    assert!(refused.recoverable, "{}", refused.text);
    // The helper's own network has one at once.
    let config = json!({ "image": "busybox", "boot": false, "ephemeral": true,
        "command": ["/bin/sh", "-c", "ip -4 address show dev host0"],
        "ready": { "mode": "network", "timeout": "1s" } });
    assert!(stand.run(&config).unwrap().stdout.contains("host0"));
}

/// Root in the container chooses its addresses. Ports must not lead from there to a neighbour.
#[test]
fn a_neighbours_address_is_not_taken() {
    let (_held, stand) = host();
    let rig = &stand.rig;
    let neighbour = stand.start(&crate::task("sleep 1000"), |_| {}).unwrap().unwrap();
    let inner = crate::address(&neighbour);
    let script = format!(
        "ip address add {inner}/32 dev host0; ip address add {HOST_4}/32 dev host0; \
         ip link set host0 up; exec sleep 1000"
    );
    let mut config = crate::task(&script);
    config["network_setup"] = json!("container");
    config["ports"] = json!(["http"]);
    config["ready"] = json!({ "mode": "network", "timeout": "3s" });
    let ports = with_ports(vec![port("http", HOST_4, 20_202, 80)]);
    let refused = stand.refusal_with(&config, ports).unwrap();
    assert!(refused.text.contains("no address after 3 s"), "{}", refused.text);
    let said =
        rig.run(&["journalctl", "-b", "--no-pager", "-o", "cat", "-u", crate::HELPER]).unwrap();
    assert!(said.contains("is not the task's own") && said.contains(&inner), "{said}");
    let table = rig.run(&["nft", "list", "table", "inet", "nomad_nspawn"]).unwrap();
    assert!(!table.contains("20202"), "{table}");
    neighbour.stop("SIGKILL").unwrap();
}

#[test]
fn it_must_be_listed_and_takes_no_address() {
    let (_held, stand) = host();
    for (keys, words) in [
        (json!({ "network_bridge": "br0" }), "\"bridge:br0\" added to [network] allow"),
        (json!({ "macvlan": "lan0" }), "\"macvlan:lan0\" added to [network] allow"),
        (json!({ "ipv4_address": "192.0.2.9" }), "excludes network_setup = \"container\""),
        (json!({ "mac_address": "02:00:00:00:00:01" }), "excludes network_setup"),
        (json!({ "sysctl": [{ "net.core.somaxconn": "1024" }] }), "excludes network_setup"),
    ] {
        let refused = stand.refusal(&booted(keys.clone())).unwrap();
        assert!(refused.text.contains(words), "{keys}: {}", refused.text);
    }
}
