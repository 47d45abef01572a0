//! Rules as real firewalls make them, recorded on Debian 12 (nft 1.0.6) and 13 (nft 1.1.3) beside a
//! running task, cut to what the host asks for a packet that it forwards; before the line of
//! docs/NETWORK.md and after.

use super::blocker::find;
use super::ruleset::{Ruleset, Rulesets};
use super::save;
use crate::routes::Prefix;
use serde_json::Value;

/// What is recorded under a name.
macro_rules! recorded {
    ($name:literal) => {
        ($name, include_str!(concat!("recorded/", $name)))
    };
}

/// The pools of the helper's own table.
fn pools(ruleset: &Ruleset) -> Vec<Prefix> {
    let set = |name| ruleset.set("inet", "nomad_nspawn", name)[0]["prefix"].clone();
    let read = |prefix: Value| {
        let address = prefix["addr"].as_str().unwrap().parse().unwrap();
        (address, u8::try_from(prefix["len"].as_u64().unwrap()).unwrap())
    };
    ["pool4", "pool6"].map(|name| read(set(name))).to_vec()
}

fn blockers(rulesets: Vec<Ruleset>, pools: &[Prefix]) -> Vec<(String, String)> {
    let rulesets = Rulesets { all: rulesets, unread: Vec::new() };
    let found = find(&rulesets, pools, "lan0");
    found.iter().map(|blocker| (blocker.to_string(), blocker.mend())).collect()
}

fn of_nft(text: &str) -> Vec<(String, String)> {
    let ruleset = Ruleset::parse(text).unwrap();
    let pools = pools(&ruleset);
    assert_eq!(pools.len(), 2, "{pools:?}");
    blockers(vec![ruleset], &pools)
}

#[test]
fn each_firewall_is_named_with_the_line_that_mends_it() {
    const ALL: &str = "all packets that the host forwards for tasks";
    for ((name, text), who, what, mend) in [
        (recorded!("docker-bookworm.json"), "Docker", ALL, DOCKER),
        (recorded!("docker-trixie.json"), "Docker", ALL, DOCKER),
        (recorded!("ufw-bookworm.json"), "ufw", ALL, UFW),
        (recorded!("ufw-trixie.json"), "ufw", ALL, UFW),
        (recorded!("own-bookworm.json"), "chain forward of table inet filter", ALL, OWN),
        (recorded!("own-trixie.json"), "chain forward of table inet filter", ALL, OWN),
        (recorded!("firewalld-bookworm.json"), "firewalld", "packets that tasks send", FIREWALLD),
        (recorded!("firewalld-trixie.json"), "firewalld", "packets that tasks send", FIREWALLD),
    ] {
        let found = of_nft(text);
        let [(blocker, line)] = found.as_slice() else { panic!("{name}: {found:?}") };
        assert!(blocker.starts_with(&format!("{who} drops {what}")), "{name}: {blocker}");
        let pools = pools(&Ruleset::parse(text).unwrap());
        let of = |pool: Prefix| format!("{}/{}", pool.0, pool.1);
        let mend = mend.replace("POOL4", &of(pools[0])).replace("POOL6", &of(pools[1]));
        assert_eq!(*line, mend, "{name}");
    }
}

const DOCKER: &str = "iptables -I DOCKER-USER -i nv-+ -j ACCEPT; \
    iptables -I DOCKER-USER -o nv-+ -j ACCEPT  # at each boot: example/network/nomad-nspawn-docker.service";
const UFW: &str = "ufw route allow in on nv-+; ufw route allow out on nv-+";
const OWN: &str = "nft 'insert rule inet filter forward iifname \"nv-*\" accept'; \
    nft 'insert rule inet filter forward oifname \"nv-*\" accept'  \
    # and both in the file that makes the chain";
const FIREWALLD: &str = "firewall-cmd --permanent --zone=trusted --add-source=POOL4; \
    firewall-cmd --permanent --zone=trusted --add-source=POOL6; firewall-cmd --reload";

#[test]
fn none_is_named_once_it_is_mended() {
    for (name, text) in [
        recorded!("docker-mended-bookworm.json"),
        recorded!("docker-mended-trixie.json"),
        recorded!("ufw-mended-bookworm.json"),
        recorded!("ufw-mended-trixie.json"),
        recorded!("own-mended-bookworm.json"),
        recorded!("own-mended-trixie.json"),
        recorded!("firewalld-mended-bookworm.json"),
        recorded!("firewalld-mended-trixie.json"),
    ] {
        assert_eq!(of_nft(text), [], "{name}");
    }
}

/// As on a host with iptables of the old kind, whose tables nft does not list.
#[test]
fn rules_of_iptables_are_read_as_it_saves_them() {
    let of_saves = |v4: &str, v6: &str| {
        let ruleset = |family: &str, text: &str| Ruleset {
            program: Some(format!("{family}tables-legacy")),
            ..save::parse(family, text)
        };
        let pools = [("10.64.0.0".parse().unwrap(), 20), ("fd64::".parse().unwrap(), 64)];
        blockers(vec![ruleset("ip", v4), ruleset("ip6", v6)], &pools)
    };
    let (_, text) = recorded!("docker-trixie.save");
    let found = of_saves(text, "");
    let [(blocker, line)] = found.as_slice() else { panic!("{found:?}") };
    assert!(blocker.starts_with("Docker drops all packets"), "{blocker}");
    assert!(line.starts_with("iptables-legacy -I DOCKER-USER -i nv-+ -j ACCEPT; "), "{line}");
    assert_eq!(of_saves(recorded!("docker-mended-trixie.save").1, ""), []);

    let (v4, v6) = (recorded!("ufw-trixie.save").1, recorded!("ufw-trixie.ip6.save").1);
    let found = of_saves(v4, v6);
    let [(blocker, line)] = found.as_slice() else { panic!("{found:?}") };
    assert!(blocker.contains("of table ip filter, chain FORWARD of table ip6 filter"), "{blocker}");
    assert_eq!(line, UFW);
    let v4 = recorded!("ufw-mended-trixie.save").1;
    assert_eq!(of_saves(v4, recorded!("ufw-mended-trixie.ip6.save").1), []);
    // One family alone is mended.
    assert_eq!(of_saves(v4, v6).len(), 1);
}

#[test]
fn conditions_of_iptables_are_followed() {
    let drops = |rules: &str| {
        let text = format!("*filter\n:FORWARD ACCEPT [0:0]\n:MORE - [0:0]\n{rules}\nCOMMIT\n");
        let pools = [("10.64.0.0".parse().unwrap(), 20)];
        !blockers(vec![save::parse("ip", &text)], &pools).is_empty()
    };
    for (rules, expected) in [
        ("-A FORWARD -j DROP", true),
        ("-A FORWARD -m conntrack --ctstate INVALID -j DROP", false),
        ("-A FORWARD -m state --state NEW -j DROP", true),
        ("-A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j DROP", true),
        ("-A FORWARD -m conntrack --ctstate DNAT -j DROP", true),
        ("-A FORWARD -i br+ -j DROP", false),
        ("-A FORWARD ! -i lan0 -o nv-+ -j DROP", false),
        ("-A FORWARD -s 10.64.0.0/16 -j REJECT --reject-with icmp-port-unreachable", true),
        ("-A FORWARD -s 10.65.0.0/16 -j DROP", false),
        ("-A FORWARD -p udp -j DROP", false),
        ("-A FORWARD -p tcp -m tcp --dport 25 -j DROP", false),
        ("-A FORWARD -m comment --comment \"no -j ACCEPT here\" -j DROP", true),
        ("-A FORWARD -m comment --comment one -j DROP", true),
        ("-A FORWARD -g MORE\n-A FORWARD -j DROP", false),
        ("-A FORWARD -j MORE\n-A MORE -j RETURN\n-A MORE -j DROP", false),
        ("-A FORWARD -j MORE\n-A MORE -o nv-+ -j DROP", true),
        ("-A FORWARD -j LOG --log-prefix \"a b \"\n-A FORWARD -j DROP", true),
    ] {
        assert_eq!(drops(rules), expected, "{rules}");
    }
}

/// A table `inet t` with a chain `c` of these rules, as nft lists them.
fn chain(policy: &str, rules: &[&str]) -> Vec<(String, String)> {
    let rules: Vec<String> = rules
        .iter()
        .map(|expr| {
            format!(r#"{{"rule": {{"family":"inet","table":"t","chain":"c","expr":[{expr}]}}}}"#)
        })
        .collect();
    let base = format!(
        r#"{{"chain": {{"family":"inet","table":"t","name":"c","type":"filter","hook":"forward",
            "prio":0,"policy":"{policy}"}}}},
        {{"set": {{"family":"inet","table":"t","name":"links","elem":["docker0","nv-*"]}}}},
        {{"chain": {{"family":"inet","table":"t","name":"more"}}}},
        {{"rule": {{"family":"inet","table":"t","chain":"more","expr":[{{"drop":null}}]}}}}"#
    );
    let text = format!("{{\"nftables\": [{}]}}", [vec![base], rules].concat().join(","));
    let pools = [("10.64.0.0".parse().unwrap(), 20), ("fd64::".parse().unwrap(), 64)];
    blockers(vec![Ruleset::parse(&text).unwrap()], &pools)
}

#[test]
fn only_what_drops_for_certain_is_named() {
    let meta = |key: &str, op: &str, right: &str| {
        format!(
            r#"{{"match":{{"op":"{op}","left":{{"meta":{{"key":"{key}"}}}},"right":{right}}}}}"#
        )
    };
    let ours = |key: &str| meta(key, "==", "\"nv-*\"");
    let address = |protocol: &str, field: &str, right: &str| {
        format!(
            r#"{{"match":{{"op":"==","left":{{"payload":{{"protocol":"{protocol}",
                "field":"{field}"}}}},"right":{right}}}}}"#
        )
    };
    const DROP: &str = r#"{"drop":null}"#;
    const ACCEPT: &str = r#"{"accept":null}"#;
    const CONNTRACK: &str = r#"{"xt":{"type":"match","name":"conntrack"}}"#;
    let with = |condition: &str, verdict: &str| format!("{condition},{verdict}");
    let private = r#"{"prefix":{"addr":"10.0.0.0","len":8}}"#;
    let port = address("tcp", "dport", "22");
    for (what, policy, rules, count) in [
        ("nothing", "accept", vec![], 0),
        ("a policy", "drop", vec![], 1),
        ("a last rule", "accept", vec![DROP.to_owned()], 1),
        ("another link", "accept", vec![with(&meta("iifname", "==", "\"virbr0\""), DROP)], 0),
        ("all links but", "accept", vec![with(&meta("iifname", "!=", "\"docker0\""), DROP)], 1),
        ("one way", "drop", vec![with(&ours("iifname"), ACCEPT)], 1),
        (
            "both ways",
            "drop",
            vec![with(&ours("iifname"), ACCEPT), with(&ours("oifname"), ACCEPT)],
            0,
        ),
        (
            "a named set",
            "drop",
            vec![
                with(&meta("iifname", "==", "\"@links\""), ACCEPT),
                with(&meta("oifname", "==", "\"@links\""), ACCEPT),
            ],
            0,
        ),
        ("a port", "accept", vec![with(&port, DROP)], 0),
        ("a port opened", "drop", vec![with(&port, ACCEPT)], 1),
        ("an address", "accept", vec![with(&address("ip", "saddr", private), DROP)], 1),
        ("another family", "accept", vec![with(&address("ip6", "saddr", "\"fd00::1\""), DROP)], 0),
        ("a jump", "accept", vec![r#"{"jump":{"target":"more"}}"#.to_owned()], 1),
        (
            "a map",
            "accept",
            vec![
                r#"{"vmap":{"key":{"meta":{"key":"iifname"}},
                    "data":{"set":[["lo",{"accept":null}],["nv-*",{"goto":{"target":"more"}}]]}}}"#
                    .to_owned(),
            ],
            1,
        ),
        ("itself", "accept", vec![r#"{"jump":{"target":"c"}}"#.to_owned()], 0),
        ("unknown", "accept", vec![with(r#"{"mystery":{"a":1}}"#, DROP)], 0),
        ("UDP", "accept", vec![with(&meta("l4proto", "==", "\"udp\""), DROP)], 0),
        (
            "answers, by iptables",
            "drop",
            vec![
                with(CONNTRACK, ACCEPT),
                with(&meta("iifname", "==", "\"nv-*\""), ACCEPT),
                with(&meta("oifname", "==", "\"nv-*\""), ACCEPT),
            ],
            0,
        ),
        ("what is invalid, by iptables", "accept", vec![with(CONNTRACK, DROP)], 0),
        ("a module", "accept", vec![with(r#"{"xt":{"type":"match","name":"addrtype"}}"#, DROP)], 0),
        ("a target", "accept", vec![r#"{"xt":{"type":"target","name":"REJECT"}}"#.to_owned()], 1),
        ("a count", "accept", vec![with(r#"{"counter":{"packets":0}}"#, DROP)], 1),
    ] {
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let found = chain(policy, &rules);
        assert_eq!(found.len(), count, "{what}: {found:?}");
    }
    assert!(Ruleset::parse("{}").is_err() && Ruleset::parse("x").is_err());
}
