//! Changes of a specification's network to one of the operator's, or one that systemd-nspawn makes.

use super::file::Settings;
use super::generate::port;
use super::random::Random;
use super::twists::constant;
use proto::link::Mac;
use proto::name::{LinkZoneName, ParentName};
use proto::task_spec::Network;
use proto::task_spec::network::{Address, Attached, Container, ContainerLink, Parent, Port};

fn parent(random: &mut Random) -> ParentName {
    match random.below(3) {
        0 => constant!(ParentName, "br0"),
        1 => constant!(ParentName, "br1"),
        _ => constant!(ParentName, "eth0"),
    }
}

/// A port or none, mostly at a listed number.
fn one_port(random: &mut Random, policy: &Settings) -> Vec<Port> {
    let (low, _) = random.pick(&policy.network_ports);
    let address = random.pick(&["192.0.2.1", "2001:db8::1"]);
    let number = random.pick(&[low, low, 22]);
    if random.chance(40) { vec![port(address, number)] } else { Vec::new() }
}

/// An interface in a network of the operator's, around the edges of its rules.
pub(super) fn attached(random: &mut Random, policy: &Settings) -> Network {
    let v4 = ["192.0.2.9", "10.0.0.1", "127.0.0.9", "0.0.0.0", "169.254.0.9", "224.0.0.9"];
    let v6 = ["2001:db8::9", "fd00::1", "fe80::9", "::1", "::", "ff02::9", "::ffff:192.0.2.9"];
    // Mostly the first two.
    let at = |random: &mut Random, most: usize| {
        if random.chance(80) { random.below(2) } else { random.below(most) }
    };
    let v4 = v4.get(at(random, v4.len())).and_then(|text| text.parse().ok());
    let v6 = v6.get(at(random, v6.len())).and_then(|text| text.parse().ok());
    let bits = [None, None, Some(1), Some(24), Some(32), Some(0), Some(33), Some(129)];
    let bits = |random: &mut Random| {
        let most = if random.chance(60) { 5 } else { bits.len() };
        bits.get(random.below(most)).copied().flatten()
    };
    let macs = [[2, 0, 0, 0, 0, 1], [3, 0, 0, 0, 0, 1], [0; 6], [0xff; 6]];
    let mac = random.chance(30).then(|| Mac(random.pick(&macs)));
    let name = parent(random);
    let is_bridge = random.chance(70);
    let v4 =
        v4.filter(|_| random.chance(70)).map(|address| Address { address, bits: bits(random) });
    let v6 =
        v6.filter(|_| random.chance(50)).map(|address| Address { address, bits: bits(random) });
    let parent = if is_bridge { Parent::Bridge(name) } else { Parent::Macvlan(name) };
    Network::Attached(Attached { parent, v4, v6, mac, ports: one_port(random, policy) })
}

/// A network that systemd-nspawn makes, in the same way.
pub(super) fn container(random: &mut Random, policy: &Settings) -> Network {
    let link = match random.below(4) {
        0 => ContainerLink::Veth,
        1 => ContainerLink::Zone(constant!(LinkZoneName, "shop")),
        2 => ContainerLink::Bridge(parent(random)),
        _ => ContainerLink::Macvlan(parent(random)),
    };
    let wait_s = random.pick(&[0, 30, 600, 600, 601, u32::MAX]);
    Network::Container(Container { link, ports: one_port(random, policy), wait_s })
}
