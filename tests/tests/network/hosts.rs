//! Hosts that lack something that others have.

use crate::{HOST_4, HOST_6, IN_LAN, LAN_4, page, port, serve, task, with_ports};
use nspawn_tests::lan;
use nspawn_tests::stand::Stand;
use serde_json::json;

/// As with `ipv6.disable=1` on the kernel's command line: no address of IPv6 anywhere, `::1` included.
#[test]
fn a_host_without_ipv6_gives_tasks_ipv4_alone() {
    let stand = Stand::up("").unwrap();
    let rig = &stand.rig;
    lan::up(rig).unwrap();
    rig.sh(
        "set -e; sysctl -q net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
         ! ip -6 address | grep -q inet6; systemctl restart nomad-nspawn-helper.service",
    )
    .unwrap();
    let server = serve(&stand, &[HOST_4], 20_301);
    assert!(page(rig, IN_LAN, HOST_4, 20_301).contains(LAN_4));
    for address in [HOST_4, "127.0.0.1"] {
        assert!(page(rig, &[], address, 20_301).contains("client "), "{address}");
    }
    let netns = lan::netns_of(&server).unwrap();
    let inside = ["nsenter", &netns, "ip", "-o", "address", "show", "dev", "host0"];
    let inside = rig.run(&inside).unwrap();
    assert!(inside.contains("inet ") && !inside.contains("inet6"), "{inside}");
    let out = page(rig, &["nsenter", &netns], LAN_4, lan::LAN_PORT);
    assert!(out.contains("client "), "{out}");
    // A label at an address that the host has no more.
    let mut config = task("true");
    config["ports"] = json!(["http"]);
    let ports = with_ports(vec![port("http", HOST_6, 20_302, 80)]);
    let refused = stand.refusal_with(&config, ports).unwrap();
    assert!(refused.text.contains(HOST_6), "{}", refused.text);
    server.stop("SIGKILL").unwrap();
}
