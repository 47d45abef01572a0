//! Files of the host in the container: binds, file systems in memory, overlays, devices, credentials.

use std::os::fd::BorrowedFd;

use proto::plan::Plan;

use super::extras::Extras;
use super::root::Image;
use super::step::Problem;

/// Prepares everything on the stage.
pub(super) fn prepare(
    _plan: &Plan,
    _image: &Image,
    _users: Option<BorrowedFd<'_>>,
    _extras: &mut Extras,
) -> Result<(), Problem> {
    Ok(())
}
