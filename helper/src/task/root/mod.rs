//! The container's root: the image as an ID-mapped clone, or an overlay over one.
//!
//! The cost does not depend on the image's size: nothing of it is copied or re-owned.

use std::fs::{self, DirBuilder, Permissions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statvfs::{FsFlags, statvfs};
use proto::limits::RANGE_WIDTH;
use proto::plan::{Place, Plan};
use proto::spec::Root;

use super::step::{At, Problem};
use super::{STAGE, open, upper};
use crate::sys;

mod provide;

pub(super) use provide::MountPoint;
use provide::Provider;

/// Folders that systemd-nspawn or we mount on; it cannot create them in an ID-mapped root.
const MOUNT_POINTS: [&str; 10] =
    ["dev", "proc", "sys", "run", "tmp", "var", "etc", "alloc", "local", "secrets"];

/// The opened image.
#[derive(Debug)]
pub(super) struct Image {
    handle: OwnedFd,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Name of systemd-nspawn's lock file for it.
    lock: String,
    /// Set where systemd-nspawn could not make mount points itself.
    provider: Option<Provider>,
}

/// Where systemd-nspawn finds the root.
pub(super) fn path() -> PathBuf {
    Path::new(STAGE).join("root")
}

/// Opens the image and checks that it is one.
pub(super) fn open_image(place: &Place) -> Result<Image, Problem> {
    let handle = open::place(place, open::HANDLE).at(place)?;
    let meta = open::metadata(&handle).at(place)?;
    if meta.uid() >= RANGE_WIDTH {
        return Err(Problem::refused(
            place,
            format!(
                "the image's root belongs to uid {}: an older driver shifted its owners; \
                 make a fresh copy of the image, or shift it back with \
                 systemd-nspawn --private-users=0 --private-users-ownership=chown",
                meta.uid()
            ),
        ));
    }
    let lock = format!("inode-{}:{}", meta.dev(), meta.ino());
    Ok(Image {
        handle,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        lock,
        provider: None,
    })
}

/// Mounts the root at [`path`].
pub(super) fn mount_root(
    plan: &Plan,
    image: &mut Image,
    users: Option<BorrowedFd<'_>>,
) -> Result<(), Problem> {
    match plan.root.mode {
        Root::Plain => mount_plain(plan, image, users),
        Root::Ephemeral(_) => mount_overlay(plan, image, users),
        Root::ReadOnly | Root::Volatile(_) => Err(Problem::refused(&plan.image, "not yet")),
    }
}

fn attach(
    plan: &Plan,
    image: &Image,
    attributes: u64,
    users: Option<BorrowedFd<'_>>,
    at: &Path,
) -> Result<(), Problem> {
    let clone = sys::clone_mount(image.handle.as_fd()).at(&plan.image)?;
    sys::set_mount_attributes(clone.as_fd(), attributes, users).at(&plan.image)?;
    attach_at(clone.as_fd(), at)
}

/// Attaches a detached mount on a new folder.
pub(super) fn attach_at(mount: BorrowedFd<'_>, at: &Path) -> Result<(), Problem> {
    make_folder(at, 0o755)?;
    let target = open::folder(at).at(at.display())?;
    sys::attach_mount(mount, target.as_fd()).at(at.display())
}

fn mount_plain(
    plan: &Plan,
    image: &mut Image,
    users: Option<BorrowedFd<'_>>,
) -> Result<(), Problem> {
    if users.is_some() && !open::is_protected(image.handle.as_fd()).at(&plan.image)? {
        return Err(Problem::refused(
            &plan.image,
            "a writable image must lie behind a folder that is root's and 0700, or on a nosuid \
             mount: a set-uid file made inside would be host root's for every local user; \
             chmod 0700 the image store, or use ephemeral = true",
        ));
    }
    for name in MOUNT_POINTS {
        match mkdirat(&image.handle, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e).at(format!("{}/{name}", plan.image)),
        }
    }
    // A killed systemd-nspawn leaves its lock file behind: `clean` learns the name from here.
    let folder = upper(plan.unit);
    make_folder(&folder, 0o700)?;
    fs::write(folder.join(&image.lock), "").at(folder.display())?;
    // A clone without mapping, and without what is mounted below the image on the host.
    let root = sys::clone_mount(image.handle.as_fd()).at(&plan.image)?;
    image.provider = Some(Provider { root, owner: 0 });
    attach(plan, image, sys::NO_DEV, users, &path())
}

fn mount_overlay(plan: &Plan, image: &Image, users: Option<BorrowedFd<'_>>) -> Result<(), Problem> {
    let lower = Path::new(STAGE).join("lower");
    attach(plan, image, sys::NO_DEV | sys::READ_ONLY, users, &lower)?;
    let base = plan.users.map_or(0, |range| range.base);
    let folder = upper(plan.unit);
    make_folder(&folder, 0o700)?;
    for name in ["upper", "work"] {
        let layer = folder.join(name);
        make_folder(&layer, 0o755)?;
        fs::set_permissions(&layer, Permissions::from_mode(image.mode)).at(layer.display())?;
        let (uid, gid) = (base.saturating_add(image.uid), base.saturating_add(image.gid));
        chown(&layer, Some(uid), Some(gid)).at(layer.display())?;
    }
    let root = path();
    make_folder(&root, 0o755)?;
    // volatile: an upper layer is never used twice, so nothing is gained by syncing it.
    let options = format!(
        "lowerdir={},upperdir={}/upper,workdir={}/work,index=off,metacopy=off,volatile",
        lower.display(),
        folder.display(),
        folder.display()
    );
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
        .at(format!("overlay over {}", plan.image))?;
    // An overlay whose work folder cannot be used mounts read-only without an error.
    if statvfs(&root).at(root.display())?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Problem::refused(
            folder.display(),
            "the overlay came up read-only: this file system cannot hold an upper layer",
        ));
    }
    umount2(&lower, MntFlags::MNT_DETACH).at(lower.display())
}

/// Makes a folder with exactly this mode.
fn make_folder(path: &Path, mode: u32) -> Result<(), Problem> {
    DirBuilder::new().mode(mode).create(path).at(path.display())?;
    fs::set_permissions(path, Permissions::from_mode(mode)).at(path.display())
}
