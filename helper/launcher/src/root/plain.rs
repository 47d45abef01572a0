//! The image itself as the root.
//!
//! Trusts the policy to have allowed the change. Never follows a link of the image.

use std::os::fd::{AsFd, BorrowedFd};

use proto::plan::Plan;
use proto::task_spec::ImageKind;

use super::assemble::attach;
use super::{Image, Mounted};
use crate::open;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Mounts it at `at`.
pub(super) fn mount(
    plan: &Plan,
    image: &Image,
    map: Option<BorrowedFd<'_>>,
    at: &OwnPath,
) -> Result<Mounted, Problem> {
    // What a disk image holds can be reached on the host through it alone.
    let reachable = map.is_some() && plan.root.kind == ImageKind::Tree;
    if reachable && !open::is_protected(image.handle.as_fd()).at(&plan.image)? {
        let reason = "a writable image must lie behind a directory that is root's and 0700, or on \
                      a nosuid mount: a set-uid file made inside would be host root's for every \
                      local user; chmod 0700 the image store, or use ephemeral = true";
        return Err(Problem::refused(&plan.image, reason));
    }
    // A killed systemd-nspawn leaves its lock file behind: `clean` learns the name from here.
    let own = OwnPath::of_unit(plan.unit);
    own.make_dir(0o700)?;
    own.join(&image.lock).write_new(b"")?;
    // Not nosuid: set-uid programs of the image are meant to work inside.
    attach(plan, image, syscalls::NO_DEV, map, at)?;
    // Our own uid has no id in the map, so we can create nothing through the mapped clone: what is
    // missing is made through this one, which has nothing of the host's mounts below the image
    // either.
    let directory = syscalls::clone_mount(image.handle.as_fd(), false).at(&plan.image)?;
    syscalls::set_mount_attributes(directory.as_fd(), syscalls::NO_DEV, None).at(&plan.image)?;
    let owner = if map.is_some() { 0 } else { plan.container_root() };
    Ok(Mounted { directory, owner, layered: false })
}
