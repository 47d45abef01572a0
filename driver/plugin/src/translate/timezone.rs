//! The task's time zone: what stands at its /etc/localtime.

use std::path::Path;

use proto::path::Relative;
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{Root, Volatile};

use super::node::Node;
use super::paths::below;
use super::root;
use crate::config::Problem;
use crate::config::task::TaskKeys;
use crate::config::words::TimezoneWord;

const LOCALTIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";

/// /etc/localtime, and the zone that it is to be a link to where the image has that zone.
pub(crate) fn timezone(
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> (EtcFile, Option<Relative>) {
    let (link, as_link) = match keys.timezone {
        None | Some(TimezoneWord::Off) => return (EtcFile::Keep, None),
        Some(TimezoneWord::Delete) => return (EtcFile::Delete, None),
        // What is seen through the image's link would change the zone that the link names.
        Some(TimezoneWord::Copy) => (ImageLink::Replace, false),
        Some(TimezoneWord::Bind) => (ImageLink::Follow, false),
        Some(TimezoneWord::Symlink) => (ImageLink::Follow, true),
        Some(TimezoneWord::Auto) => match root::mode(keys) {
            Root::ReadOnly | Root::Volatile(Volatile::State) => (ImageLink::Follow, false),
            Root::Plain
            | Root::Ephemeral(_)
            | Root::Volatile(Volatile::Yes | Volatile::Overlay) => (ImageLink::Follow, true),
        },
    };
    let remedy = "remove it, or set the host's: timedatectl";
    let source = (LOCALTIME, "it has no time zone");
    let file = node.host.copy("timezone", source, remedy, link, problems);
    let target = (node.host.link)(LOCALTIME).ok();
    (file, target.filter(|_| as_link).as_deref().and_then(zone))
}

/// The zone that a link at /etc/localtime names (timezone_from_path() of systemd).
fn zone(link: &Path) -> Option<Relative> {
    let relative = Path::new("..").join(ZONES.trim_start_matches('/'));
    let name = link.strip_prefix(ZONES).or_else(|_| link.strip_prefix(relative)).ok()?;
    below(name.to_str()?).ok().filter(|zone| !zone.components().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_those_below_the_zone_directory() {
        for link in ["/usr/share/zoneinfo/Europe/Berlin", "../usr/share/zoneinfo/Europe/Berlin"] {
            let zone = zone(Path::new(link)).unwrap();
            assert_eq!(zone.to_path(), Path::new("Europe/Berlin"), "{link}");
        }
        for link in ["/etc/zone", "Europe/Berlin", "/usr/share/zoneinfos/x", "/usr/share/zoneinfo"]
        {
            assert_eq!(zone(Path::new(link)), None, "{link}");
        }
    }
}
