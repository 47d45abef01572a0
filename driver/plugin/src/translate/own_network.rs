//! What a job asks of a network of its task's own: ports, zone and addresses.
//!
//! Nothing here guards anything: the helper judges the zone by its policy, and knows which addresses
//! are of its pool and free.

use std::fmt::Display;
use std::str::FromStr;

use nomad_proto::drivers::TaskConfig;
use proto::link::Mac;
use proto::name::ZoneName;
use proto::task_spec::network::Private;

use super::ports;
use crate::config::Problem;
use crate::config::task::TaskKeys;

/// The network of a task that has one of its own.
pub(super) fn private(task: &TaskConfig, keys: &TaskKeys, problems: &mut Vec<Problem>) -> Private {
    let TaskKeys { network_zone, ipv4_address, ipv6_address, mac_address, .. } = keys;
    let zone = network_zone.as_ref().and_then(|name| {
        let problem = |e| Problem::new("network_zone", format!("{e}")).value(name);
        ZoneName::new(name).map_err(|e| problems.push(problem(e).remedy("e.g. backend"))).ok()
    });
    let address = "must be an address without a prefix length";
    let v4 = read("ipv4_address", ipv4_address, address, "e.g. 10.87.16.20", problems);
    let v6 = read("ipv6_address", ipv6_address, address, "e.g. fd4f:a91c:7b2e::20", problems);
    let example = "e.g. 02:00:00:00:00:01";
    let pairs = "must be six pairs of hexadecimal digits, joined by colons";
    let mac: Option<Mac> = read("mac_address", mac_address, pairs, example, problems);
    if let Some(mac) = mac.filter(|mac| !mac.is_of_one()) {
        let rule = "must be of one interface: the second digit even, and not all zeros";
        problems.push(Problem::new("mac_address", rule).value(mac).remedy(example));
    }
    Private { ports: ports::published(task, keys, problems), zone, v4, v6, mac }
}

/// Reports the keys that a network which is not the task's own, or has no addresses, does not take.
pub(super) fn refuse(keys: &TaskKeys, network: &str, problems: &mut Vec<Problem>) {
    for (key, value) in [
        ("network_zone", &keys.network_zone),
        ("ipv4_address", &keys.ipv4_address),
        ("ipv6_address", &keys.ipv6_address),
        ("mac_address", &keys.mac_address),
    ] {
        if let Some(value) = value {
            let problem = Problem::new(key, format!("excludes {network}")).value(value);
            problems.push(problem.remedy("remove one of them"));
        }
    }
}

fn read<T: FromStr>(
    key: &str,
    text: &Option<String>,
    rule: impl Display,
    remedy: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let text = text.as_ref()?;
    let problem = || Problem::new(key, rule.to_string()).value(text).remedy(remedy);
    text.parse().map_err(|_| problems.push(problem())).ok()
}
