//! Values of the plugin block, taken and refused.

use super::*;
use crate::config::doc_table::Row;
use crate::msgpack::{Value, tests::encode};

fn decode(entries: &[(&str, Value)]) -> Result<PluginConfig, String> {
    let map = entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut bytes = Vec::new();
    encode(&Value::Map(map), &mut bytes);
    PluginConfig::decode(&bytes)
}

fn list(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| Value::from(*text)).collect())
}

fn block(key: &str, value: Value) -> Value {
    Value::Map(vec![(key.to_owned(), value)])
}

#[test]
fn no_bytes_and_no_values_mean_the_defaults() {
    let config = PluginConfig::decode(b"").unwrap();
    assert!(config.enabled && config.volumes);
    assert_eq!(config.helper_socket, "/run/nomad-nspawn/helper.sock");
    assert_eq!(config.helper_timeout, Period(Duration::from_secs(30)));
    assert_eq!(config.log_driver(), LogDriver::Nomad);
    assert_eq!(PluginConfig::decode(b"\x80").unwrap(), config);
    assert_eq!(PluginConfig::decode(b"\x81\xa7enabled\xc0").unwrap(), config);
    let empty = ["helper_timeout", "recover_timeout", "user_namespaces"];
    assert_eq!(decode(&empty.map(|key| (key, Value::from("")))).unwrap(), config);
}

#[test]
fn values_are_taken_and_checked() {
    let config = PluginConfig::decode(b"\x81\xa7enabled\xc2").unwrap();
    assert!(!config.enabled);
    let refused = PluginConfig::decode(b"\x82\xa7enabled\x01\xadhelper_socket\xa1x");
    let refused = refused.unwrap_err();
    assert!(refused.contains("enabled") && refused.contains("helper_socket"), "{refused}");
    assert!(PluginConfig::decode(b"\x91\xc0").is_err());
    assert!(PluginConfig::decode(b"\xc1").is_err());
}

#[test]
fn each_rule_names_its_key() {
    for (key, value, part) in [
        ("helper_timeout", Value::from("0"), "must be 1s to 10m"),
        ("disable_log_collection", Value::from(true), "nobody to read"),
        ("recover_timeout", Value::from("1h"), "must be 1s to 10m"),
        ("dns_servers", list(&["one"]), "must be IP addresses"),
        ("dns_servers", list(&["1.1.1.1", "::1", "9.9.9.9", "8.8.8.8"]), "three at most"),
        ("extra_labels", list(&["jobname"]), "fits no label"),
        ("logging", block("driver", Value::from("syslog")), "nomad, journald, both, none"),
        ("user_namespaces", Value::from("no"), "must be one of"),
        ("volumes", block("enabled", Value::from(true)), "must be true or false"),
    ] {
        let refused = decode(&[(key, value)]).unwrap_err();
        assert!(refused.contains(key) && refused.contains(part), "{key}: {refused}");
    }
}

#[test]
fn networks_have_a_default_and_pools_are_the_policys() {
    let config = decode(&[]).unwrap();
    assert_eq!((config.default_setup(), config.address_timeout_s()), (NetworkSetup::Helper, 30));
    let network = |key: &str, value: &str| decode(&[("network", block(key, value.into()))]);
    let config = network("default_setup", "auto").unwrap();
    assert_eq!(config.default_setup(), NetworkSetup::Auto);
    assert_eq!(network("address_timeout", "1500ms").unwrap().address_timeout_s(), 2);
    for (key, value, words) in [
        ("default_setup", "host", "must be one of helper, container, auto"),
        ("address_timeout", "601s", "must be 0s to 10m"),
        ("pool_ipv4", "10.0.0.0/20", "pool = \"10.0.0.0/20\" into [network]"),
        ("pool_ipv6", "fd00::/64", "pool_ipv6 = \"fd00::/64\" into [network]"),
    ] {
        let refused = network(key, value).unwrap_err();
        assert!(refused.contains(key) && refused.contains(words), "{refused}");
    }
}

#[test]
fn metrics_are_served_on_loopback_or_not_at_all() {
    assert_eq!(decode(&[]).unwrap().metrics_address(), None);
    let config = decode(&[("metrics", Value::Map(Vec::new()))]).unwrap();
    assert_eq!(config.metrics_address().unwrap().to_string(), "127.0.0.1:9631");
    let at = |address: &str| decode(&[("metrics", block("address", address.into()))]);
    for address in ["127.0.0.2:1024", "[::1]:65535"] {
        assert_eq!(at(address).unwrap().metrics_address(), Some(address.parse().unwrap()));
    }
    for address in ["0.0.0.0:9631", "[::]:9631", "10.0.0.1:9631", "127.0.0.1:80", "9631", "x"] {
        let refused = at(address).unwrap_err();
        assert!(refused.contains("metrics.address") && refused.contains(address), "{refused}");
    }
}

#[test]
fn later_keys_are_refused() {
    let empty = || Value::Map(Vec::new());
    let cases = [
        ("image_pull_timeout", Value::from("1m")),
        ("pull_activity_timeout", "1m".into()),
        ("auth", block("config", "/etc/auth.json".into())),
        ("registry", block("example.org", empty())),
        ("gc", block("dangling", empty())),
    ];
    for (key, value) in &cases {
        let refused = decode(&[(*key, value.clone())]).unwrap_err();
        let said = refused.starts_with(&format!("plugin configuration: {key}"));
        assert!(said && refused.contains("cannot do it yet: "), "{refused}");
    }
    assert_eq!(Row::unsupported::<PluginConfig>(), cases.map(|(key, _)| key));
    assert!(decode(&[("image_pull_timeout", "30m".into()), ("registry", empty())]).is_ok());
}

#[test]
fn blocks_are_read() {
    let config = decode(&[
        ("logging", block("driver", Value::from("journald"))),
        ("disable_log_collection", Value::from(true)),
        ("extra_labels", list(&["job_*", "node_id"])),
    ])
    .unwrap();
    assert_eq!(config.log_driver(), LogDriver::Journald);
}

#[test]
fn patterns_fit_the_whole_text() {
    for (pattern, text, fits) in [
        ("job_name", "job_name", true),
        ("job_*", "job_name", true),
        ("*", "", true),
        ("*_n*e", "job_name", true),
        ("*b*", "job_name", true),
        ("job", "job_name", false),
        ("*x*", "job_name", false),
        ("é*", "éa", true),
    ] {
        assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
    }
}
