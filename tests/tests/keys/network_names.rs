//! The task's network, and the files by which names are found.

use crate::*;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{DnsConfig, HostsConfig, NetworkIsolationSpec};
use std::sync::Once;

const LINKS: &str = "echo $(ls /sys/class/net); cat /sys/class/net/lo/operstate >/dev/null; \
                     readlink /proc/self/ns/net";

/// The links of a task, and its namespace.
fn network(keys: Value) -> (String, String) {
    let text = says(keys, LINKS);
    let (links, namespace) = text.split_once('\n').unwrap();
    (links.to_owned(), namespace.trim().to_owned())
}

fn hosts_network() -> String {
    stand().rig.run(&["readlink", "/proc/1/ns/net"]).unwrap()
}

#[test]
fn key_network_veth() {
    for keys in [json!({}), json!({ "network_veth": true })] {
        let (links, namespace) = network(keys);
        assert_eq!(links, "host0 lo");
        assert_ne!(namespace, hosts_network());
    }
    let (_, namespace) = network(json!({ "network_veth": false }));
    assert_eq!(namespace, hosts_network());
    let loopback = "echo it | nc -l -p 80 & for try in $(seq 200); do \
                    sleep 0.2 | nc 127.0.0.1 80 2>/dev/null && break; done";
    effects(&[(json!({}), loopback, "it\n")]);
    // Void where Nomad made a network.
    for veth in [true, false] {
        let (seen, name) = says_in_group(json!({ "network_veth": veth }), LINKS, None);
        assert_eq!(seen, format!("lo\n{name}\n"));
    }
    strict_refusals(&[(
        json!({ "network_veth": false }),
        &["host network", "\"host\" added to [network] allow"],
    )]);
}

/// A network as Nomad makes one for an allocation's group.
pub(crate) fn group(id: &str, hosts: Option<HostsConfig>) -> NetworkIsolationSpec {
    NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: format!("/run/netns/{id}"),
        hosts_config: hosts,
        ..NetworkIsolationSpec::default()
    }
}

/// What a script writes in a group's network; and the network's name.
fn says_in_group(more: Value, script: &str, hosts: Option<HostsConfig>) -> (String, String) {
    let rig = &stand().rig;
    let allocation = allocation("true");
    let id = allocation.id.clone();
    rig.sh(&format!("ip netns add {id}; ip -n {id} link set lo up")).unwrap();
    let name = rig.sh(&format!("ip netns exec {id} readlink /proc/self/ns/net")).unwrap();
    let change = |task: &mut TaskConfig| task.network_isolation_spec = Some(group(&id, hosts));
    let task = stand().start_in(allocation, 1, &sh(more.clone(), script), change).unwrap();
    let task = task.unwrap_or_else(|refused| panic!("{more}: {}", refused.text));
    let seen = good(&more.to_string(), task.finish().unwrap());
    rig.run(&["ip", "netns", "delete", &id]).unwrap();
    (seen, name)
}

#[test]
fn key_private_network() {
    for (private, expected) in [(true, "lo"), (false, "host0 lo")] {
        let (links, namespace) = network(json!({ "private_network": private }));
        assert_eq!(links, expected, "{private}");
        assert_ne!(namespace, hosts_network(), "{private}");
    }
    refusals(&[(
        json!({ "private_network": true, "network_veth": false }),
        &["private_network = true", "excludes network_veth = false"],
    )]);
    let keys = sh(json!({ "private_network": true }), "true");
    let refused = stand().refusal_with(&keys, |task| {
        task.network_isolation_spec = Some(group(&task.alloc_id, None));
    });
    let text = refused.unwrap().text;
    assert!(text.contains("excludes the group's own network"), "{text}");
}

#[test]
fn key_ports() {
    let with = |more: Value| with(json!({ "ports": ["http"] }), more);
    refusals(&[
        (with(json!({})), &["ports = \"http\"", "the group's network block has no ports"]),
        (with(json!({ "network_veth": false })), &["ports", "excludes network_veth = false"]),
        (with(json!({ "private_network": true })), &["ports", "excludes private_network = true"]),
    ]);
}

#[test]
fn key_port_map() {
    let map = |port: u32| json!({ "port_map": [{ "http": port }] });
    refusals(&[
        (map(80), &["port_map = \"http\"", "the group's network block has no ports"]),
        (map(0), &["port_map.http = 0", "must be 1 to 65535"]),
        (with(map(80), json!({ "ports": ["http"] })), &["port_map", "excludes ports"]),
    ]);
}

/// The host's resolver files, each with a content of its own.
fn resolver_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let script = "set -e; mkdir -p /run/systemd/resolve; echo '# host' > /etc/resolv.conf; \
                      echo '# uplink' > /run/systemd/resolve/resolv.conf; \
                      echo '# stub' > /run/systemd/resolve/stub-resolv.conf; \
                      s=/usr/lib/systemd/resolv.conf; [ -e $s ] || echo '# static' > $s";
        stand().rig.sh(script).unwrap();
    });
}

/// Ubuntu, Fedora and Arch ship a link to a file that only systemd-resolved makes.
#[test]
fn a_dangling_resolv_conf_link_gives_way_to_a_working_file() {
    resolver_files();
    let script = "cat /etc/resolv.conf 2>/dev/null || echo none";
    let links = ["../run/systemd/resolve/stub-resolv.conf", "/run/NetworkManager/resolv.conf"];
    for (number, link) in links.into_iter().enumerate() {
        let name = format!("dangling-{number}");
        let path = copy(&name, &format!("ln -sf {link} etc/resolv.conf"));
        let image = |more: Value| with(json!({ "image": name }), more);
        for root in [
            json!({}),
            json!({ "ephemeral_mode": "tmpfs" }),
            json!({ "process_two": true }),
            json!({ "ephemeral": false, "read_only": true }),
            json!({ "ephemeral": false, "volatile": "yes" }),
            json!({ "ephemeral": false, "volatile": "state" }),
            json!({ "ephemeral": false, "volatile": "overlay" }),
            json!({ "ephemeral": false }),
        ] {
            let (seen, _) = says_in_group(image(root.clone()), script, None);
            assert_eq!(seen, "# host\n", "{link} {root}");
            let shared = with(image(root.clone()), json!({ "network_veth": false }));
            assert_eq!(says(shared, script), "# host\n", "{link} {root}");
        }
        // Who asks for a copy keeps the link.
        let (seen, _) = says_in_group(image(json!({ "resolv_conf": "copy-host" })), script, None);
        assert_eq!(seen, "none\n", "{link}");
        assert_eq!(
            stand().rig.run(&["readlink", &format!("{path}/etc/resolv.conf")]).unwrap(),
            link
        );
    }
}

/// Its systemd-resolved makes the file that the link leads to.
#[test]
fn a_booted_image_keeps_its_resolv_conf_link() {
    resolver_files();
    let link = "../run/systemd/resolve/stub-resolv.conf";
    let script = format!("cp -a init/. booted; ln -sf {link} booted/etc/resolv.conf");
    stand().rig.sh(&format!("cd {STORE}; mkdir -p booted; {script}")).unwrap();
    let allocation = allocation("echo 'readlink /etc/resolv.conf' > $1/t/local/script");
    let id = allocation.id.clone();
    stand().rig.sh(&format!("ip netns add {id}")).unwrap();
    let change = |task: &mut TaskConfig| task.network_isolation_spec = Some(group(&id, None));
    let keys = json!({ "image": "booted", "ephemeral": true, "console": "pipe" });
    let task = stand().start_in(allocation, 1, &keys, change).unwrap().unwrap();
    assert_eq!(task.finish().unwrap().stdout, format!("pid 1 as 0 with \n{link}\n"));
    stand().rig.run(&["ip", "netns", "delete", &id]).unwrap();
}

/// Every word, over an image with a file of its own.
#[test]
fn key_resolv_conf() {
    copy("resolv", "echo '# image' > etc/resolv.conf");
    resolver_files();
    let fixed = stand().rig.sh("cat /usr/lib/systemd/resolv.conf").unwrap();
    // The content, then whether it can be written to.
    let script = "cat /etc/resolv.conf 2>/dev/null || echo none; \
                  (echo x >> /etc/resolv.conf) 2>/dev/null && echo + || echo -";
    let keys = |word: Value| json!({ "image": "resolv", "resolv_conf": word });
    for (file, content) in
        [("host", "# host"), ("uplink", "# uplink"), ("stub", "# stub"), ("static", fixed.as_str())]
    {
        for (how, writable) in [("copy", "+"), ("replace", "+"), ("bind", "-")] {
            let word = json!(format!("{how}-{file}"));
            let seen = says(keys(word.clone()), script);
            assert_eq!(seen, format!("{content}\n{writable}\n"), "{word}");
        }
    }
    assert_eq!(says(keys(json!("off")), script), "# image\n+\n");
    for word in [json!("auto"), json!(""), Value::Null] {
        assert_eq!(says(keys(word.clone()), script), "# host\n+\n", "{word}");
        // Nobody could be asked.
        let alone = with(keys(word.clone()), json!({ "private_network": true }));
        assert_eq!(says(alone, script), "# image\n+\n", "{word}");
    }
    assert_eq!(says(keys(json!("delete")), script), "none\n+\n");
    // With the host's network as well.
    let shared = with(keys(json!("auto")), json!({ "network_veth": false }));
    assert_eq!(says(shared, script), "# host\n+\n");
    let grouped = |keys| says_in_group(keys, script, None).0;
    assert_eq!(grouped(keys(Value::Null)), "# host\n+\n");
    assert_eq!(grouped(keys(json!("off"))), "# image\n+\n");
    // The group's own block wins over all.
    let dns = |servers: &[&str]| DnsConfig {
        servers: servers.iter().map(|server| (*server).to_owned()).collect(),
        searches: vec!["example".to_owned()],
        options: vec!["ndots:2".to_owned()],
    };
    let own = "nameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example\noptions ndots:2\n+\n";
    for word in ["off", "bind-host"] {
        let seen = says_of(keys(json!(word)), script, |task| {
            task.dns = Some(dns(&["192.0.2.1", "2001:db8::1"]));
        });
        assert_eq!(seen, own, "{word}");
    }
    for (servers, words) in [(&["one"][..], "must be IP addresses"), (&[], "is empty")] {
        let text =
            stand().refusal_with(&sh(json!({}), "true"), |task| task.dns = Some(dns(servers)));
        let text = text.unwrap().text;
        assert!(text.contains("dns.servers") && text.contains(words), "{text}");
    }
    refusals(&[(keys(json!("host")), &["resolv_conf = \"host\"", "copy-host"])]);
}

#[test]
fn key_extra_hosts() {
    let image = "127.0.0.1 localhost\n::1 localhost\n";
    let keys =
        json!({ "extra_hosts": ["db.example:192.0.2.7", "six:2001:db8::7", "b:[2001:db8::8]"] });
    let lines = "192.0.2.7 db.example\n2001:db8::7 six\n2001:db8::8 b\n";
    effects(&[
        (keys.clone(), "cat /etc/hosts", &format!("{image}{lines}")),
        (json!({}), "cat /etc/hosts", image),
        (
            with(keys.clone(), json!({ "read_only": true })),
            "cat /etc/hosts",
            &format!("{image}{lines}"),
        ),
    ]);
    // Nomad's own line for the group's network comes first.
    let own = HostsConfig { hostname: "task-1".to_owned(), address: "192.0.2.9".to_owned() };
    let (seen, _) = says_in_group(keys, "cat /etc/hosts", Some(own));
    assert_eq!(seen, format!("{image}192.0.2.9 task-1\n{lines}"));
    let hosts = |text: &str| json!({ "extra_hosts": [text] });
    refusals(&[
        (hosts("db"), &["extra_hosts = \"db\"", "must be name:address"]),
        (hosts("db:here"), &["extra_hosts", "must be an IP address"]),
        (hosts("a b:192.0.2.1"), &["extra_hosts"]),
    ]);
}

/// Whatever the root is, and whether the image has the file or not.
#[test]
fn key_network_zone() {
    let bare = copy("no-hosts", "rm -f etc/hosts");
    let script = "cat /etc/hosts; echo; ip -o -4 address show dev host0 | grep -o 'inet [^ ]*'; \
                  (echo x >>/etc/hosts) 2>/dev/null && echo writable; true";
    for root in [
        json!({}),
        json!({ "image": "no-hosts" }),
        json!({ "ephemeral_mode": "tmpfs", "process_two": true }),
        json!({ "ephemeral": false, "read_only": true, "image": "no-hosts" }),
        json!({ "ephemeral": false, "volatile": "yes" }),
        json!({ "ephemeral": false, "volatile": "state" }),
        json!({ "ephemeral": false, "volatile": "overlay", "image": "no-hosts" }),
        json!({ "ephemeral": false, "image": "no-hosts" }),
    ] {
        let keys =
            with(json!({ "network_zone": "a.zone_1", "extra_hosts": ["db:192.0.2.7"] }), root);
        let seen = says(keys.clone(), script);
        let (file, address) = seen.split_once("\n\n").unwrap();
        let (own, names) = file.split_once("keeps them up to date.\n").unwrap();
        assert!(
            own.starts_with("127.0.0.1 localhost\n::1 localhost\n192.0.2.7 db\n# "),
            "{keys}: {seen}"
        );
        let address = address.trim().trim_start_matches("inet ");
        assert!(names.starts_with(&format!("{address} t t-")), "{keys}: {seen}");
        assert_eq!(
            names.lines().filter(|line| line.contains(" t t-")).count(),
            2,
            "{keys}: {seen}"
        );
    }
    assert!(stand().rig.exists(&bare));
    // It lies in the host's memory.
    copy("long-hosts", "for n in $(seq 9000); do echo 192.0.2.1 host-$n; done >etc/hosts");
    let long = json!({ "image": "long-hosts", "network_zone": "z" });
    let text = stand().refusal(&sh(long, "true")).unwrap().text;
    assert!(text.contains("/etc/hosts") && text.contains("at most 131072"), "{text}");
    let zone = |more: Value| with(json!({ "network_zone": "z" }), more);
    refusals(&[
        (json!({ "network_zone": "a/b" }), &["network_zone = \"a/b\"", "letters, digits and ._-"]),
        (
            zone(json!({ "network_veth": false })),
            &["network_zone", "excludes network_veth = false"],
        ),
        (zone(json!({ "private_network": true })), &["network_zone", "loopback alone"]),
    ]);
    let refused = stand().refusal_with(&sh(zone(json!({})), "true"), |task| {
        task.network_isolation_spec = Some(group(&task.alloc_id, None));
    });
    let text = refused.unwrap().text;
    assert!(text.contains("network_zone = \"z\": excludes the group's own network"), "{text}");
}

/// An address of this family in the pool, by the route that keeps it: a later one each time.
fn of_pool(family: &str) -> std::net::IpAddr {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(500);
    says(json!({}), "true");
    let words = ["ip", family, "route", "show", "type", "unreachable"];
    let routes = stand().rig.run(&words).unwrap();
    let line = routes.lines().find(|line| line.contains("metric 4278198272")).unwrap();
    let pool = line.split_whitespace().nth(1).unwrap().split('/').next().unwrap();
    let place = NEXT.fetch_add(1, Ordering::Relaxed);
    match pool.parse().unwrap() {
        std::net::IpAddr::V4(v4) => std::net::Ipv4Addr::from_bits(v4.to_bits() + place).into(),
        std::net::IpAddr::V6(v6) => {
            std::net::Ipv6Addr::from_bits(v6.to_bits() + u128::from(place)).into()
        }
    }
}

#[test]
fn key_ipv4_address() {
    let address = of_pool("-4").to_string();
    let script = "ip -o -4 address show dev host0 | grep -o 'inet [^ ]*'";
    let keys = json!({ "ipv4_address": address });
    assert_eq!(says(keys.clone(), script), format!("inet {address}\n"));
    refusals(&[
        (json!({ "ipv4_address": "10.0.0" }), &["ipv4_address = \"10.0.0\"", "must be an address"]),
        (json!({ "ipv4_address": "192.0.2.1" }), &["address 192.0.2.1", "the pool of this host's"]),
        (with(keys, json!({ "network_veth": false })), &["ipv4_address", "excludes network_veth"]),
    ]);
}

#[test]
fn key_ipv6_address() {
    let address = of_pool("-6").to_string();
    let script = "ip -o -6 address show dev host0 scope global | grep -o 'inet6 [^/]*'";
    let keys = json!({ "ipv6_address": address });
    assert_eq!(says(keys.clone(), script), format!("inet6 {address}\n"));
    refusals(&[
        (json!({ "ipv6_address": "192.0.2.1" }), &["ipv6_address", "must be an address"]),
        (
            json!({ "ipv6_address": "2001:db8::1" }),
            &["address 2001:db8::1", "the pool of this host's"],
        ),
        (with(keys, json!({ "private_network": true })), &["ipv6_address", "loopback alone"]),
    ]);
}

#[test]
fn key_mac_address() {
    let keys = json!({ "mac_address": "00:1B:21:00:00:09" });
    effects(&[(keys.clone(), "cat /sys/class/net/host0/address", "00:1b:21:00:00:09\n")]);
    refusals(&[
        (json!({ "mac_address": "00:1b:21" }), &["mac_address = \"00:1b:21\"", "six pairs"]),
        (json!({ "mac_address": "ff:ff:ff:ff:ff:ff" }), &["mac_address", "of one interface"]),
        (with(keys, json!({ "network_veth": false })), &["mac_address", "excludes network_veth"]),
    ]);
}
