//! The task's network.

use nomad_proto::drivers::NetworkIsolationSpec;
use nomad_proto::drivers::network_isolation_spec::NetworkIsolationMode;
use proto::path::Absolute;
use proto::task_spec::Network;

use crate::config::Problem;
use crate::config::task::TaskKeys;

/// The group's namespace where it has one, else what the keys ask for.
pub(crate) fn network(
    spec: Option<&NetworkIsolationSpec>,
    keys: &TaskKeys,
) -> Result<Network, Problem> {
    let spec =
        spec.filter(|spec| !(spec.mode() == NetworkIsolationMode::Host && spec.path.is_empty()));
    let Some(spec) = spec else {
        // The group has no network namespace, or the host's.
        return Ok(if keys.network_veth { Network::Loopback } else { Network::Host });
    };
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
