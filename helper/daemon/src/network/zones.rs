//! Zones: which interface group the links of a zone's tasks are in. A zone is nothing but that number.
//!
//! Pure. Two zones never have one number, nor does a zone have that of links that are still there.

use proto::link::{Link, Zone};
use proto::name::ZoneName;

/// The first number, "nv" in ASCII and 1: operators who use groups count from 1, and 0 is the group
/// of every other link.
pub(crate) const FIRST: u32 = 0x6e76_0001;

/// The zone of this name: with the number that a task of it has, else with the first that no task
/// (`links`) and no link of an ended one (`groups`) has.
pub(crate) fn zone<'a, E>(
    name: &ZoneName,
    links: impl Iterator<Item = &'a Link>,
    groups: impl FnOnce() -> Result<Vec<u32>, E>,
) -> Result<Zone, E> {
    let zones: Vec<_> = links.filter_map(|link| link.zone.as_ref()).collect();
    if let Some(same) = zones.iter().find(|zone| zone.name == *name) {
        return Ok((*same).clone());
    }
    let mut taken = groups()?;
    taken.extend(zones.iter().map(|zone| zone.group));
    // There are more numbers than tasks, so one is free.
    let group = (FIRST..).find(|group| !taken.contains(group)).unwrap_or(u32::MAX);
    Ok(Zone { name: name.clone(), group })
}

#[cfg(test)]
mod tests {
    use super::super::tests::namespaces::link;
    use super::*;

    fn name(text: &str) -> ZoneName {
        ZoneName::new(text).unwrap()
    }

    fn member(number: u16, zone: &str, group: u32) -> Link {
        Link { zone: Some(Zone { name: name(zone), group }), ..link(number, &[]) }
    }

    #[test]
    fn a_zone_has_one_number_and_no_two_have_the_same() {
        let number = |of: &str, links: &[Link], groups: &[u32]| {
            zone(&name(of), links.iter(), || Ok::<_, ()>(groups.to_vec())).unwrap().group
        };
        let links = [link(9, &[]), member(10, "a", FIRST), member(11, "c", FIRST + 2)];
        assert_eq!(number("a", &[], &[]), FIRST);
        assert_eq!(number("a", &links, &[FIRST]), FIRST);
        assert_eq!(number("b", &links, &[0, 5]), FIRST + 1);
        // A link of an ended task that has no record any more.
        assert_eq!(number("b", &links, &[FIRST + 1]), FIRST + 3);
        assert_eq!(number("a", &links[2..], &[FIRST]), FIRST + 1);
        // Nobody looks at the host's links for a zone that has tasks.
        let failed = |of: &str| zone(&name(of), links.iter(), || Err("netlink"));
        assert_eq!(failed("c").map(|zone| zone.group), Ok(FIRST + 2));
        assert_eq!(failed("b"), Err("netlink"));
    }
}
