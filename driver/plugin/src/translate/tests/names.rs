//! What the keys of network, resolver, hosts and time zone become in the specification.

use super::*;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{DnsConfig, HostsConfig, NetworkIsolationSpec};
use proto::link::Mac;
use proto::name::ZoneName;
use proto::path::Absolute;
use proto::task_spec::Network;
use proto::task_spec::network::Private;
use proto::task_spec::resolver::{EtcFile, ImageLink};

fn group() -> NetworkIsolationSpec {
    NetworkIsolationSpec {
        mode: NetworkIsolationMode::Group.into(),
        path: format!("/var/run/netns/{ALLOC}"),
        ..NetworkIsolationSpec::default()
    }
}

#[test]
fn networks_follow_group_and_keys() {
    let host = NetworkIsolationSpec::default();
    let network = |spec: Option<NetworkIsolationSpec>, veth: bool| {
        let mut task = task(&[("network_veth", veth.into())]);
        task.network_isolation_spec = spec;
        try_task(&task).map(|spec| spec.network)
    };
    for none in [None, Some(host)] {
        assert_eq!(network(none.clone(), true), Ok(Network::with_ports(vec![])));
        assert_eq!(network(none, false), Ok(Network::Host));
    }
    let joined = Network::Join(Absolute::parse(&format!("/var/run/netns/{ALLOC}")).unwrap());
    assert_eq!(network(Some(group()), true), Ok(joined.clone()));
    assert_eq!(network(Some(group()), false), Ok(joined));
    let of = |mode: NetworkIsolationMode, path: &str| NetworkIsolationSpec {
        mode: mode.into(),
        path: path.to_owned(),
        ..NetworkIsolationSpec::default()
    };
    for bad in [
        of(NetworkIsolationMode::Group, ""),
        of(NetworkIsolationMode::Task, "/x"),
        of(NetworkIsolationMode::Host, "/x"),
    ] {
        assert!(network(Some(bad), true).is_err());
    }
    assert_eq!(spec(&[("private_network", true.into())]).network, Network::Loopback);
}

#[test]
fn zone_and_addresses_are_the_jobs() {
    let keys: [(&str, Value); 4] = [
        ("network_zone", "back-end.1".into()),
        ("ipv4_address", "10.87.16.20".into()),
        ("ipv6_address", "fd00:0::20".into()),
        ("mac_address", "02:00:00:00:00:0A".into()),
    ];
    let expected = Private {
        ports: Vec::new(),
        zone: ZoneName::new("back-end.1").ok(),
        v4: Some([10, 87, 16, 20].into()),
        v6: Some("fd00::20".parse().unwrap()),
        mac: Some(Mac([2, 0, 0, 0, 0, 10])),
    };
    assert_eq!(spec(&keys).network, Network::Private(expected));
    // As in the older driver, an empty text is none.
    let empty = keys.map(|(key, _)| (key, Value::from("")));
    assert_eq!(spec(&empty).network, Network::with_ports(Vec::new()));
    let mut task = task(&[("network_zone", "web".into())]);
    task.network_isolation_spec = Some(group());
    let text = try_task(&task).unwrap_err();
    assert!(text.contains(r#"network_zone = "web": excludes the group's own network"#), "{text}");
}

/// A file with this content; one of the host has its path as content.
fn file(content: &str, link: ImageLink) -> EtcFile {
    EtcFile::Put { content: content.into(), link, read_only: link == ImageLink::Follow }
}

#[test]
fn resolvers_follow_network_key_and_group() {
    use ImageLink::{Cover, Follow, Keep};
    const HOST: &str = "/etc/resolv.conf";
    const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
    const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";
    assert_eq!(spec(&[("private_network", true.into())]).names.resolver, EtcFile::Keep);
    let veth = ("network_veth", Value::from(false));
    let shared = |more: (&str, Value)| spec(&[veth.clone(), more]).names.resolver;
    assert_eq!(shared(("boot", true.into())), file(HOST, Keep));
    assert_eq!(shared(("resolv_conf", "auto".into())), file(HOST, Keep));
    // Nothing in a command's container makes what a link of the image leads to.
    assert_eq!(shared(("boot", false.into())), file(HOST, Cover));
    for (word, expected) in [
        ("off", EtcFile::Keep),
        ("delete", EtcFile::Delete),
        ("copy-host", file(HOST, Keep)),
        ("replace-static", file("/usr/lib/systemd/resolv.conf", Cover)),
        ("bind-uplink", file(UPLINK, Follow)),
        ("bind-stub", file(STUB, Follow)),
    ] {
        assert_eq!(spec(&[("resolv_conf", word.into())]).names.resolver, expected, "{word}");
    }
    let (mut grouped, own) = (task(&[]), task(&[]));
    grouped.network_isolation_spec = Some(group());
    let resolver = |task: &TaskConfig, config: &PluginConfig, loopback_resolver| {
        let node = Node { loopback_resolver, ..node(config) };
        build(task, &node).unwrap().names.resolver
    };
    let mut config = PluginConfig::default();
    for task in [&grouped, &own] {
        config.dns_servers = Vec::new();
        assert_eq!(resolver(task, &config, false), file(HOST, Keep));
        assert_eq!(resolver(task, &config, true), file(UPLINK, Keep));
        config.dns_servers = vec!["9.9.9.9".to_owned()];
        assert_eq!(resolver(task, &config, true), file("nameserver 9.9.9.9\n", Cover));
        assert_eq!(resolver(task, &config, false), file(HOST, Keep));
    }
    let mut with_dns = task(&[("resolv_conf", "off".into())]);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let dns = |servers: &[&str], searches: &[&str], options: &[&str]| DnsConfig {
        servers: words(servers),
        searches: words(searches),
        options: words(options),
    };
    with_dns.dns = Some(dns(&["1.1.1.1", "fd00:0::1"], &["example.org", "b"], &["ndots:2"]));
    let text = "nameserver 1.1.1.1\nnameserver fd00::1\nsearch example.org b\noptions ndots:2\n";
    assert_eq!(resolver(&with_dns, &config, true), file(text, Cover));
    assert_eq!(resolver(&with_dns, &config, false), file(text, Cover));
    with_dns.dns = Some(DnsConfig::default());
    assert_eq!(resolver(&with_dns, &config, true), EtcFile::Keep);
    for (bad, key) in [
        (dns(&["one"], &[], &[]), "dns.servers"),
        (dns(&[], &["a"], &[]), "dns.servers"),
        (dns(&["1.1.1.1"; 4], &[], &[]), "dns.servers"),
        (dns(&["1.1.1.1"], &["a\nb"], &[]), "dns.searches"),
        (dns(&["1.1.1.1"], &["a"; 33], &[]), "dns.searches"),
        (dns(&["1.1.1.1"], &[], &["a b"]), "dns.options"),
        (dns(&["1.1.1.1"], &[], &[""]), "dns.options"),
    ] {
        with_dns.dns = Some(bad);
        let refused = try_task(&with_dns).unwrap_err();
        assert!(refused.contains(key), "{key}: {refused}");
    }
}

#[test]
fn a_file_that_the_host_lacks_is_named() {
    use std::io::{Error, ErrorKind};
    let config = PluginConfig::default();
    let refused = |word: &str, read: fn(&str) -> std::io::Result<Vec<u8>>| {
        let host = HostFiles { read, ..node(&config).host };
        let task = task(&[("resolv_conf", word.into()), ("timezone", "copy".into())]);
        build(&task, &Node { host, ..node(&config) }).map(|spec| spec.names.resolver)
    };
    for (word, path) in [
        ("copy-host", "/etc/resolv.conf"),
        ("copy-uplink", "/etc/resolv.conf"),
        ("bind-static", "/usr/lib/systemd/resolv.conf"),
        ("replace-stub", "/run/systemd/resolve/stub-resolv.conf"),
    ] {
        let text = refused(word, |_| Err(ErrorKind::NotFound.into())).unwrap_err().to_string();
        for part in
            ["resolv_conf", path, "is not a file on this host", "timezone", "/etc/localtime"]
        {
            assert!(text.contains(part), "{word}: {part}: {text}");
        }
        let text = refused(word, |_| Err(Error::other("is longer"))).unwrap_err().to_string();
        assert!(text.contains(path) && text.contains("is longer"), "{word}: {text}");
    }
}

#[test]
fn a_host_without_servers_leaves_a_private_network_to_the_image() {
    let config = PluginConfig::default();
    let host =
        HostFiles { read: |_| Err(std::io::ErrorKind::NotFound.into()), ..node(&config).host };
    let resolver = |entries: &[(&str, Value)]| {
        build(&task(entries), &Node { host, ..node(&config) }).map(|spec| spec.names.resolver)
    };
    assert_eq!(resolver(&[]).unwrap(), EtcFile::Keep);
    assert!(resolver(&[("resolv_conf", "copy-host".into())]).is_err());
    assert!(resolver(&[("network_veth", false.into())]).is_err());
}

#[test]
fn hosts_are_nomads_and_the_jobs() {
    let mut task = task(&[("extra_hosts", list(&["db:10.0.0.5", "v6:[fd00::5]", "w6:fd00::6"]))]);
    let own = HostsConfig { hostname: "web".to_owned(), address: "172.26.64.2".to_owned() };
    task.network_isolation_spec = Some(NetworkIsolationSpec { hosts_config: Some(own), ..group() });
    let hosts = String::from_utf8(try_task(&task).unwrap().names.hosts).unwrap();
    assert_eq!(hosts, "172.26.64.2 web\n10.0.0.5 db\nfd00::5 v6\nfd00::6 w6\n");
}

#[test]
fn time_zones_are_the_images_unless_asked_for() {
    let zone = |entries: &[(&str, Value)]| {
        let names = spec(entries).names;
        (names.localtime, names.zone.map(|zone| zone.to_path().display().to_string()))
    };
    let timezone = |word: &str| ("timezone", Value::from(word));
    let host = |link| file("/etc/localtime", link);
    let linked = (host(ImageLink::Follow), Some("Asia/Tokyo".to_owned()));
    for (word, expected) in [
        ("off", (EtcFile::Keep, None)),
        ("copy", (host(ImageLink::Replace), None)),
        ("bind", (host(ImageLink::Follow), None)),
        ("symlink", linked.clone()),
        ("delete", (EtcFile::Delete, None)),
        ("auto", linked),
    ] {
        assert_eq!(zone(&[timezone(word)]), expected, "{word}");
    }
    let bound = (host(ImageLink::Follow), None);
    assert_eq!(zone(&[timezone("auto"), ("read_only", true.into())]), bound);
}
