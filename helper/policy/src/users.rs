//! The task's user namespace.
//! Without a line of the policy file container root is never a user of the host.

use proto::limits;
use proto::plan::Place;
use proto::task_spec::Users;

use super::{Denial, Policy, invalid, refuse};

/// Below it are the host's own users (UIDS-GIDS.md of systemd).
const FIRST_OTHER: u32 = 65_536;

/// Checks a range that the job gives.
pub(super) fn check_range(users: Users, policy: &Policy) -> Result<(), Denial> {
    let Users::Fixed { base, width } = users else {
        return Ok(());
    };
    let range = |reason: &str| invalid("range", format!("private_users = {base}:{width}"), reason);
    if width == 0 || width > limits::RANGE_WIDTH {
        return Err(range("1 to 65,536 ids"));
    }
    if base.checked_add(width).is_none() {
        return Err(range("ends above the largest uid"));
    }
    let known = (limits::RANGE_FIRST..=limits::RANGE_LAST).contains(&base);
    let aligned = base.is_multiple_of(limits::RANGE_WIDTH);
    if base >= FIRST_OTHER && policy.userns.require && !(known && aligned) {
        return Err(range(
            "must begin at a multiple of 65,536 from 524,288 to 1,878,982,656; the policy file \
             would allow it with [userns] require = false",
        ));
    }
    Ok(())
}

/// Checks whether container root may be a user of the host.
pub(super) fn check(users: Users, image: &Place, policy: &Policy) -> Result<(), Denial> {
    let asked = match users {
        Users::Host => "user_namespacing = false",
        Users::Identity => "private_users = \"identity\"",
        Users::Fixed { base, .. } if base < FIRST_OTHER => "private_users below 65,536",
        Users::Pick | Users::Fixed { .. } => return Ok(()),
    };
    let path = image.to_path();
    if !policy.userns.require || policy.userns.except.iter().any(|it| it.to_path() == path) {
        return Ok(());
    }
    let reason = format!(
        "container root would be a user of the host; the policy file would allow it with [userns] \
         require = false, or for this image with \"{image}\" added to [userns] except"
    );
    Err(refuse("userns.require", asked, reason))
}

#[cfg(test)]
mod tests {
    use crate::tests::{check_invalid, judged, users};
    use proto::error::Code;
    use proto::task_spec::Users;

    fn fixed(base: u32, width: u32) -> Box<dyn Fn(&mut proto::task_spec::TaskSpec)> {
        users(Users::Fixed { base, width })
    }

    #[test]
    fn ranges_are_ranges() {
        check_invalid(vec![
            ("1 to 65,536 ids", fixed(524_288, 0), fixed(524_288, 1)),
            ("1 to 65,536 ids", fixed(524_288, 65_537), fixed(524_288, 65_536)),
            ("largest uid", fixed(u32::MAX - 9, 10), fixed(u32::MAX - 10, 10)),
        ]);
    }

    #[test]
    fn ranges_are_those_of_containers_where_namespaces_are_required() {
        for base in [65_536, 458_752, 524_289, 1_878_982_657, 1_879_048_192] {
            let denial = judged("", fixed(base, 10)).unwrap_err();
            assert_eq!(denial.refusal.code, Code::Invalid, "{base}");
            assert!(denial.refusal.reason.contains("[userns] require = false"), "{base}");
            assert!(judged("[userns]\nrequire = false", fixed(base, 10)).is_ok(), "{base}");
        }
        for base in [524_288, 589_824, 1_878_982_656] {
            assert!(judged("", fixed(base, 65_536)).is_ok(), "{base}");
        }
    }
}
