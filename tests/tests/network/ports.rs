//! Published ports: where they answer, and where nothing does.

use crate::{
    HOST_4, HOST_6, IN_LAN, LAN_4, OTHER_4, address, ask, host, page, serve, task, udp_client,
    udp_server,
};
use nspawn_tests::stand::Stand;

/// What a script of a task on this host writes.
fn said(stand: &Stand, script: &str) -> String {
    stand.run(&task(script)).unwrap().stdout
}

#[test]
fn d11_d17_a_port_answers_at_its_address_on_loopback_and_to_every_neighbour() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let server = serve(stand, &[HOST_4, HOST_6], 20_001);
    // Clients of the local network are seen as they are.
    let seen = page(rig, IN_LAN, HOST_4, 20_001);
    assert!(seen.contains(LAN_4), "{seen}");
    let seen = page(rig, IN_LAN, HOST_6, 20_001);
    assert!(seen.contains("2001:db8:1::2"), "{seen}");
    for address in [HOST_4, "127.0.0.1", HOST_6, "::1"] {
        let seen = page(rig, &[], address, 20_001);
        assert!(seen.contains("client "), "{address}: {seen}");
    }
    // From itself, and from another task.
    let own = ask(HOST_4, 20_001, "/cgi-bin/who");
    let leader = server.leader().unwrap();
    let netns = format!("--net=/proc/{leader}/ns/net");
    let seen = page(rig, &["nsenter", &netns], HOST_4, 20_001);
    assert!(seen.contains("client "), "itself: {seen}");
    assert!(said(stand, &own).contains("client "), "another task");
    server.stop("SIGKILL").unwrap();
}

#[test]
fn p21_nothing_else_answers() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let server = serve(stand, &[HOST_4], 20_002);
    let inner = address(&server);
    assert!(page(rig, IN_LAN, HOST_4, 20_002).contains("client "));
    for (what, netns, at, port) in [
        ("another address", IN_LAN, OTHER_4, 20_002),
        ("another port", IN_LAN, HOST_4, 20_003),
        ("the port inside", IN_LAN, HOST_4, 80),
        ("the task itself", IN_LAN, &inner, 80),
        ("the task itself, by the port outside", IN_LAN, &inner, 20_002),
        ("IPv6, which the label has not", IN_LAN, HOST_6, 20_002),
    ] {
        let seen = page(rig, netns, at, port);
        assert!(seen.contains("onnect") && !seen.contains("client "), "{what}: {seen}");
    }
    // The host itself reaches a task by its address, as the agent's checks do.
    assert!(page(rig, &[], &inner, 80).contains("client "));
    server.stop("SIGKILL").unwrap();
}

/// A packet to 127.0.0.1 can be sent to the host's MAC address by who is in its local network.
#[test]
fn a_neighbour_does_not_reach_what_is_published_on_loopback() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let server = serve(stand, &[HOST_4], 20_004);
    assert!(page(rig, &[], "127.0.0.1", 20_004).contains("client "));
    rig.sh("set -e; ip netns add near; ip link add near0 type veth peer name eth0 netns near
         ip address add 203.0.113.1/24 dev near0; ip link set near0 up
         n='ip netns exec near'; $n ip address add 203.0.113.2/24 dev eth0; $n ip link set eth0 up
         $n sysctl -q net.ipv4.conf.all.route_localnet=1
         $n ip route add 127.0.0.1/32 via 203.0.113.1 src 203.0.113.2")
        .unwrap();
    let near = ["ip", "netns", "exec", "near"];
    let seen = page(rig, &near, "127.0.0.1", 20_004);
    rig.run(&["ip", "netns", "del", "near"]).unwrap();
    assert!(!seen.contains("client "), "{seen}");
    server.stop("SIGKILL").unwrap();
}

#[test]
fn d17_udp_is_published_as_well() {
    let (_life, stand) = host();
    let server = udp_server(stand, "answer", 20_005);
    let heard = udp_client(&stand.rig, 20_005, 5);
    assert!(heard.starts_with("answer\n"), "{heard:?}");
    server.stop("SIGKILL").unwrap();
}

/// The network is whole before the payload's first instruction, each time.
#[test]
fn d12_the_first_instruction_has_a_network() {
    let (_life, stand) = host();
    // Nobody on the host sets networks up, and nobody in the image asks for addresses.
    let managers = ["systemd-networkd.service", "NetworkManager.service", "dhcpcd.service"];
    for manager in managers {
        assert!(!stand.rig.exec(&["systemctl", "is-active", manager]).unwrap().success());
    }
    // A port that is closed answers at once; a way that is not there yet does not.
    let look = "set -- $(ip -4 route show default); nc -w 1 $3 9 2>&1; \
                own=$(ip -6 -o address show dev host0 scope global | grep -o 'fd[^/]*'); \
                nc -w 1 ${own%::*}::1 9 2>&1";
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let said = said(stand, look);
                    assert_eq!(said.matches("refused").count(), 2, "{said}");
                }
            });
        }
    });
}

/// The answer to Nomad names the task's address and its ports, for services with address_mode driver.
#[test]
fn d18_the_answer_names_address_and_ports() {
    let (_life, stand) = host();
    let server = serve(stand, &[HOST_4], 20_006);
    let network = server.network().expect("the driver reports a network");
    assert_eq!(network.addr, address(&server));
    assert_eq!(network.port_map.get("http0"), Some(&80));
    assert!(!network.auto_advertise);
    server.stop("SIGKILL").unwrap();
}
