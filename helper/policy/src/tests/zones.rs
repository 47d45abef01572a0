//! Zones by their names, and MAC addresses.

use super::{COMPAT, Change, check, check_invalid, judged, networks, port, ports, row};
use proto::link::Mac;
use proto::name::ZoneName;
use proto::task_spec::Network;
use proto::task_spec::network::Private;

fn private(private: Private) -> Change {
    networks(Network::Private(private))
}

fn zone(name: &str) -> Change {
    private(Private { zone: Some(ZoneName::new(name).unwrap()), ..Private::default() })
}

fn mac(mac: [u8; 6]) -> Change {
    private(Private { mac: Some(Mac(mac)), ..Private::default() })
}

#[test]
fn zones_are_listed() {
    const VETH: &str = "[network]\nallow = [\"veth\"]";
    const ZONE: &str = "[network]\nallow = [\"zone\"]";
    const SOME: &str = "[network]\nzones = [\"web\", \"db-*\"]";
    const NONE: &str = "[network]\nzones = []";
    let plain = || ports(&[]);
    let (allow, zones) = ("network.allow", "network.zones");
    check(vec![
        row(allow, "\"zone\" added to [network] allow", (VETH, zone("web")), (ZONE, zone("web"))),
        row(allow, "\"veth\"", (ZONE, plain()), (VETH, plain())),
        row(zones, "zone db: ", (SOME, zone("db")), (SOME, zone("db-"))),
        row(zones, "\"web2\" added to [network] zones", (SOME, zone("web2")), (SOME, zone("web"))),
        row(zones, "\"web\"", (NONE, zone("web")), (NONE, plain())),
        row(zones, "\"web\"", (NONE, zone("web")), ("", zone("any.name_1"))),
    ]);
}

/// A zone lifts no other rule.
#[test]
fn p20_a_zone_publishes_the_ports_of_the_list() {
    let low = private(Private {
        zone: ZoneName::new("web").ok(),
        ports: vec![port("192.0.2.1", 80, 80)],
        ..Private::default()
    });
    assert_eq!(judged("", &low).unwrap_err().rule, "network.ports");
    assert!(judged(COMPAT, &low).is_ok());
}

#[test]
fn mac_addresses_are_of_one_interface() {
    let good = || mac([2, 0, 0, 0, 0, 1]);
    for bad in [[1, 0, 0x5e, 0, 0, 1], [0xff; 6], [0; 6], [3, 0, 0, 0, 0, 1]] {
        check_invalid(vec![("must be of one interface", mac(bad), good())]);
    }
    assert!(judged("", mac([0, 0x1b, 0x21, 0, 0, 1])).is_ok(), "of a maker");
}
