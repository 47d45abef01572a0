//! A link as one field of a unit's record: words separated by commas, each a letter, `=`, a value.
//!
//! | letter | value |
//! |---|---|
//! | `4`, `6` | the task's address, `/`, length of the pool's prefix |
//! | `m` | the MAC address that the job asked for |
//! | `z` | number of the zone, `:`, its name |
//! | `p`, `l` | address and port of the host, `-`, port of the task; `l`: on loopback as well |
//!
//! Pure. Everything else of a link follows from its unit and these.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use proto::limits;
use proto::link::{Link, LinkName, Published, Zone};
use proto::name::ZoneName;
use proto::task_spec::network::Port;
use proto::unit_id::UnitId;

use crate::network::pool::{ends_4, ends_6};
use crate::network::zones;

/// The text of a link.
pub(crate) fn write(link: &Link) -> String {
    let mut text = format!("4={}/{}", link.v4.task, link.v4.prefix);
    let v6 = link.v6.map(|ends| format!(",6={}/{}", ends.task, ends.prefix));
    text.push_str(v6.as_deref().unwrap_or_default());
    let mac = link.mac.map(|mac| format!(",m={mac}"));
    text.push_str(mac.as_deref().unwrap_or_default());
    let zone = link.zone.as_ref().map(|zone| format!(",z={}:{}", zone.group, zone.name));
    text.push_str(zone.as_deref().unwrap_or_default());
    for Published { port, on_loopback } in &link.ports {
        let letter = if *on_loopback { 'l' } else { 'p' };
        let host = SocketAddr::new(port.address, port.host.get());
        // A String takes everything.
        _ = write!(text, ",{letter}={host}-{}", port.task);
    }
    text
}

/// Reads the link of a unit.
pub(crate) fn read(unit: UnitId, text: &str) -> Option<Link> {
    let (mut v4, mut v6, mut ports) = (None, None, Vec::new());
    let (mut mac, mut zone) = (None, None);
    for word in text.split(',') {
        let (letter, value) = word.split_once('=')?;
        match letter {
            "4" => {
                let (task, prefix) = value.split_once('/')?;
                let prefix = prefix.parse().ok().filter(|prefix| (1..=30).contains(prefix))?;
                v4 = Some(ends_4(task.parse().ok()?, prefix));
            }
            "6" => {
                let (task, prefix) = value.split_once('/')?;
                let prefix = prefix.parse().ok().filter(|prefix| (1..=126).contains(prefix))?;
                v6 = Some(ends_6(task.parse().ok()?, prefix));
            }
            "m" => mac = Some(value.parse().ok()?),
            "z" => {
                let (group, name) = value.split_once(':')?;
                let group = group.parse().ok().filter(|group| *group >= zones::FIRST)?;
                zone = Some(Zone { name: ZoneName::new(name).ok()?, group });
            }
            "p" | "l" if ports.len() < limits::PORTS_MAX => {
                let (host, task) = value.rsplit_once('-')?;
                let host: SocketAddr = host.parse().ok()?;
                let (address, host) = (host.ip(), NonZeroU16::new(host.port())?);
                let port = Port { address, host, task: task.parse().ok()? };
                ports.push(Published { port, on_loopback: letter == "l" });
            }
            _ => return None,
        }
    }
    Some(Link { name: LinkName::from(unit), v4: v4?, v6, mac, zone, ports })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::link::Mac;
    use proto::name::{AllocId, Instance};

    const UNIT: UnitId = UnitId { alloc: AllocId([3; 16]), instance: Instance(0xbeef) };
    const TEXT: &str =
        "4=10.64.0.11/20,6=fd64::11/64,l=198.51.100.1:20001-80,p=[2001:db8::1]:20001-8080";

    #[test]
    fn a_link_is_read_back() {
        let link = read(UNIT, TEXT).unwrap();
        assert_eq!(write(&link), TEXT);
        assert_eq!(link.name, LinkName::from(UNIT));
        assert_eq!(link.v4.gateway.to_string(), "10.64.0.1");
        assert_eq!(link.v6.unwrap().gateway.to_string(), "fd64::1");
        assert_eq!(link.ports.iter().map(|p| p.on_loopback).collect::<Vec<_>>(), [true, false]);
        let v4 = read(UNIT, "4=10.64.0.11/20").unwrap();
        assert!(v4.v6.is_none() && v4.ports.is_empty());
    }

    #[test]
    fn zone_and_mac_address_are_read_back() {
        let text = "4=10.64.0.11/20,m=02:00:00:00:00:07,z=1853227010:back-end.1";
        let link = read(UNIT, text).unwrap();
        assert_eq!(write(&link), text);
        assert_eq!(link.task_mac(), Mac([2, 0, 0, 0, 0, 7]));
        let zone = link.zone.unwrap();
        assert_eq!((zone.group, zone.name.as_str()), (zones::FIRST + 1, "back-end.1"));
    }

    #[test]
    fn what_is_no_link_is_not_read() {
        for text in [
            "",
            "none",
            "6=fd64::11/64",
            "4=10.64.0.11",
            "4=10.64.0.11/0",
            "4=10.64.0.11/33",
            "4=x/20",
            "4=10.64.0.11/20,6=fd64::11/128",
            "4=10.64.0.11/20,l=198.51.100.1:0-80",
            "4=10.64.0.11/20,l=198.51.100.1:80-0",
            "4=10.64.0.11/20,z=1",
            "4=10.64.0.11/20,z=0:web",
            "4=10.64.0.11/20,z=1853227009:",
            "4=10.64.0.11/20,z=1853227009:a/b",
            "4=10.64.0.11/20,m=02:00",
            "4=10.64.0.11/20,",
        ] {
            assert_eq!(read(UNIT, text), None, "{text}");
        }
        let many = vec!["p=198.51.100.1:1-1"; limits::PORTS_MAX + 1].join(",");
        assert_eq!(read(UNIT, &format!("4=10.64.0.11/20,{many}")), None);
    }
}
