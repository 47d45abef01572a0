//! Assembling the root, and what systemd-nspawn is to do with it.
//!
//! The cost does not depend on the image's size: nothing of it is copied or re-owned.
//!
//! | mode | root | upper layer |
//! |---|---|---|
//! | plain | clone of the image | - |
//! | read-only, volatile yes and state | overlay | in memory, mount points and what systemd-nspawn walks |
//! | volatile overlay, ephemeral in memory | overlay | in memory |
//! | ephemeral, kept | overlay | on disk |
//!
//! Only plain mode changes the image. systemd-nspawn never walks a path that the image could turn
//! into one of the host: what would be its `--pivot-root=` is done here.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proto::plan::Plan;
use proto::task_spec::{Ownership, Payload, Pivot, Root, Volatile};

use super::{Image, Mounted, overlay, plain};
use crate::open;
use crate::prepared::{Extras, MountPoint};
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Mounts the root at [`OwnPath::root`]. `users` ID-maps it where the ownership asks for it.
pub(crate) fn mount_root(
    plan: &Plan,
    image: &Image,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<Mounted, Problem> {
    let map = users.filter(|_| plan.root.ownership == Ownership::Map);
    let whole =
        if plan.root.pivot.is_some() { OwnPath::on_stage("whole") } else { OwnPath::root() };
    let mut root = match plan.root.mode {
        Root::Plain => plain::mount(plan, image, map, &whole)?,
        Root::ReadOnly | Root::Ephemeral(_) | Root::Volatile(_) => {
            overlay::mount(plan, image, map, &whole)?
        }
    };
    if let Some(pivot) = &plan.root.pivot {
        enter(plan, &mut root, pivot, &whole, extras)?;
    }
    // That mode takes /usr alone, so the image must have it.
    if plan.root.mode != Root::Volatile(Volatile::Yes) {
        let boots = matches!(plan.payload, Payload::Boot { .. });
        let made = root.os_tree(boots, plan.root.mode != Root::Plain);
        made.map_err(|problem| problem.about(&plan.image))?;
    }
    root.base_directories()?;
    if plan.root.ownership == Ownership::Chown {
        // The last of two counts.
        extras.arguments.push("--private-users-ownership=chown".to_owned());
    }
    match plan.root.mode {
        Root::ReadOnly => extras.arguments.push("--read-only".to_owned()),
        Root::Volatile(Volatile::Yes) => {
            check_merged(plan, &root)?;
            extras.arguments.push("--volatile=yes".to_owned());
        }
        Root::Volatile(Volatile::State) => extras.arguments.push("--volatile=state".to_owned()),
        Root::Plain | Root::Ephemeral(_) | Root::Volatile(Volatile::Overlay) => {}
    }
    Ok(root)
}

/// Makes a directory of the whole root the root, and shows the whole below it where the job says.
///
/// Not by systemd-nspawn's `--pivot-root=`: it follows the image's links on the host.
fn enter(
    plan: &Plan,
    root: &mut Mounted,
    pivot: &Pivot,
    whole: &OwnPath,
    extras: &mut Extras,
) -> Result<(), Problem> {
    let new = pivot.new.to_path();
    let object = format!("pivot_root {} in {}", pivot.new, plan.image);
    let handle = whole.open_dir()?;
    let directory = open::in_root(handle.as_fd(), &new).at(&object)?;
    let judged = open::metadata(&directory).at(&object)?;
    if !judged.is_dir() {
        return Err(Problem::refused(object, "is no directory, so it cannot be the root"));
    }
    // By descriptor: what was judged above is what becomes the root, wherever the path leads now.
    let clone = syscalls::clone_mount(directory.as_fd(), false).at(&object)?;
    OwnPath::root().attach(clone.as_fd(), MountPoint::Directory)?;
    root.directory = find_again(&root.directory, &new, &judged).at(&object)?;
    if let Some(old) = &pivot.old {
        // systemd-nspawn makes only the root itself read-only, not what is bound into it.
        let attributes = match plan.root.mode {
            Root::Plain | Root::Ephemeral(_) | Root::Volatile(Volatile::Overlay) => 0,
            Root::ReadOnly | Root::Volatile(_) => syscalls::READ_ONLY,
        };
        let clone = syscalls::clone_mount(handle.as_fd(), false).at(&object)?;
        syscalls::set_mount_attributes(clone.as_fd(), attributes, None).at(&object)?;
        let at = OwnPath::on_stage("old");
        at.attach(clone.as_fd(), MountPoint::Directory)?;
        extras.mount(at, old, MountPoint::Directory);
    }
    Ok(())
}

/// Finds the new root through the mount by which the root is made ready: in plain mode that is not
/// the one that becomes the root. A link that leads elsewhere by now would have one directory made
/// ready for systemd-nspawn, and another one given to it.
fn find_again(root: &OwnedFd, new: &Path, judged: &Metadata) -> io::Result<OwnedFd> {
    let found = open::in_root(root.as_fd(), new)?;
    let meta = open::metadata(&found)?;
    if (meta.dev(), meta.ino()) == (judged.dev(), judged.ino()) {
        return Ok(found);
    }
    Err(io::Error::other("was changed in the image while it was mounted"))
}

/// systemd-nspawn mounts `/usr` of the root by its name: a link would be one of the host's.
fn check_merged(plan: &Plan, root: &Mounted) -> Result<(), Problem> {
    let find = |name| {
        open::beneath(root.directory.as_fd(), Path::new(name), open::HANDLE, open::Mounts::Stay)
    };
    if let (Ok(usr), Err(_)) = (find("usr"), find("bin")) {
        return root.copy_up(&usr).at("/usr");
    }
    let reason = "volatile = \"yes\" takes /usr alone from the image: /usr must be a directory, \
                  and /bin a link into it or missing; use volatile = \"overlay\" for this image";
    Err(Problem::refused(&plan.image, reason))
}

/// Attaches a clone of the image's root on a new directory.
pub(super) fn attach(
    plan: &Plan,
    image: &Image,
    attributes: u64,
    map: Option<BorrowedFd<'_>>,
    at: &OwnPath,
) -> Result<(), Problem> {
    // Without what the host has mounted below the image. Attributes and ID mapping belong to the
    // clone alone; they are set before it is attached, and the kernel ID-maps no attached mount.
    let clone = syscalls::clone_mount(image.handle.as_fd(), false).at(&plan.image)?;
    attach_mount(plan, clone.as_fd(), attributes, map, at)
}

/// Attaches a mount that is attached nowhere yet on a new directory.
pub(super) fn attach_mount(
    plan: &Plan,
    mount: BorrowedFd<'_>,
    attributes: u64,
    map: Option<BorrowedFd<'_>>,
    at: &OwnPath,
) -> Result<(), Problem> {
    match syscalls::set_mount_attributes(mount, attributes, map) {
        Err(e) if map.is_some() && e.kind() == io::ErrorKind::InvalidInput => {
            let reason = "this kernel cannot ID-map the file system that it lies on";
            return Err(Problem::refused(&plan.image, reason));
        }
        other => other.at(&plan.image)?,
    }
    at.attach(mount, MountPoint::Directory)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "directories of the test's own")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_that_was_exchanged_under_its_name_is_not_made_ready() {
        let top = std::env::temp_dir().join(format!("nspawn-pivot-{}", std::process::id()));
        for name in ["one", "other"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        let lead = |to: &str| {
            drop(fs::remove_file(top.join("current")));
            symlink(to, top.join("current")).unwrap();
        };
        let root = open::directory(&top).unwrap();
        let new = Path::new("/current");
        lead("one");
        let judged = fs::metadata(top.join("one")).unwrap();
        let found = find_again(&root, new, &judged).unwrap();
        assert_eq!(open::metadata(&found).unwrap().ino(), judged.ino());
        lead("other");
        let error = find_again(&root, new, &judged).unwrap_err();
        assert!(error.to_string().contains("was changed"), "{error}");
        fs::remove_dir_all(top).unwrap();
    }
}
