//! Zones, addresses and MAC addresses of networks of tasks' own.

use super::file::Settings;
use super::random::Random;
use proto::link::Mac;
use proto::name::ZoneName;
use proto::task_spec::network::Private;
use proto::task_spec::{Network, TaskSpec};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Patterns of names in policy files.
pub(super) const PATTERNS: [&str; 7] = ["*", "web", "db-*", "*.prod", "w*b", "web-*", "**"];
/// Names, close to them.
const NAMES: [&str; 8] = ["web", "web-1", "webs", "db", "db-", "db-a.prod", "prod", "wXb"];

/// Adds one or all of them to the task's own network, which it may not have yet.
pub(super) fn twist(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    let mut private = match &spec.network {
        Network::Private(private) => private.clone(),
        _ => Private::default(),
    };
    if random.chance(80) {
        private.zone = ZoneName::new(random.pick(&NAMES)).ok();
    }
    if random.chance(30) {
        private.v4 = Some(Ipv4Addr::from(random.pick(&[[10, 64, 0, 9], [0, 0, 0, 0], [255; 4]])));
        private.v6 = random.chance(50).then_some(Ipv6Addr::LOCALHOST);
    }
    if random.chance(30) {
        let some =
            [[2, 0, 0, 0, 0, 1], [0, 0x1b, 0x21, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0; 6], [255; 6]];
        private.mac = Some(Mac(random.pick(&some)));
    }
    spec.network = Network::Private(private);
}
