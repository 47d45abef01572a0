//! Name resolution and time zone: /etc/resolv.conf, /etc/hosts, /etc/localtime.

use proto::plan::Plan;

use super::extras::Extras;
use super::root::Image;
use super::step::Problem;

/// Prepares the files on the stage, or in the root.
pub(super) fn prepare(_plan: &Plan, _image: &Image, _extras: &mut Extras) -> Result<(), Problem> {
    Ok(())
}
