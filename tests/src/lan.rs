//! A machine of the test host's local network, played by a network namespace, and a task that serves
//! pages to it.
//!
//! For tests of published ports and of what tasks reach. Everything stays inside the test host. A
//! server's page names its client, so that a test sees who was seen.

use crate::stand::{Running, Stand};
use crate::{Rig, wait};
use anyhow::{Context as _, Result, bail};
use nomad_proto::drivers::{PortMapping, TaskConfig};
use serde_json::{Value, json};
use std::time::Duration;

/// The host's IPv4 address in the local network.
pub const HOST_4: &str = "198.51.100.1";
/// The host's IPv6 address in the local network.
pub const HOST_6: &str = "2001:db8:1::1";
/// The other machine's IPv4 address.
pub const LAN_4: &str = "198.51.100.2";
/// The other machine's IPv6 address.
pub const LAN_6: &str = "2001:db8:1::2";
/// Where [`up`] makes the other machine serve pages.
pub const LAN_PORT: i32 = 9998;
/// Words before a program that runs on the other machine.
pub const IN_LAN: &[&str] = &["ip", "netns", "exec", "lan"];

/// Addresses are usable at once; the page of the other machine names its client as well.
const UP: &str = "set -e
ip netns add lan
ip link add lan0 type veth peer name eth0 netns lan
ip address add 198.51.100.1/24 dev lan0
ip address add 2001:db8:1::1/64 dev lan0 nodad; ip link set lan0 up
l='ip netns exec lan ip'
$l link set lo up; $l address add 198.51.100.2/24 dev eth0
$l address add 2001:db8:1::2/64 dev eth0 nodad; $l link set eth0 up
$l route add default via 198.51.100.1; $l route add default via 2001:db8:1::1
mkdir -p /run/lan/cgi-bin
printf '#!/bin/sh\\necho; echo client $REMOTE_ADDR\\n' >/run/lan/cgi-bin/who
chmod 755 /run/lan/cgi-bin/who
systemd-run -q --unit lan-server ip netns exec lan busybox httpd -f -p 9998 -h /run/lan";

/// Makes the other machine and its server.
///
/// # Errors
/// When a command fails.
pub fn up(rig: &Rig) -> Result<()> {
    rig.sh(UP)?;
    wait::true_within("the other machine's server", Duration::from_secs(20), || {
        Ok(answers(rig, &[], LAN_4, LAN_PORT, 3))
    })
}

/// Takes both away.
///
/// # Errors
/// When a command fails.
pub fn down(rig: &Rig) -> Result<()> {
    let script = "set -e; systemctl stop lan-server.service; ip netns del lan; rm -r /run/lan";
    rig.sh(script)?;
    wait::true_within("the end of the link", Duration::from_secs(20), || {
        Ok(!rig.exists("/sys/class/net/lan0"))
    })
}

/// A script as PID 1 of a busybox with a network of its own.
#[must_use]
pub fn task(script: &str) -> Value {
    json!({ "image": "busybox", "boot": false, "ephemeral": true, "command": ["/bin/sh", "-c", script] })
}

/// A port as Nomad hands it to the driver.
#[must_use]
pub fn port(label: &str, address: &str, value: i32, to: i32) -> PortMapping {
    PortMapping { label: label.into(), value, to, host_ip: address.into() }
}

/// Gives a task these ports of its group.
pub fn with_ports(ports: Vec<PortMapping>) -> impl FnOnce(&mut TaskConfig) {
    |task| {
        if let Some(resources) = &mut task.resources {
            resources.ports = ports;
        }
    }
}

/// The script of a server whose page is the address of its client.
pub const SERVER: &str = "mkdir -p /tmp/www/cgi-bin; cd /tmp/www
printf '#!/bin/sh\\necho; echo client $REMOTE_ADDR\\n' >cgi-bin/who; chmod 755 cgi-bin/who
echo ready; exec httpd -f -p 80 -h /tmp/www";

/// Starts [`SERVER`] with its port 80 at this port of these addresses of the host.
///
/// # Errors
/// When it does not start.
pub fn serve<'a>(stand: &'a Stand, addresses: &[&str], value: i32) -> Result<Running<'a>> {
    let label = |number: usize| format!("http{number}");
    let ports = addresses.iter().enumerate().map(|(n, at)| port(&label(n), at, value, 80));
    let mut config = task(SERVER);
    if let Some(keys) = config.as_object_mut() {
        keys.insert("ports".to_owned(), (0..addresses.len()).map(label).collect());
    }
    match stand.start(&config, with_ports(ports.collect()))? {
        Ok(mut server) => {
            server.wait_output("ready")?;
            Ok(server)
        }
        Err(refused) => bail!("refused: {}", refused.text),
    }
}

/// What a client gets from [`SERVER`] within so many seconds, or why it gets nothing.
///
/// # Errors
/// When the client cannot be run.
pub fn page(rig: &Rig, netns: &[&str], address: &str, port: i32, seconds: u32) -> Result<String> {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let (url, limit) = (format!("http://{host}:{port}/cgi-bin/who"), seconds.to_string());
    let output = rig.exec(&[netns, &["curl", "-gsS", "-m", &limit, &url][..]].concat())?;
    Ok(format!("{}{}", output.text(), String::from_utf8_lossy(&output.stderr)).trim().to_owned())
}

/// Whether there is such a page.
#[must_use]
pub fn answers(rig: &Rig, netns: &[&str], address: &str, port: i32, seconds: u32) -> bool {
    page(rig, netns, address, port, seconds).is_ok_and(|page| page.contains("client "))
}

/// nsenter's option for the network namespace of a running task.
///
/// # Errors
/// When it does not run.
pub fn netns_of(server: &Running<'_>) -> Result<String> {
    Ok(format!("--net=/proc/{}/ns/net", server.leader()?))
}

/// The task's IPv4 address.
///
/// # Errors
/// When it has none.
pub fn address(server: &Running<'_>) -> Result<String> {
    let netns = netns_of(server)?;
    let words = ["nsenter", &netns, "ip", "-4", "-br", "address", "show", "dev", "host0"];
    let line = server.rig().run(&words)?;
    let word = line.split_whitespace().nth(2).context("no address")?;
    Ok(word.split('/').next().unwrap_or(word).to_owned())
}

/// The table of the daemon as nft prints it.
///
/// # Errors
/// When there is none.
pub fn table(rig: &Rig) -> Result<String> {
    rig.run(&["nft", "-s", "list", "table", "inet", "nomad_nspawn"])
}
