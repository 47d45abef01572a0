//! Addresses that a job names.

use crate::{HOST_4, SERVER, address, alone, assert_same, page, port, serve, task, with_ports};
use nspawn_tests::Rig;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, Ipv6Addr};

/// First addresses of the pools, by the routes that keep them.
fn pools(rig: &Rig) -> (Ipv4Addr, Ipv6Addr) {
    let pool = |family: &str| {
        let routes = rig.run(&["ip", family, "route", "show", "type", "unreachable"]).unwrap();
        let line = routes.lines().find(|line| line.contains("metric 4278198272")).unwrap();
        let word = line.split_whitespace().nth(1).unwrap();
        word.split('/').next().unwrap().to_owned()
    };
    (pool("-4").parse().unwrap(), pool("-6").parse().unwrap())
}

fn with_key(script: &str, key: &str, value: &str) -> Value {
    let mut config = task(script);
    config[key] = value.into();
    config
}

#[test]
fn addresses_are_those_that_the_job_names() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let (v4, v6) = pools(&stand.rig);
    let v4 = Ipv4Addr::from_bits(v4.to_bits() + 0x305);
    let v6 = Ipv6Addr::from_bits(v6.to_bits() + 0xabcd_0000);
    let mac = "00:1b:21:00:00:07";
    let mut config = task(SERVER);
    config["ports"] = json!(["http"]);
    config["ipv4_address"] = v4.to_string().into();
    config["ipv6_address"] = v6.to_string().into();
    config["mac_address"] = mac.into();
    let ports = || with_ports(vec![port("http", HOST_4, 20_051, 80)]);
    let mut server = stand.start(&config, ports()).unwrap().unwrap();
    server.wait_output("ready").unwrap();
    assert_eq!(address(&server), v4.to_string());
    assert_eq!(server.network().unwrap().addr, v4.to_string());
    assert!(page(&stand.rig, crate::IN_LAN, HOST_4, 20_051).contains("client "));
    let netns = format!("--net=/proc/{}/ns/net", server.leader().unwrap());
    let shown =
        stand.rig.run(&["nsenter", &netns, "ip", "address", "show", "dev", "host0"]).unwrap();
    for part in [format!("link/ether {mac}"), format!("inet6 {v6}/128")] {
        assert!(shown.contains(&part), "{part}: {shown}");
    }
    // Another task cannot have any of them, and is told whose they are.
    for (key, value) in [
        ("ipv4_address", v4.to_string()),
        ("ipv6_address", v6.to_string()),
        ("mac_address", mac.into()),
    ] {
        let refused = stand.refusal(&with_key("true", key, &value)).unwrap();
        assert!(refused.text.contains("task t of allocation"), "{key}: {}", refused.text);
        assert!(refused.recoverable && refused.text.contains(&value), "{}", refused.text);
    }
    server.stop("SIGKILL").unwrap();
    // When it has been removed, the next one has it.
    let script = "ip -4 -o address show dev host0";
    let outcome = stand.run(&with_key(script, "ipv4_address", &v4.to_string())).unwrap();
    assert!(outcome.stdout.contains(&format!("inet {v4} ")), "{outcome:?}");
    assert_same(host);
}

#[test]
fn addresses_that_no_task_can_have_are_refused_before_anything_is_made() {
    let (_alone, host) = alone();
    let stand = &host.stand;
    let (v4, v6) = pools(&stand.rig);
    let at = |place: u32| Ipv4Addr::from_bits(v4.to_bits() + place).to_string();
    let six = |place: u128| Ipv6Addr::from_bits(v6.to_bits() + place).to_string();
    for (key, value, words) in [
        ("ipv4_address", at(0), "name of the network"),
        ("ipv4_address", at(1), "the host's end of all links"),
        ("ipv4_address", at(4095), "broadcast address"),
        ("ipv4_address", at(4096), "the pool of this host's tasks"),
        ("ipv4_address", HOST_4.to_owned(), "the pool of this host's tasks"),
        ("ipv6_address", six(0), "name of the network"),
        ("ipv6_address", six(1), "the host's end of all links"),
        ("ipv6_address", six(1 << 64), "the pool of this host's tasks"),
        ("mac_address", "01:00:5e:00:00:01".to_owned(), "must be of one interface"),
    ] {
        let refused = stand.refusal(&with_key("true", key, &value)).unwrap();
        assert!(refused.text.contains(words), "{key} {value}: {}", refused.text);
        assert!(!refused.recoverable, "{}", refused.text);
    }
    // Also the address that another task has by its name.
    let server = serve(stand, &[HOST_4], 20_052);
    let taken = address(&server);
    let refused = stand.refusal(&with_key("true", "ipv4_address", &taken)).unwrap();
    assert!(refused.text.contains("task t of allocation"), "{}", refused.text);
    // And its gateway's MAC address, which would be that of both ends.
    let (v4, [a, b, c, d]) = (at(77), Ipv4Addr::from_bits(v4.to_bits() + 77).octets());
    let mut config = with_key("true", "ipv4_address", &v4);
    config["mac_address"] = format!("02:01:{a:02x}:{b:02x}:{c:02x}:{d:02x}").into();
    let refused = stand.refusal(&config).unwrap();
    assert!(refused.text.contains("the host's end of the link has it"), "{}", refused.text);
    server.stop("SIGKILL").unwrap();
    assert_same(host);
}
