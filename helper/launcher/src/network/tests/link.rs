//! The link: addresses, routes and settings of both ends.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use proto::link::{Link, Mac, Zone};
use proto::name::ZoneName;

use super::namespace::{Namespace, link, machine, numbered, port};

/// Lines of `ip` in the order of the text, because that of the kernel is no matter.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.sort();
    lines
}

#[test]
fn a_task_and_its_host_reach_each_other_by_both_families() {
    let (host, _lan) = Namespace::host();
    host.set("ipv4/ping_group_range", "0 2147483647");
    let link = link(Vec::new());
    let task = host.start(&link).unwrap();
    let v6 = link.v6.unwrap();
    assert!(task.ping(link.v4.gateway), "IPv4 to the host");
    assert!(task.ping(v6.gateway), "IPv6 to the host");
    assert!(host.ping(link.v4.task), "IPv4 to the task");
    assert!(host.ping(v6.task), "IPv6 to the task");
    assert!(task.ping([198, 51, 100, 1]), "the host's other address");
    assert!(task.ping("::1".parse::<std::net::Ipv6Addr>().unwrap()), "the task's own loopback");
}

/// By the pool's route: no packet goes to the uplink, and nobody waits for minutes.
#[test]
fn an_address_that_no_task_has_fails_soon() {
    let (host, _lan) = Namespace::host();
    let task = host.start(&link(Vec::new())).unwrap();
    let refused = |from: &Namespace, at: &str, limit: u64| {
        let to = at.parse().unwrap();
        let error = from.run(|| TcpStream::connect_timeout(&to, Duration::from_millis(limit)));
        let kind = error.unwrap_err().kind();
        // As the kernel words it for IPv6 that it forwards.
        let forwarded = kind == ErrorKind::NetworkUnreachable && at.starts_with('[');
        assert!(kind == ErrorKind::HostUnreachable || forwarded, "{at}: {kind}");
    };
    for at in ["10.64.0.77:80", "10.64.15.254:80", "[fd64::77]:80"] {
        refused(&host, at, 500);
    }
    // In a task after a second: the first answer finds connect(2) still at work, and the kernel
    // only takes a note of it. It does not answer often.
    for at in ["10.64.0.77:80", "[fd64::77]:80"] {
        refused(&task, at, 5000);
    }
}

/// CVE-2020-10749: a task that calls itself a router gets the host's traffic.
#[test]
fn a_tasks_router_advertisement_changes_nothing_on_the_host() {
    let (host, _lan) = Namespace::host();
    // As on a router that has its own routes from advertisements: new links get it.
    host.set("ipv6/conf/default/accept_ra", "2");
    let link = link(Vec::new());
    let task = host.start(&link).unwrap();
    let default = || host.ip("-6 route show default");
    task.advertise();
    assert!(task.ping(link.v6.unwrap().gateway), "which arrives after it");
    assert_eq!(default(), "");
    // It is the setting that it fails on, and nothing else.
    host.set(&format!("ipv6/conf/{}/accept_ra", link.name), "2");
    task.advertise();
    assert!(task.ping(link.v6.unwrap().gateway));
    assert!(default().contains(&link.name.to_string()), "{}", default());
}

#[test]
fn both_ends_are_as_documented() {
    let (host, _lan) = Namespace::host();
    let link = link(vec![port("198.51.100.1", 20001)]);
    let task = host.start(&link).unwrap();
    let name = link.name.to_string();
    let index = |of: &Namespace, name: &str| -> u32 {
        of.ip(&format!("-o link show dev {name}")).split(':').next().unwrap().parse().unwrap()
    };
    let (nv, host0) = (index(&host, &name), index(&task, "host0"));

    let shown = host.ip(&format!("-d link show dev {name}"));
    for part in ["mtu 1400", "link/ether 02:01:0a:40:00:15", "veth", "state UP", "group default"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(shown.contains(&format!("altname {}\n", machine(&link))), "{shown}");
    let shown = task.ip("-d link show dev host0");
    for part in ["mtu 1400", "link/ether 02:00:0a:40:00:15", "state UP"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(
        sorted(&host.ip(&format!("-o address show dev {name}"))),
        sorted(&format!(
            "{nv}: {name} inet 10.64.0.1 peer 10.64.0.21/32 scope global {name}\\ valid_lft \
             forever preferred_lft forever\n\
             {nv}: {name} inet6 fd64::1/128 scope global nodad \\ valid_lft forever preferred_lft \
             forever\n\
             {nv}: {name} inet6 fe80::1/64 scope link nodad \\ valid_lft forever preferred_lft \
             forever"
        ))
    );
    let addresses = task.ip("-o address show dev host0 scope global");
    assert_eq!(
        sorted(&addresses),
        sorted(&format!(
            "{host0}: host0 inet 10.64.0.21 peer 10.64.0.1/32 scope global host0\\ valid_lft \
             forever preferred_lft forever\n\
             {host0}: host0 inet6 fd64::15/128 scope global nodad \\ valid_lft forever \
             preferred_lft forever"
        ))
    );
    assert_eq!(
        sorted(&host.ip("route show")),
        sorted(&format!(
            "default via 198.51.100.2 dev up0\n\
             10.64.0.21 dev {name} proto kernel scope link src 10.64.0.1\n\
             unreachable 10.64.0.0/20 proto kernel metric 4278198272\n\
             198.51.100.0/24 dev up0 proto kernel scope link src 198.51.100.1"
        ))
    );
    let routes = host.ip("-6 route show table all");
    for line in [
        format!("fd64::15 dev {name} proto kernel metric 1024 pref medium"),
        "unreachable fd64::/64 dev lo proto kernel metric 4278198272 pref medium".to_owned(),
        format!("local ::1 dev {name} table local proto kernel metric {} pref medium", 1000 + nv),
    ] {
        assert!(sorted(&routes).contains(&line), "{line}\n{routes}");
    }
    assert!(host.ip("-6 route get ::1").contains("dev lo"), "the host's own [::1] stays its own");
    assert_eq!(
        sorted(&task.ip("route show")),
        sorted(
            "default via 10.64.0.1 dev host0 proto kernel\n\
             10.64.0.1 dev host0 proto kernel scope link src 10.64.0.21"
        )
    );
    assert!(task.ip("-6 route show").contains("default via fe80::1 dev host0 proto kernel"));

    let settings = |of: &Namespace, rows: &[(&str, &str)]| {
        for (key, value) in rows {
            assert_eq!(of.get(&key.replace("NAME", &name)), *value, "{key}");
        }
    };
    settings(
        &host,
        &[
            ("ipv4/conf/NAME/rp_filter", "1"),
            ("ipv4/conf/NAME/route_localnet", "1"),
            ("ipv4/conf/NAME/forwarding", "1"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/NAME/accept_ra", "0"),
            ("ipv6/conf/NAME/addr_gen_mode", "1"),
            ("ipv6/conf/NAME/accept_dad", "0"),
            ("ipv6/conf/all/forwarding", "1"),
        ],
    );
    settings(
        &task,
        &[
            ("ipv6/conf/host0/accept_ra", "0"),
            ("ipv6/conf/host0/accept_dad", "0"),
            ("ipv4/ip_unprivileged_port_start", "0"),
            ("ipv4/ping_group_range", "0\t2147483647"),
        ],
    );
}

#[test]
fn loopback_is_not_routed_to_a_task_without_ports() {
    let (host, _lan) = Namespace::host();
    let link = link(Vec::new());
    let _task = host.start(&link).unwrap();
    assert_eq!(host.get(&format!("ipv4/conf/{}/route_localnet", link.name)), "0");
}

/// Each has a route to `[::1]` of its own, and all share the pools' routes.
#[test]
fn several_tasks_have_links_side_by_side() {
    let (host, _lan) = Namespace::host();
    let links = [21, 22, 23].map(|number| numbered(number, vec![port("198.51.100.1", 20001)]));
    let tasks: Vec<_> = links.iter().map(|link| host.start(link).unwrap()).collect();
    for (task, link) in tasks.iter().zip(&links) {
        assert!(task.ping(link.v4.gateway) && task.ping(link.v6.unwrap().gateway));
    }
    let unreachable = |family| host.ip(family).matches("unreachable").count();
    assert_eq!((unreachable("-4 route show"), unreachable("-6 route show")), (1, 1));
}

/// A start that was killed has left a link with its name, whose namespace still lives.
#[test]
fn a_link_that_is_left_over_is_replaced() {
    let (host, _lan) = Namespace::host();
    host.set("ipv4/ping_group_range", "0 2147483647");
    let link = link(Vec::new());
    let first = host.start(&link).unwrap();
    let second = host.start(&link).unwrap();
    assert!(second.ping(link.v4.gateway) && host.ping(link.v6.unwrap().task));
    assert!(!first.ip("link show").contains("host0"), "the first one has lost its link");
    // And one that is just going away with its namespace.
    drop(second);
    let third = host.start(&link).unwrap();
    assert!(third.ping(link.v4.gateway) && host.ping(link.v4.task));
}

/// A second name that another link has is not worth a failure.
#[test]
fn a_second_name_that_is_taken_is_left_out() {
    let (host, _lan) = Namespace::host();
    let link = link(Vec::new());
    host.ip(&format!("link property add dev up0 altname {}", machine(&link)));
    let task = host.start(&link).unwrap();
    assert!(task.ping(link.v4.gateway) && task.ping(link.v6.unwrap().gateway));
    assert!(!host.ip(&format!("link show dev {}", link.name)).contains("altname"));
}

#[test]
fn forwarding_keeps_routers_advertisements_where_they_were_heard() {
    let (host, _lan) = Namespace::host();
    host.ip("link add deaf0 type veth peer name deaf1");
    host.set("ipv6/conf/deaf0/accept_ra", "0");
    let _task = host.start(&link(Vec::new())).unwrap();
    assert_eq!(host.get("ipv6/conf/up0/accept_ra"), "2");
    assert_eq!(host.get("ipv6/conf/deaf0/accept_ra"), "0");
    assert_eq!(host.get("ipv6/conf/default/accept_ra"), "1");
    assert_eq!(host.get("ipv6/conf/all/forwarding"), "1");
    // Once it is on, nothing of others is touched.
    host.set("ipv6/conf/up0/accept_ra", "1");
    let _other = host.start(&numbered(22, Vec::new())).unwrap();
    assert_eq!(host.get("ipv6/conf/up0/accept_ra"), "1");
}

#[test]
fn forwarding_is_left_off_where_the_policy_checks_it() {
    let (host, _lan) = Namespace::host();
    let mut link = link(Vec::new());
    let refused = |object: &str| {
        let problem = format!("{:?}", host.start_with(&link, false).map(drop).unwrap_err());
        assert!(problem.contains(object) && problem.contains("forwarding = "), "{problem}");
    };
    host.set("ipv4/ip_forward", "0");
    refused("/proc/sys/net/ipv4/conf/all/forwarding");
    assert_eq!(host.get("ipv4/ip_forward"), "0");
    host.set("ipv4/ip_forward", "1");
    refused("/proc/sys/net/ipv6/conf/all/forwarding");
    assert!(!host.ip("link show").contains("nv-"), "nothing was made");
    link.v6 = None;
    host.start_with(&link, false).unwrap();
}

#[test]
fn a_task_without_ipv6_has_nothing_of_it() {
    let (host, _lan) = Namespace::host();
    let mut link = link(vec![port("198.51.100.1", 20001)]);
    link.v6 = None;
    let task = host.start(&link).unwrap();
    assert!(task.ping(link.v4.gateway));
    assert_eq!(task.ip("-6 -o address show dev host0"), "");
    assert_eq!(host.ip(&format!("-6 -o address show dev {}", link.name)), "");
    assert!(!host.ip("-6 route show table all").contains("nv-"));
    assert_eq!(host.get("ipv6/conf/all/forwarding"), "0");
}

#[test]
fn zone_and_mac_address_are_those_of_the_plan() {
    let (host, _lan) = Namespace::host();
    host.set("ipv4/ping_group_range", "0 2147483647");
    let zone = ZoneName::new("web").ok().map(|name| Zone { name, group: 0x6e76_0001 });
    let link = Link { zone, mac: Some(Mac([0, 0x1b, 0x21, 0, 0, 7])), ..link(Vec::new()) };
    let task = host.start(&link).unwrap();
    let shown = host.ip(&format!("-d link show dev {}", link.name));
    assert!(shown.contains("group 1853227009"), "{shown}");
    assert!(shown.contains("link/ether 02:01:0a:40:00:15"), "{shown}");
    let shown = task.ip("-d link show dev host0");
    assert!(
        shown.contains("group default") && shown.contains("link/ether 00:1b:21:00:00:07"),
        "{shown}"
    );
    assert!(host.ping(link.v4.task) && host.ping(link.v6.unwrap().task));
}

#[test]
fn a_host_without_a_default_route_gives_the_usual_mtu() {
    let (host, _lan) = Namespace::host();
    host.ip("route del default");
    let link = link(Vec::new());
    let task = host.start(&link).unwrap();
    assert!(task.ip("link show dev host0").contains("mtu 1500"));
    // That of IPv6 counts where IPv4 has none.
    host.ip("-6 route add default via 2001:db8:1::2 dev up0");
    let other = host.start(&numbered(22, Vec::new())).unwrap();
    assert!(other.ip("link show dev host0").contains("mtu 1400"));
}

/// Were it not waited for, one of some fifteen would lose its first packet for a second.
#[test]
fn the_first_packet_is_answered() {
    let (host, _lan) = Namespace::host();
    host.set("ipv4/ping_group_range", "0 2147483647");
    for number in 30..60 {
        let link = numbered(number, Vec::new());
        let task = host.start(&link).unwrap();
        let begun = Instant::now();
        assert!(task.ping(link.v4.gateway), "{number}");
        assert!(task.ping(link.v6.unwrap().gateway), "{number}");
        assert!(begun.elapsed().as_millis() < 500, "{number}: {:?}", begun.elapsed());
        // The other way as the first one, too.
        let other = numbered(number + 30, Vec::new());
        let _task = host.start(&other).unwrap();
        let begun = Instant::now();
        assert!(host.ping(other.v6.unwrap().task) && host.ping(other.v4.task), "{number}");
        assert!(begun.elapsed().as_millis() < 500, "{number}: {:?}", begun.elapsed());
    }
}

/// Bound far above what it takes, because other tests run meanwhile; prints the median.
#[test]
fn a_network_takes_a_few_milliseconds() {
    let (host, _lan) = Namespace::host();
    let mut times: Vec<u128> = (0..20)
        .map(|number| {
            let link = numbered(30 + number, vec![port("198.51.100.1", 20001 + u16::from(number))]);
            let begun = Instant::now();
            host.start(&link).unwrap();
            begun.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    println!("network_namespace median_us={} slowest_us={}", times[10], times[19]);
    assert!(times[10] < 100_000, "{times:?}");
}
