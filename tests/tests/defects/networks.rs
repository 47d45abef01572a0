//! D11 to D21: networks. D11, D12, D14, D17 and D18 are seen in tests/tests/network, whose tests have
//! a local network around them; D20 with D6.

use crate::{script, stand, with};
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{DnsConfig, HostsConfig, NetworkIsolationSpec};
use nspawn_tests::lan;
use nspawn_tests::stand::{Running, Stand};
use std::time::{Duration, Instant};

/// The host's address on its only link.
fn address(stand: &Stand) -> &str {
    &stand.rig.ready().address
}

fn serve(value: i32) -> Running<'static> {
    lan::serve(stand(), &[address(stand())], value).unwrap()
}

fn answers(value: i32) -> bool {
    lan::answers(&stand().rig, &[], address(stand()), value, 5)
}

#[test]
fn d13_a_network_that_cannot_be_made_is_refused_with_the_cause() {
    let stand = Stand::up("[network]\nforwarding = \"check\"\n").unwrap();
    let forwarding = |value: &str| {
        let script = "sysctl -q net.ipv4.ip_forward=VALUE net.ipv6.conf.all.forwarding=VALUE";
        stand.rig.sh(&script.replace("VALUE", value)).unwrap();
    };
    forwarding("0");
    let begun = Instant::now();
    let refused = stand.refusal(&script("true")).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for word in ["network-namespace: ", "/proc/sys/net/ipv4/", "forwarding = \"check\""] {
        assert!(refused.text.contains(word), "{word}: {}", refused.text);
    }
    forwarding("1");
    assert_eq!(stand.run(&script("true")).unwrap().code, 0);
}

#[test]
fn d15_a_second_stop_changes_no_rule() {
    let rig = &stand().rig;
    let mut task = serve(20_151);
    let port = " . 20151 : ";
    assert!(lan::table(rig).unwrap().contains(port));
    task.ask_to_stop("SIGKILL").unwrap();
    task.ask_to_stop("SIGKILL").unwrap();
    let (_, allocation) = task.finish_run().unwrap();
    assert!(!lan::table(rig).unwrap().contains(port));
    allocation.remove(rig).unwrap();
    assert!(!lan::table(rig).unwrap().contains(port));
}

#[test]
fn d16_the_end_of_one_task_cuts_no_other_off() {
    let (first, second) = (serve(20_161), serve(20_162));
    assert!(answers(20_161) && answers(20_162));
    first.stop("SIGKILL").unwrap();
    assert!(!answers(20_161) && answers(20_162));
    let netns = lan::netns_of(&second).unwrap();
    let own = lan::page(&stand().rig, &["nsenter", &netns], address(stand()), 20_162, 5).unwrap();
    assert!(own.contains("client "), "{own}");
    second.stop("SIGKILL").unwrap();
}

#[test]
fn d19_dns_and_hosts_of_the_group_have_an_effect() {
    let rig = &stand().rig;
    let allocation = stand().allocation("t").unwrap();
    rig.run(&["ip", "netns", "add", &allocation.id]).unwrap();
    let path = format!("/run/netns/{}", allocation.id);
    let hosts = HostsConfig { hostname: "web-1".to_owned(), address: "192.0.2.9".to_owned() };
    let show = script("cat /etc/resolv.conf /etc/hosts");
    let show = with(show, serde_json::json!({ "extra_hosts": ["db:192.0.2.10"] }));
    let task = stand().start_in(allocation.clone(), 1, &show, |task| {
        task.dns = Some(DnsConfig {
            servers: vec!["192.0.2.53".to_owned()],
            searches: vec!["example".to_owned()],
            options: vec!["ndots:2".to_owned()],
        });
        task.network_isolation_spec = Some(NetworkIsolationSpec {
            mode: NetworkIsolationMode::Group.into(),
            path,
            hosts_config: Some(hosts),
            ..NetworkIsolationSpec::default()
        });
    });
    let outcome = task.unwrap().unwrap().finish().unwrap();
    rig.run(&["ip", "netns", "delete", &allocation.id]).unwrap();
    for line in ["nameserver 192.0.2.53", "search example", "options ndots:2", "192.0.2.9 web-1"] {
        assert!(outcome.stdout.lines().any(|it| it == line), "{line}: {}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("192.0.2.10 db\n"), "{}", outcome.stdout);
}

/// Nothing waits for an address: the network is there before the payload.
#[test]
fn d21_a_task_that_exits_at_once_has_had_its_network() {
    for code in [0, 3] {
        let begun = Instant::now();
        let look = script(&format!("ip -4 -o address show dev host0; exit {code}"));
        let outcome = stand().run(&look).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!((outcome.code, outcome.signal), (code, 0), "{outcome:?}");
        assert!(outcome.stdout.contains("inet "), "{outcome:?}");
    }
}
