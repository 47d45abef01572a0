//! The task's user namespace.

use proto::limits;
use proto::plan::Place;
use proto::spec::Users;

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
    if base >= FIRST_OTHER && policy.userns_require && !(known && aligned) {
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
    if !policy.userns_require || policy.userns_except.iter().any(|it| it.to_path() == path) {
        return Ok(());
    }
    let reason = format!(
        "container root would be a user of the host; the policy file would allow it with [userns] \
         require = false, or for this image with \"{image}\" in [userns] except"
    );
    Err(refuse("userns.require", asked, reason))
}
