//! An overlay over the read-only image.
//!
//! The lower layer is ID-mapped; an upper layer cannot be (the overlay would come up read-only), so
//! it belongs to the task's range on disk.

use std::fs::{self, Permissions};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount as mount_fs};
use nix::sys::statvfs::{FsFlags, statvfs};
use proto::plan::Plan;
use proto::spec::{Layer, Root, Volatile};

use super::{Image, Provider, attach, container_root, kept, make_folder, stage, upper};
use crate::sys;
use crate::task::open;
use crate::task::step::{At, Problem};

/// Options of an upper layer in memory: as much of the host's as systemd-nspawn gives its own
/// volatile roots. It counts as the task's memory.
const MEMORY: &str = "mode=0700,size=25%";

/// Mounts it at `at`.
pub(super) fn mount(
    plan: &Plan,
    image: &Image,
    map: Option<BorrowedFd<'_>>,
    at: &Path,
) -> Result<Provider, Problem> {
    // It stays on the stage, which the container does not see: an unmount waits for RCU.
    let lower = stage("lower");
    attach(plan, image, sys::NO_DEV | sys::READ_ONLY, map, &lower)?;
    let shift = if map.is_some() { container_root(plan) } else { 0 };
    let layers = layers(plan, image, shift)?;
    make_folder(at, 0o755)?;
    // An index lets the kernel refuse a second mount of a layer that is in use. "volatile" is for
    // layers that are never used twice: nothing is gained by syncing them.
    let kept = plan.root.mode == Root::Ephemeral(Layer::Kept);
    let options = format!(
        "lowerdir={},upperdir={layers}/upper,workdir={layers}/work,metacopy=off,{}",
        lower.display(),
        if kept { "index=on" } else { "index=off,volatile" },
        layers = layers.display(),
    );
    match mount_fs(Some("overlay"), at, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()))
    {
        Err(Errno::EBUSY) if kept => return Err(kept::refused(plan, "is in use by another run")),
        Err(Errno::ESTALE) if kept => {
            return Err(kept::refused(plan, "was made over another image than today's"));
        }
        other => other.at(format!("overlay over {}", plan.image))?,
    }
    // An overlay whose work folder cannot be used mounts read-only without an error.
    if statvfs(at).at(at.display())?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Problem::refused(
            layers.display(),
            "the overlay came up read-only: this file system cannot hold an upper layer",
        ));
    }
    let root = open::folder(at).at(at.display())?;
    Ok(Provider { root, owner: container_root(plan) })
}

/// The folder that holds the upper layer and the kernel's work folder.
fn layers(plan: &Plan, image: &Image, shift: u32) -> Result<PathBuf, Problem> {
    let make = |folder: PathBuf| make_layers(folder, image, shift);
    let memory = stage("layer");
    match plan.root.mode {
        Root::Ephemeral(Layer::Disk) => make(upper(plan.unit)),
        Root::Ephemeral(Layer::Kept) => kept::find_or_make(plan, make),
        Root::Ephemeral(Layer::Memory) | Root::Volatile(Volatile::Overlay) => {
            make_folder(&memory, 0o700)?;
            let flags = MsFlags::MS_NODEV;
            mount_fs(Some("tmpfs"), &memory, Some("tmpfs"), flags, Some(MEMORY))
                .at(memory.display())?;
            make(memory.join("layers"))
        }
        // A few mount points: the stage itself has room for them.
        Root::Plain | Root::ReadOnly | Root::Volatile(Volatile::Yes | Volatile::State) => {
            make(memory)
        }
    }
}

fn make_layers(folder: PathBuf, image: &Image, shift: u32) -> Result<PathBuf, Problem> {
    make_folder(&folder, 0o700)?;
    for name in ["upper", "work"] {
        let layer = folder.join(name);
        make_folder(&layer, 0o755)?;
        fs::set_permissions(&layer, Permissions::from_mode(image.mode)).at(layer.display())?;
        let (uid, gid) = (shift.saturating_add(image.uid), shift.saturating_add(image.gid));
        chown(&layer, Some(uid), Some(gid)).at(layer.display())?;
    }
    Ok(folder)
}
