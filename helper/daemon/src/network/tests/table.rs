//! The table as `nft` lists it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use proto::link::Link;

use super::super::elements::Elements;
use super::super::filter::{Failure, PacketFilter};
use super::super::table::Rules;
use super::namespaces::{NONE, compat, in_namespace, link, run, strict, try_run};
use policy::{HostPorts, Protocol};

/// The example of docs/NETWORK.md: one port, under labels of both families.
const ONE_PORT: [(&str, u16, u16); 2] = [("198.51.100.1", 20001, 80), ("2001:db8:1::1", 20001, 80)];

/// The table's text as nft 1.0.6 writes it: without what nft appends, the name of the program that
/// owns it; newer ones have a name for the priority of chain `output`.
fn listing() -> String {
    let text = run("nft list table inet nomad_nspawn");
    let line = |line: &str| line.split(" # progname").next().unwrap_or_default().to_owned() + "\n";
    let text: String = text.lines().map(line).collect();
    text.replace("hook output priority dstnat", "hook output priority -100")
}

/// The elements of a set or map, sorted.
fn elements(name: &str) -> Vec<String> {
    let kind = if name.starts_with("publish") { "map" } else { "set" };
    let text = run(&format!("nft list {kind} inet nomad_nspawn {name}"));
    let Some((_, list)) = text.split_once("elements = {") else { return Vec::new() };
    let list = list.split('}').next().unwrap();
    let mut all: Vec<_> =
        list.split(',').map(|e| e.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    all.sort();
    all
}

fn filter_with(rules: &Rules, links: impl IntoIterator<Item: Into<Elements>>) -> PacketFilter {
    let mut filter = PacketFilter::open().unwrap();
    filter.replace(rules, links).unwrap();
    filter
}

#[test]
fn the_table_is_the_one_of_network_md() {
    let document = include_str!("../../../../../docs/NETWORK.md");
    let block = document.split_once("```nft\n").unwrap().1.split_once("```").unwrap().0;
    in_namespace(move |_host| {
        let _filter = filter_with(&strict(), NONE);
        let listed = listing();
        assert!(listed == block, "docs/NETWORK.md differs from what nft lists:\n{listed}");
    });
}

#[test]
fn a_port_is_published_at_its_address_and_on_loopback_of_both_families() {
    in_namespace(|_host| {
        let mut filter = filter_with(&strict(), NONE);
        let task = link(11, &ONE_PORT);
        let both = |rest: &str| [format!("tcp . {rest}"), format!("udp . {rest}")];
        let mut publish4: Vec<_> = both("198.51.100.1 . 20001 : 10.64.0.11 . 80").to_vec();
        publish4.extend(both("127.0.0.1 . 20001 : 10.64.0.11 . 80"));
        publish4.sort();
        let mut publish6: Vec<_> = both("2001:db8:1::1 . 20001 : fd64::b . 80").to_vec();
        publish6.extend(both("::1 . 20001 : fd64::b . 80"));
        publish6.sort();
        // Twice: what is there may be there.
        for _ in 0..2 {
            filter.add(&task).unwrap();
            assert_eq!(elements("publish4"), publish4);
            assert_eq!(elements("publish6"), publish6);
            assert_eq!(elements("self4"), ["10.64.0.11 . 10.64.0.11"]);
            assert_eq!(elements("self6"), ["fd64::b . fd64::b"]);
        }
        // An IPv4 label alone leads from [::1] too.
        filter.add(&link(12, &[("198.51.100.1", 20002, 81)])).unwrap();
        let v6: Vec<_> = elements("publish6").into_iter().filter(|e| e.contains("20002")).collect();
        assert_eq!(v6, both("::1 . 20002 : fd64::c . 81"));
        for _ in 0..2 {
            filter.remove(&task).unwrap();
            filter.remove(&link(12, &[("198.51.100.1", 20002, 81)])).unwrap();
            for name in ["publish4", "publish6", "self4", "self6"] {
                assert!(elements(name).is_empty(), "{name}");
            }
        }
    });
}

#[test]
fn a_label_on_loopback_is_published_there_alone() {
    in_namespace(|_host| {
        let mut filter = filter_with(&strict(), NONE);
        filter.add(&link(11, &[("127.0.0.1", 20001, 80)])).unwrap();
        assert_eq!(elements("publish4").len(), 2);
        assert!(elements("publish6").is_empty());
        filter.add(&link(12, &[("::1", 20001, 80)])).unwrap();
        assert_eq!(elements("publish4").len(), 2);
        assert_eq!(elements("publish6").len(), 2);
    });
}

#[test]
fn a_task_without_ipv6_has_elements_of_ipv4_alone() {
    in_namespace(|_host| {
        let mut filter = filter_with(&Rules { pool6: None, ..strict() }, NONE);
        assert!(elements("pool6").is_empty());
        let task = Link { v6: None, ..link(11, &ONE_PORT) };
        filter.add(&task).unwrap();
        assert_eq!((elements("publish4").len(), elements("self4").len()), (4, 1));
        assert!(elements("publish6").is_empty() && elements("self6").is_empty());
        filter.remove(&task).unwrap();
        assert!(elements("publish4").is_empty());
    });
}

#[test]
fn a_taken_port_stays_with_the_task_that_has_it() {
    in_namespace(|_host| {
        let first = link(11, &ONE_PORT);
        let mut filter = filter_with(&strict(), std::slice::from_ref(&first));
        let before = elements("publish4");
        // Another address; 127.0.0.1 is the same.
        let second = link(12, &[("198.51.100.2", 20001, 8080)]);
        let failure = filter.add(&second).unwrap_err();
        let text = failure.to_string();
        assert!(matches!(failure, Failure::Taken { .. }), "{text}");
        assert!(
            text.contains("127.0.0.1:20001 leads to port 80 of the task at 10.64.0.11"),
            "{text}"
        );
        // The removal of the one that never came in takes nothing from the first.
        filter.remove(&second).unwrap();
        assert_eq!(elements("publish4"), before);
        assert_eq!(elements("self4"), ["10.64.0.11 . 10.64.0.11"]);
        // The kernel would refuse it as well.
        drop(filter);
        let mut filter = filter_with(&strict(), &[first, second.clone()]);
        assert!(elements("publish4").contains(&before[0]));
        filter.remove(&second).unwrap();
        assert_eq!(elements("publish4"), before);
    });
}

#[test]
fn a_thousand_tasks_are_added_replaced_and_removed() {
    in_namespace(|_host| {
        let address = |n: u16| format!("203.0.113.{}", n % 250);
        let links: Vec<Link> = (0..1000)
            .map(|n| {
                let address = address(n);
                let ports: Vec<_> =
                    (0..4).map(|p| (address.as_str(), 20000 + 4 * n + p, 80 + p)).collect();
                link(n + 2, &ports)
            })
            .collect();
        let mut filter = filter_with(&strict(), NONE);
        let begin = Instant::now();
        links.iter().for_each(|link| filter.add(link).unwrap());
        println!("1,000 tasks of 4 ports added in {:?}", begin.elapsed());
        assert_eq!((elements("publish4").len(), elements("publish6").len()), (16000, 8000));
        for round in 0..3 {
            let begin = Instant::now();
            filter.replace(&strict(), &links).unwrap();
            println!("replaced in {:?}", begin.elapsed());
            assert_eq!(elements("self6").len(), 1000, "round {round}");
        }
        assert_eq!((elements("publish4").len(), elements("publish6").len()), (16000, 8000));
        let more = link(1500, &[("198.51.100.1", 30000, 80)]);
        let begin = Instant::now();
        filter.add(&more).unwrap();
        println!("one more added in {:?}", begin.elapsed());
        let begin = Instant::now();
        filter.remove(&more).unwrap();
        println!("and removed in {:?}", begin.elapsed());
        assert_eq!((elements("publish4").len(), elements("publish6").len()), (16000, 8000));

        // Each message is refused and repeated in the answer: the reason still arrives.
        let failure = PacketFilter::open().unwrap().replace(&strict(), &links).unwrap_err();
        assert!(matches!(failure, Failure::Owned), "{failure}");

        filter.release(&strict(), &links).unwrap();
        filter.replace(&strict(), &links[..1]).unwrap();
        assert_eq!(elements("publish4").len(), 16);
        links.iter().for_each(|link| filter.remove(link).unwrap());
        assert!(elements("publish4").is_empty() && elements("self4").is_empty());
    });
}

#[test]
fn others_cannot_change_an_owned_table_and_can_after_its_release() {
    in_namespace(|_host| {
        let task = link(11, &ONE_PORT);
        let mut filter = filter_with(&strict(), std::slice::from_ref(&task));
        let before = listing();
        assert!(before.contains("flags owner"), "{before}");
        run("nft add table inet of_another");
        run("nft flush ruleset");
        assert_eq!(listing(), before);
        assert_eq!(run("nft list tables").lines().count(), 1, "the other one is flushed");
        let error = try_run("nft delete table inet nomad_nspawn").unwrap_err();
        assert!(error.contains("Operation not permitted"), "{error}");

        let failure = PacketFilter::open().unwrap().replace(&strict(), NONE).unwrap_err();
        let text = failure.to_string();
        assert!(matches!(failure, Failure::Owned), "{text}");
        assert!(text.contains("nft list table inet nomad_nspawn"), "{text}");

        filter.release(&strict(), std::slice::from_ref(&task)).unwrap();
        drop(filter);
        assert_eq!(listing(), before.replace("\tflags owner\n\n", ""));
        // A new daemon takes it over.
        let filter = filter_with(&strict(), std::slice::from_ref(&task));
        assert_eq!(listing(), before);
        drop(filter);
        assert_eq!(run("nft list tables"), "", "an owned table goes with its socket");
    });
}

#[test]
fn a_copy_of_the_socket_keeps_the_table_and_may_change_it() {
    in_namespace(|_host| {
        let task = link(11, &ONE_PORT);
        let filter = filter_with(&strict(), std::slice::from_ref(&task));
        let before = listing();
        let stored = filter.fd().try_clone_to_owned().unwrap();
        drop(filter);
        assert_eq!(listing(), before);
        let mut filter = PacketFilter::adopt(stored).unwrap();
        filter.replace(&strict(), std::slice::from_ref(&task)).unwrap();
        assert_eq!(listing(), before);
        filter.remove(&task).unwrap();
        assert!(elements("publish4").is_empty());
    });
}

#[test]
fn prefixes_that_overlap_or_touch_are_one() {
    in_namespace(|_host| {
        let closed = [
            ("10.1.2.3", 16),
            ("10.0.0.0", 8),
            ("11.0.0.0", 8),
            ("255.255.255.255", 32),
            ("192.0.2.1", 32),
            ("ff00::", 8),
            ("2001:db8::1", 128),
        ];
        let closed = closed.map(|(address, length)| (address.parse().unwrap(), length)).to_vec();
        let mut filter = filter_with(&Rules { closed, ..strict() }, NONE);
        assert_eq!(elements("closed4"), ["10.0.0.0/7", "192.0.2.1", "255.255.255.255"]);
        assert_eq!(elements("closed6"), ["2001:db8::1", "ff00::/8"]);
        let whole = [("0.0.0.0", 0), ("::", 0), ("10.0.0.0", 8)];
        let closed = whole.map(|(address, length)| (address.parse().unwrap(), length)).to_vec();
        filter.replace(&Rules { closed, ..strict() }, NONE).unwrap();
        let text = listing();
        assert!(text.contains("0.0.0.0/0") && text.contains("::/0"), "{text}");
    });
}

/// What all prefixes of one family are takes more than the 64 KiB of one attribute.
#[test]
fn a_long_list_of_prefixes_and_ports_is_loaded_whole() {
    in_namespace(|_host| {
        let v4 = (0..5000_u32).map(|n| (Ipv4Addr::from_bits(0x0b00_0000 + (n << 8)).into(), 25));
        let v6 = |n: u128| Ipv6Addr::from_bits((0x2001_0db8 << 96) + (n << 64)).into();
        let closed = v4.chain((0..5000).map(|n| (v6(n), 65))).collect();
        let ports = (1..=5000).map(|port| (Protocol::Tcp, port)).collect();
        let mut filter =
            filter_with(&Rules { closed, host_ports: HostPorts::Listed(ports), ..strict() }, NONE);
        for name in ["closed4", "closed6", "host_ports"] {
            assert_eq!(elements(name).len(), 5000, "{name}");
        }
        assert!(elements("closed4").contains(&"11.19.135.0/25".to_owned()));
        filter.replace(&strict(), NONE).unwrap();
        assert_eq!(elements("closed4"), ["169.254.0.0/16"]);
    });
}

#[test]
fn open_host_ports_are_one_rule() {
    in_namespace(|_host| {
        let mut filter = filter_with(&compat(), NONE);
        assert!(elements("closed4").is_empty() && elements("host_ports").is_empty());
        let text = listing();
        assert!(!text.contains("@host_ports"), "{text}");
        let none = Rules { host_ports: HostPorts::Listed(Vec::new()), ..strict() };
        filter.replace(&none, NONE).unwrap();
        assert!(listing().contains("th dport @host_ports accept"));
        assert!(elements("host_ports").is_empty());
    });
}
