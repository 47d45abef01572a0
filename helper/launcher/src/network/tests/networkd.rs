//! The file for images that run systemd-networkd.

use super::namespace::link;
use crate::network::networkd::text;
use proto::link::Link;

#[test]
fn the_file_of_networkd_has_the_addresses_of_the_link() {
    let with = link(Vec::new());
    let all = text(&with);
    for line in ["Address=10.64.0.21/32", "Peer=10.64.0.1/32", "Address=fd64::15/128"] {
        assert!(all.lines().any(|it| it == line), "{line}: {all}");
    }
    let without = text(&Link { v6: None, ..with });
    assert!(without.contains("LinkLocalAddressing=no") && !without.contains("fd64"), "{without}");
}
