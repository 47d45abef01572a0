//! The task's network.
//! A namespace to join must be the allocation's own where Nomad's lie.

use proto::plan::PlannedNetwork;
use proto::task_spec::{Network, TaskSpec};

use super::glob::matches;
use super::{Denial, Policy, place_below, refuse, unlisted};

/// The network as the launcher makes it.
pub(super) fn plan(spec: &TaskSpec, policy: &Policy) -> Result<PlannedNetwork, Denial> {
    let (kind, object) = match &spec.network {
        Network::Loopback => ("private", "private network"),
        Network::Host => ("host", "host network"),
        Network::Join(_) => ("group", "group network"),
    };
    if !policy.network.allow.iter().any(|pattern| matches(&pattern.0, kind, None)) {
        return Err(unlisted("network.allow", object, kind));
    }
    let path = match &spec.network {
        Network::Loopback => return Ok(PlannedNetwork::Loopback),
        Network::Host => return Ok(PlannedNetwork::Host),
        Network::Join(path) => path,
    };
    let object = format!("network namespace {path}");
    let place = place_below(path, policy.network.netns_paths.iter()).ok_or_else(|| {
        let reason = "lies below no directory of [network] netns_paths in the policy file; add its \
                      directory there";
        refuse("network.netns_paths", &object, reason)
    })?;
    // Nomad's own namespaces carry the allocation's id; others, where listed, do not.
    let nomads = place.root.to_path().ends_with("run/netns");
    let alloc = spec.key.alloc.to_string();
    match place.below.components() {
        [name] if !nomads || name.as_str() == alloc => Ok(PlannedNetwork::Join(place)),
        _ => Err(refuse(
            "network.netns_paths",
            object,
            "is not the one that Nomad made for this allocation; restart the allocation",
        )),
    }
}
