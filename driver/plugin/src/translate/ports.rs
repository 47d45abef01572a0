//! Ports of the host that lead to a task with a network of its own.
//!
//! The scheduler has chosen them: port and address of each label of the group's network block. A
//! label is published when the job names it in `ports`, or in the older `port_map`. Nothing here
//! guards anything: the helper judges the ports by its own policy, and finds those that are taken.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU16;

use nomad_proto::drivers::{PortMapping, TaskConfig};
use proto::limits;
use proto::task_spec::Network;
use proto::task_spec::network::Port;

use crate::config::Problem;
use crate::config::task::TaskKeys;

/// The event of a job whose group has a network of Nomad's.
pub(crate) const NO_EFFECT: &str = "ports: has no effect in this group, because Nomad publishes \
                                    the ports of its network itself";

/// What is published, sorted and each once.
pub(super) fn published(
    task: &TaskConfig,
    keys: &TaskKeys,
    problems: &mut Vec<Problem>,
) -> Vec<Port> {
    let known = known(task);
    let mut all = BTreeSet::new();
    for Wanted { key, label, inside } in wanted(keys) {
        let mut found = known.iter().filter(|known| known.label == label).peekable();
        if found.peek().is_none() {
            problems.push(unknown(key, label, known));
        }
        for mapping in found {
            match place(mapping, inside) {
                Ok(port) => drop(all.insert(port)),
                Err(rule) => problems.push(Problem::new(format!("port {label:?}"), rule)),
            }
        }
    }
    if all.len() > limits::PORTS_MAX {
        let rule = format!("{}, but at most {} are published", all.len(), limits::PORTS_MAX);
        problems.push(Problem::new("ports", rule));
    }
    all.into_iter().collect()
}

/// Says that a job publishes ports, of a task whose network does not take any.
pub(super) fn refuse(keys: &TaskKeys, rule: &str, remedy: &str, problems: &mut Vec<Problem>) {
    if let Some(first) = wanted(keys).next() {
        problems.push(Problem::new(first.key, rule).remedy(remedy));
    }
}

/// The port inside of each published label, as Nomad registers it for services.
pub(crate) fn inside(task: &TaskConfig) -> HashMap<String, i32> {
    let keys = TaskKeys::decode(&task.msgpack_driver_config, &mut Vec::new());
    let mut ports = HashMap::new();
    for Wanted { label, inside, .. } in wanted(&keys) {
        let mapping = known(task).iter().find(|known| known.label == label);
        if let Some(Ok(port)) = mapping.map(|mapping| place(mapping, inside)) {
            ports.insert(label.to_owned(), i32::from(port.task.get()));
        }
    }
    ports
}

/// Whether a job names ports that Nomad publishes itself.
pub(crate) fn have_no_effect(task: &TaskConfig, network: &Network) -> bool {
    let keys = || TaskKeys::decode(&task.msgpack_driver_config, &mut Vec::new());
    matches!(network, Network::Join(_)) && wanted(&keys()).next().is_some()
}

/// A label that the job publishes.
struct Wanted<'a> {
    /// The key that names it.
    key: &'static str,
    label: &'a str,
    /// The port inside, by `port_map`.
    inside: Option<i64>,
}

fn wanted(keys: &TaskKeys) -> impl Iterator<Item = Wanted<'_>> {
    let ports = keys.ports.iter();
    let ports = ports.map(|label| Wanted { key: "ports", label, inside: None });
    let map = keys.port_map.0.iter();
    ports.chain(map.map(|(label, port)| Wanted { key: "port_map", label, inside: Some(*port) }))
}

fn known(task: &TaskConfig) -> &[PortMapping] {
    task.resources.as_ref().map_or(&[], |resources| &resources.ports)
}

fn unknown(key: &'static str, label: &str, known: &[PortMapping]) -> Problem {
    let problem = |rule: String| Problem::new(key, rule).value(label);
    if known.is_empty() {
        return problem("the group's network block has no ports".to_owned())
            .remedy(format!("add port {label:?} {{ to = … }} to it, or remove {key}"));
    }
    let labels: BTreeSet<_> = known.iter().map(|known| known.label.as_str()).collect();
    let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
    problem(format!("is no port of the group's network block, which has {labels}"))
        .remedy("correct the label, or add the port to the block")
}

/// Where a port of Nomad's leads from and to. A port of `port_map` that cannot be one is reported with
/// the rules of the keys, and Nomad's stands in for it here.
fn place(mapping: &PortMapping, inside: Option<i64>) -> Result<Port, String> {
    let PortMapping { label: _, value, to, host_ip } = mapping;
    let address: IpAddr = host_ip
        .parse()
        .map_err(|_| format!("Nomad gave it the host address {host_ip:?}, which is none"))?;
    let number = |number: i64| u16::try_from(number).ok().and_then(NonZeroU16::new);
    let host = number((*value).into())
        .ok_or_else(|| format!("Nomad gave it the host port {value}, which is none"))?;
    let task = inside.and_then(number).or_else(|| number((*to).into())).unwrap_or(host);
    // IPv4 in the form of IPv6 is no address that a packet has.
    Ok(Port { address: address.to_canonical(), host, task })
}
