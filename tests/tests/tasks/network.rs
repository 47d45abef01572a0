//! Networks of jobs: Nomad's group networks, a network of the task's own, loopback alone, and the
//! host's by policy. What packets do in a network of the task's own is tried in tests/network.

use crate::work::{Host, LIMIT, Work};
use anyhow::Context as _;
use nspawn_tests::nomad::Version;
use nspawn_tests::product::POLICY;
use nspawn_tests::{Rig, wait};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

/// The body of a page, as a client on the host gets it.
fn page(rig: &Rig, address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = rig.api().connect_to(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    anyhow::ensure!(head.contains(" 200 "), "{head}");
    Ok(body.to_owned())
}

#[test]
fn a_bridge_port_answers_from_inside_a_user_namespace() {
    let host = Host::shared();
    let script = "mkdir /tmp/www; cat /proc/self/uid_map >/tmp/www/index.html; \
        exec httpd -f -p 80 -h /tmp/www";
    let network = json!([{ "Mode": "bridge", "DynamicPorts": [{ "Label": "http", "To": 80 }] }]);
    let work = Work::sh(script).service().group("Networks", network);
    let task = work.task("KillTimeout", 100_000_000).run(&host, "bridge");
    let alloc = task.alloc.wait_running().unwrap();
    let port = &alloc["AllocatedResources"]["Shared"]["Ports"][0];
    let address = port["HostIP"].as_str().unwrap().parse().unwrap();
    let address = SocketAddr::new(address, u16::try_from(port["Value"].as_u64().unwrap()).unwrap());
    let mut last = String::new();
    let map = wait::until("the port to answer", LIMIT, || match page(&host, address) {
        Ok(body) => Ok(Some(body)),
        Err(error) => {
            last = format!("{error:#}");
            Ok(None)
        }
    })
    .unwrap_or_else(|e| panic!("{e:#}: {last}"));
    let map: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(matches!(map[..], [0, base, 65_536] if base >= 65_536), "{map:?}");
    task.job.purge().unwrap();
}

/// What a payload finds as its network: links with state, addresses, and whether loopback carries.
const LOOK: &str = "cd /sys/class/net; echo links: *; ip -o addr show dev lo | grep -o 'inet [^ ]*'; \
    echo flags $(cat lo/flags); httpd -p 127.0.0.1:8080 -h /etc && \
    wget -q -O - http://127.0.0.1:8080/hosts | head -n 1";
const LOOPBACK: &[u8] = b"links: lo\ninet 127.0.0.1/8\nflags 0x9\n127.0.0.1 localhost\n";

/// Runs [`LOOK`] in a group with this network and compares.
fn assert_loopback_alone(host: &Host, id: &str, work: Work) {
    let task = work.run(host, id);
    assert_eq!(task.end(), ("complete".to_owned(), 0, 0), "{id}");
    task.assert_stream("stdout", LOOPBACK);
    task.job.purge().unwrap();
}

#[test]
fn a_private_network_is_loopback_alone() {
    let work = Work::sh(LOOK).config("private_network", true);
    assert_loopback_alone(&Host::shared(), "net-private", work);
}

/// No CNI, no bridge: the port that Nomad chose answers at its address and on loopback.
#[test]
fn a_port_is_published_without_a_network_of_nomads() {
    let host = Host::shared();
    let script =
        "mkdir /tmp/www; echo served >/tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";
    let network = json!([{ "DynamicPorts": [{ "Label": "http", "To": 80 }] }]);
    let work =
        Work::sh(script).service().group("Networks", network).config("ports", json!(["http"]));
    let task = work.task("KillTimeout", 100_000_000).run(&host, "published");
    let alloc = task.alloc.wait_running().unwrap();
    let port = &alloc["AllocatedResources"]["Shared"]["Ports"][0];
    let number = u16::try_from(port["Value"].as_u64().unwrap()).unwrap();
    for address in [port["HostIP"].as_str().unwrap(), "127.0.0.1", "::1"] {
        let address = SocketAddr::new(address.parse().unwrap(), number);
        let answer = wait::until("the port to answer", LIMIT, || Ok(page(&host, address).ok()));
        assert_eq!(answer.unwrap(), "served\n", "{address}");
    }
    task.job.purge().unwrap();
}

/// A CNI plugin that leaves the namespace as Nomad made it, and notes how that was.
const PLUGIN: &str = r#"#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] && echo '{"cniVersion":"0.4.0","supportedVersions":["0.4.0"]}'
[ "$CNI_COMMAND" = ADD ] && nsenter --net="$CNI_NETNS" ip -o link >/run/bare-links && cat <<EOF
{"cniVersion":"0.4.0","interfaces":[{"name":"eth0","sandbox":"$CNI_NETNS"}],
 "ips":[{"version":"4","interface":0,"address":"192.0.2.9/24"}]}
EOF
exit 0
"#;
const CONFLIST: &str = r#"{"cniVersion":"0.4.0","name":"bare","plugins":[{"type":"bare"}]}"#;

#[test]
fn loopback_is_up_in_a_namespace_that_nomad_hands_over_bare() {
    let host = Host::shared();
    host.run(&["mkdir", "-p", "/opt/cni/config"]).unwrap();
    host.write_file("/usr/lib/cni/bare", PLUGIN, 0o755).unwrap();
    host.write_file("/opt/cni/config/bare.conflist", CONFLIST, 0o644).unwrap();
    let agent = host.main_pid("nomad.service").unwrap().to_string();
    host.run(&["kill", "-HUP", &agent]).unwrap();
    wait::true_within("the agent to know the network", LIMIT, || {
        Ok(host.node()?["NodeResources"]["Networks"].to_string().contains("cni/bare"))
    })
    .unwrap();
    let work = Work::sh(LOOK).group("Networks", json!([{ "Mode": "cni/bare" }]));
    assert_loopback_alone(&host, "net-bare", work);
    let links = String::from_utf8(host.read_file("/run/bare-links").unwrap()).unwrap();
    assert!(links.lines().count() == 1 && links.contains("<LOOPBACK>"), "not bare: {links}");
}

/// Tied to Nomad's version: 1.11.3 cannot set mode none up, whatever the driver, because its network
/// hook takes the namespace it has just made for one that it had lost; 1.6.3 hands over a bare one. Of
/// a version between these, and of a newer one, either is taken, and which it was is printed.
#[test]
fn mode_none_has_loopback_up_where_nomad_can_set_it_up() {
    let host = Host::shared();
    let network = json!([{ "Mode": "none" }]);
    let task = Work::sh(LOOK).group("Networks", network).run(&host, "net-none");
    let version = host.nomad_version().unwrap();
    let failed = task.alloc.wait_done(LIMIT).unwrap() == "failed";
    println!("mode none fails with {version:?}: {failed}");
    match version {
        Version([1, ..=6, _]) => assert!(!failed, "{:?}", task.state().events()),
        Version([1, 11, 3]) => assert!(failed, "Nomad 1.11.3 sets mode none up: correct the docs"),
        _ => {}
    }
    if failed {
        let events = task.events("Setup Failure");
        assert!(events.contains("network already configured but not found in state"), "{events}");
    } else {
        task.assert_stream("stdout", LOOPBACK);
    }
    task.job.purge().unwrap();
}

#[test]
fn the_host_network_is_refused_until_the_policy_allows_it() {
    let host = Host::alone();
    let script = "cd /sys/class/net; echo *; cat /proc/self/uid_map";
    let work = Work::sh(script).config("network_veth", false);
    let start = |id: &str| work.clone().run(&host, id);
    let refused = |id: &str| {
        let task = work.clone().without_logs().run(&host, id);
        let text = task.refusal();
        assert!(text.contains("[network] allow") && text.contains("\"host\""), "{text}");
        task.job.purge().unwrap();
    };
    refused("host-before");

    let strict = host.read_file(POLICY).unwrap();
    let open = "[network]\nallow = [\"private\", \"veth\", \"group\", \"host\"]\n";
    host.set_policy(open).unwrap();
    let task = start("host-allowed");
    assert_eq!(task.end(), ("complete".to_owned(), 0, 0), "{:?}", task.state().events());
    let text = task.wait_says("65536\n");
    assert!(text.contains("host0"), "{text}");
    let map: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
    assert_ne!(map[1], "0", "container root is host root");
    task.job.purge().unwrap();

    // A file that cannot be read whole changes nothing.
    host.write_file(POLICY, "[network]\nallow = [\"everything\"]\n", 0o644).unwrap();
    let said = host.reload_policy().unwrap();
    assert!(said.contains("policy not read"), "{said}");
    let task = start("host-still-allowed");
    assert_eq!(task.end().0, "complete");
    task.job.purge().unwrap();

    host.set_policy(&strict).unwrap();
    refused("host-after");
}
