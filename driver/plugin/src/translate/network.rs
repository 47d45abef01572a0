//! The task's network.

use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use nomad_proto::drivers::{NetworkIsolationSpec, TaskConfig};
use proto::path::Absolute;
use proto::task_spec::Network;

use super::node::Node;
use super::{attached, own_network, ports};
use crate::config::Problem;
use crate::config::task::TaskKeys;

/// The group's namespace where it has one, else what the keys ask for.
pub(crate) fn network(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Network> {
    let spec = task.network_isolation_spec.as_ref();
    let host = |spec: &&NetworkIsolationSpec| {
        spec.mode() == NetworkIsolationMode::Host && spec.path.is_empty()
    };
    match spec.filter(|spec| !host(spec)) {
        Some(spec) => {
            attached::refuse(keys, "the group's own network", problems);
            own_network::refuse(keys, "the group's own network", problems);
            of_group(spec, keys).map_err(|problem| problems.push(problem)).ok()
        }
        // The group has no network namespace, or the host's.
        None => Some(of_keys(task, keys, node, problems)),
    }
}

fn of_keys(
    task: &TaskConfig,
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Network {
    if !keys.network_veth {
        ports::refuse(
            keys,
            "excludes network_veth = false: in the host's network a program listens on the host's \
             ports itself",
            "remove it, or network_veth = false",
            problems,
        );
        attached::refuse(keys, "network_veth = false, the host's network", problems);
        own_network::refuse(keys, "network_veth = false, the host's network", problems);
        Network::Host
    } else if keys.private_network {
        let rule = "excludes private_network = true, which is loopback alone";
        ports::refuse(keys, rule, "remove one of them", problems);
        attached::refuse(keys, "private_network = true, which is loopback alone", problems);
        own_network::refuse(keys, "private_network = true, which is loopback alone", problems);
        Network::Loopback
    } else if let Some(network) = attached::network(task, keys, node, problems) {
        network
    } else {
        Network::Private(own_network::private(task, keys, problems))
    }
}

/// Nomad publishes its ports.
fn of_group(spec: &NetworkIsolationSpec, keys: &TaskKeys) -> Result<Network, Problem> {
    if spec.mode() != NetworkIsolationMode::Group {
        return Err(Problem::new(
            "network",
            format!("mode {} is not supported", spec.mode().as_str_name()),
        )
        .remedy("use bridge, none, cni/… or host in the group's network block"));
    }
    if keys.private_network {
        return Err(Problem::new("private_network", "excludes the group's own network")
            .value(true)
            .remedy("remove private_network, or the group's network block"));
    }
    Absolute::parse(&spec.path)
        .map(Network::Join)
        .map_err(|e| Problem::new("network namespace", e.to_string()).value(&spec.path))
}
