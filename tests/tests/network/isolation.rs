//! What root in a task cannot reach or take: the host, its local network's addresses, other tasks.

use crate::{HOST_4, IN_LAN, address, ask, host, page, serve, task};
use nspawn_tests::Rig;

/// Something that listens on every address of the host, until it is dropped.
struct Listener<'a>(&'a Rig, &'static str);

impl<'a> Listener<'a> {
    fn new(rig: &'a Rig, unit: &'static str, port: &str) -> Self {
        let words = ["systemd-run", "-q", "--unit", unit, "busybox", "httpd", "-f", "-p", port];
        rig.run(&[&words[..], &["-h", "/etc"]].concat()).unwrap();
        let host = Self(rig, unit);
        crate::soon("the host's own server", || {
            let url = format!("http://127.0.0.1:{port}/hostname");
            Ok(rig.exec(&["curl", "-sfm", "3", &url])?.success())
        });
        host
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.0.run(&["systemctl", "stop", self.1]).unwrap();
    }
}

#[test]
fn the_hosts_ports_and_the_metadata_service_are_closed_and_its_loopback_as_well() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let listener = Listener::new(rig, "closed-server.service", "9997");
    // A machine of the local network plays the metadata service.
    rig.sh(
        "set -e; ip netns exec lan ip address add 169.254.169.254/32 dev eth0
         ip route add 169.254.169.254/32 via 198.51.100.2
         systemd-run -q --unit metadata.service ip netns exec lan busybox httpd -f -p 9997 -h /etc",
    )
    .unwrap();
    crate::soon("the metadata service", || {
        let url = "http://169.254.169.254:9997/hostname";
        Ok(rig.exec(&["curl", "-sfm", "3", url])?.success())
    });
    let ask = ask("$at", 9997, "/hostname");
    let script = format!(
        "set -- $(ip -4 route show default); gateway=$3
         for at in $gateway {HOST_4} 169.254.169.254; do
             {ask}
         done
         ip route add 127.0.0.1/32 via $gateway 2>&1 | head -n 1"
    );
    let outcome = stand.run(&task(&script)).unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let [gateway, host, metadata, route] = lines[..] else { panic!("{lines:?}") };
    assert!(gateway.contains("refused") && host.contains("refused"), "{lines:?}");
    assert!(metadata.contains("No route to host"), "{lines:?}");
    assert!(route.contains("not permitted"), "{lines:?}");
    drop(listener);
    rig.sh("systemctl stop metadata.service; ip route del 169.254.169.254/32
         ip netns exec lan ip address del 169.254.169.254/32 dev eth0")
        .unwrap();
}

#[test]
fn tasks_reach_each_other_by_published_ports_alone() {
    let (_life, stand) = host();
    let server = serve(stand, &[HOST_4], 20_011);
    let inner = address(&server);
    let script = [ask(&inner, 80, "/cgi-bin/who"), ask(HOST_4, 20_011, "/cgi-bin/who")].join("; ");
    let outcome = stand.run(&task(&script)).unwrap();
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[0].contains("refused"), "{lines:?}");
    assert!(lines[1].contains("client "), "{lines:?}");
    server.stop("SIGKILL").unwrap();
}

/// Packets with another's address never leave the task's link, whoever sends them.
#[test]
fn a_source_that_is_not_the_tasks_own_is_dropped() {
    let (_life, stand) = host();
    let rig = &stand.rig;
    let server = serve(stand, &[HOST_4], 20_012);
    let victim = serve(stand, &[HOST_4], 20_013);
    let leader = server.leader().unwrap();
    let netns = format!("--net=/proc/{leader}/ns/net");
    let neighbour = address(&victim);
    // As the host's root in the task's namespace: more than any payload can do there.
    let spoof = |source: &str| {
        let script = format!(
            "ip address add {source}/32 dev host0 && \
             {{ busybox ping -c 2 -W 1 -I {source} 198.51.100.2; true; }} && \
             ip address del {source}/32 dev host0"
        );
        rig.run(&["nsenter", &netns, "sh", "-c", &script]).unwrap()
    };
    for source in [neighbour.as_str(), "198.51.100.77", "8.8.8.8"] {
        let seen = spoof(source);
        assert!(seen.contains("100% packet loss"), "{source}: {seen}");
    }
    assert!(page(rig, IN_LAN, HOST_4, 20_013).contains("client "), "the neighbour is reached");
    let own = ["nsenter", &netns, "busybox", "ping", "-c", "1", "-W", "2", "198.51.100.2"];
    assert!(rig.run(&own).unwrap().contains(" 0% packet loss"));
    server.stop("SIGKILL").unwrap();
    victim.stop("SIGKILL").unwrap();
}

/// A router advertisement from a task must not become the host's route.
#[test]
fn the_host_takes_no_router_advertisements_from_tasks() {
    let (_life, stand) = host();
    let server = serve(stand, &[HOST_4], 20_014);
    let value = stand
        .rig
        .sh("for dir in /proc/sys/net/ipv6/conf/nv-*; do cat $dir/accept_ra; done | sort -u");
    assert_eq!(value.unwrap().trim(), "0");
    server.stop("SIGKILL").unwrap();
}
