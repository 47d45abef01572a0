//! Networks of tasks' own, with real traffic: between tasks, the host, and a network namespace of the
//! test host that plays a machine of its local network.
//!
//! One host with the helper and one plugin; the strict policy, with some bridges and interfaces listed.
//! Networks that systemd-nspawn makes have a host of their own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod bridges;
mod container_setup;
mod fixed;
mod hosts;
mod isolation;
mod life;
mod own_namespace;
mod ports;
mod refusals;
mod scan;
mod storm;
mod zones;

use nspawn_tests::lan::{self, HOST_4, HOST_6, IN_LAN, LAN_4, SERVER, port, task, with_ports};
use nspawn_tests::stand::{Running, Stand};
use nspawn_tests::{Rig, World, wait};
use serde_json::json;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// No step takes longer.
const SOON: Duration = Duration::from_secs(20);
/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";
/// Another address of the host.
const OTHER_4: &str = "198.51.100.9";

/// The namespace, its link, and addresses that are usable at once.
const LAN: &str = "set -e
ip netns add lan
ip link add lan0 type veth peer name eth0 netns lan
ip address add 198.51.100.1/24 dev lan0; ip address add 198.51.100.9/24 dev lan0
ip address add 2001:db8:1::1/64 dev lan0 nodad; ip link set lan0 up
l='ip netns exec lan ip'
$l link set lo up; $l address add 198.51.100.2/24 dev eth0
$l address add 2001:db8:1::2/64 dev eth0 nodad; $l link set eth0 up
$l route add default via 198.51.100.1; $l route add default via 2001:db8:1::1";

/// What tasks may be attached to, beside what the strict policy allows.
const POLICY: &str = "[caps]
allow = [\"net_admin\"]
[network]
allow = [\"private\", \"veth\", \"zone\", \"group\", \"bridge:br0\", \"bridge:br1\", \"bridge:br7\", \"bridge:brx*\", \"macvlan:mac0\"]
";

struct Host {
    stand: Stand,
    world: World,
}

/// Who kills the helper, or looks at everything, is alone.
static LIFE: RwLock<()> = RwLock::new(());

fn shared() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let stand = Stand::up(POLICY).unwrap();
        stand.rig.sh(LAN).unwrap();
        stand.rig.sh(bridges::MADE).unwrap();
        stand.rig.sh(own_namespace::IMAGES).unwrap();
        // What comes with the first task and stays: the slice, the route of the pool, forwarding.
        assert_eq!(stand.run(&task("true")).unwrap().code, 0);
        let world = World::snapshot(&stand.rig).unwrap();
        Host { stand, world }
    })
}

fn host() -> (RwLockReadGuard<'static, ()>, &'static Stand) {
    (LIFE.read().unwrap_or_else(PoisonError::into_inner), &shared().stand)
}

fn alone() -> (RwLockWriteGuard<'static, ()>, &'static Host) {
    (LIFE.write().unwrap_or_else(PoisonError::into_inner), shared())
}

/// Asks for the page of a server from a task; prints it, or why there is none. Not wget: that of
/// Debian 12 crashes in an image without the C library's modules.
fn ask(address: &str, port: i32, path: &str) -> String {
    format!("printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {address} {port} 2>&1 | tail -n 1")
}

/// Starts the server of [`lan`] with its port 80 at this port of these addresses of the host.
fn serve<'a>(stand: &'a Stand, addresses: &[&str], value: i32) -> Running<'a> {
    lan::serve(stand, addresses, value).unwrap()
}

/// The page of that server, or why there is none; `netns`: words before the program.
fn page(rig: &Rig, netns: &[&str], address: &str, port: i32) -> String {
    lan::page(rig, netns, address, port, 3).unwrap()
}

/// The task's IPv4 address.
fn address(server: &Running<'_>) -> String {
    lan::address(server).unwrap()
}

/// A program that answers each packet to UDP port 53 with this name, in a Debian.
fn udp_server<'a>(stand: &'a Stand, name: &str, value: i32) -> Running<'a> {
    let program = format!(
        "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); bind(S, sockaddr_in(53, INADDR_ANY)); \
         $| = 1; print \"ready\\n\"; while ($from = recv(S, $_, 999, 0)) {{ send(S, \"{name}\\n\", 0, $from) }}"
    );
    let config = json!({
        "image": "debian", "boot": false, "ephemeral": true, "ports": ["dns"],
        "command": ["/usr/bin/perl", "-e", program],
    });
    let ports = with_ports(vec![port("dns", HOST_4, value, 53)]);
    let mut server = stand.start(&config, ports).unwrap().unwrap();
    server.wait_output("ready").unwrap();
    server
}

/// What a client of the local network hears that sends a packet every 100 ms, always from one port.
fn udp_client(rig: &Rig, value: u16, packets: u32) -> String {
    let program = "use Socket; socket(S, PF_INET, SOCK_DGRAM, 0); $| = 1; \
        connect(S, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))); vec($all, fileno(S), 1) = 1; \
        for (1 .. $ARGV[2]) { send(S, \"x\", 0); select(undef, undef, undef, 0.1); \
        while (select($set = $all, undef, undef, 0) > 0) { last unless defined recv(S, $_, 999, 0); print } }";
    let (port, packets) = (value.to_string(), packets.to_string());
    let words = [IN_LAN, &["perl", "-e", program, HOST_4, &port, &packets]].concat();
    rig.exec(&words).unwrap().text()
}

/// Waits until everything is as before the first test.
fn assert_same(host: &Host) {
    host.world.assert_same(&host.stand.rig).unwrap();
}

fn soon(what: &str, look: impl FnMut() -> anyhow::Result<bool>) {
    wait::true_within(what, SOON, look).unwrap();
}
