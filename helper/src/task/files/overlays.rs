//! Overlay mounts of the host's folders.
//!
//! A finished overlay cannot be ID-mapped and neither can an upper layer, but lower layers can: so
//! the lower ones show their owners on disk as the container's, and what is written belongs to the
//! container's range on disk. Container root is therefore never an account of the host there.

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};
use proto::plan::Place;
use proto::spec::files::{self, Upper};

use super::source::Source;
use super::{Context, How, attach};
use crate::task::namespace::Owner;
use crate::task::open::{self, Mounts};
use crate::task::overlay::{self, Overlay};
use crate::task::root::MountPoint;
use crate::task::step::{At, Problem};
use crate::task::{STAGE, upper};

/// Prepares all of them.
pub(super) fn mount_all(context: &mut Context<'_>) -> Result<(), Problem> {
    for (number, overlay) in context.plan.files.overlays.iter().enumerate() {
        let name = format!("overlay{number}");
        let at = Path::new(STAGE).join(&name);
        let lower = lower_layers(context, overlay, &at)?;
        // Held open until the mount: the paths name descriptors.
        let (upper, _handles) = upper_layer(context, overlay, &name)?.unzip();
        let read_only = upper.is_none();
        mount_one(overlay, &lower, upper, &at)?;
        let how = How { read_only, recursive: false };
        context.bind(at, &overlay.target, MountPoint::Folder, how);
    }
    Ok(())
}

/// Attaches the lower layers on the stage, lowest first.
fn lower_layers(
    context: &mut Context<'_>,
    overlay: &files::Overlay<Place>,
    at: &Path,
) -> Result<Vec<PathBuf>, Problem> {
    let mut all = Vec::new();
    for (number, place) in overlay.lower.iter().enumerate() {
        let source = Source::open_folder(place)?;
        let clone = source.clone(true, false)?;
        if let Some(users) = context.users
            && !source.map(&clone, &users)?
        {
            context.extras.notes.push(format!(
                "overlay layer {place}: this kernel cannot ID-map its file system: its owners \
                 show as nobody"
            ));
        }
        let layer = at.with_extension(format!("lower{number}"));
        attach(clone.as_fd(), &layer, MountPoint::Folder, false)?;
        all.push(layer);
    }
    Ok(all)
}

fn upper_layer(
    context: &Context<'_>,
    overlay: &files::Overlay<Place>,
    name: &str,
) -> Result<Option<(overlay::Upper, [OwnedFd; 2])>, Problem> {
    let (folder, volatile) = match &overlay.upper {
        Upper::ReadOnly => return Ok(None),
        Upper::Ephemeral => {
            let folder = upper(context.plan.unit);
            for folder in [&folder, &folder.join(name)] {
                match fs::create_dir(folder) {
                    Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                    other => other.at(folder.display())?,
                }
                fs::set_permissions(folder, Permissions::from_mode(0o700)).at(folder.display())?;
            }
            (folder.join(name), true)
        }
        Upper::Folder(place) => (attach_upper(place, name)?, false),
    };
    // Its root looks like that of the topmost layer.
    let top = overlay.lower.last().ok_or_else(|| no_layer(overlay))?;
    let top = open::metadata(&open::place(top, open::HANDLE).at(top)?).at(top)?;
    let shift = |id: u32| context.plan.container_root().saturating_add(id);
    let owner = Owner { uid: shift(top.uid()), gid: shift(top.gid()) };
    let folder = open::folder(&folder).at(folder.display())?;
    let ids = context.plan.users.map(|range| range.base..range.base.saturating_add(range.width));
    let layer = |name| layer(&folder, name, owner, top.mode(), ids.as_ref(), overlay);
    let handles = [layer("upper")?, layer("work")?];
    let [upper, work] = handles.each_ref().map(|handle| open::link(handle.as_fd()));
    Ok(Some((overlay::Upper { upper, work, volatile }, handles)))
}

fn no_layer(overlay: &files::Overlay<Place>) -> Problem {
    Problem::refused(format!("overlay {}", overlay.target), "needs at least one lower layer")
}

/// Attaches a host's folder for changes on the stage.
fn attach_upper(place: &Place, name: &str) -> Result<PathBuf, Problem> {
    let source = Source::open_folder(place)?;
    if !source.is_protected(false)? {
        return Err(Problem::refused(
            place,
            "an overlay's changes must lie where no other local user can reach them: chmod 0700 \
             a folder of root's above it, or mount it nosuid",
        ));
    }
    let clone = source.clone(false, false)?;
    let at = Path::new(STAGE).join(format!("{name}.upper"));
    attach(clone.as_fd(), &at, MountPoint::Folder, false)?;
    Ok(at)
}

/// Makes a folder of the upper layer, or takes it from an earlier task with the same ids.
fn layer(
    folder: &OwnedFd,
    name: &str,
    owner: Owner,
    mode: u32,
    ids: Option<&std::ops::Range<u32>>,
    overlay: &files::Overlay<Place>,
) -> Result<OwnedFd, Problem> {
    let object = || format!("overlay {}: {name}", overlay.target);
    let made = match mkdirat(folder, name, Mode::S_IRWXU) {
        Err(Errno::EEXIST) => false,
        other => other.map(|()| true).at(object())?,
    };
    let layer =
        open::beneath(folder.as_fd(), Path::new(name), open::HANDLE, Mounts::Stay).at(object())?;
    if made {
        let path = open::link(layer.as_fd());
        chown(&path, Some(owner.uid), Some(owner.gid)).at(object())?;
        fs::set_permissions(&path, Permissions::from_mode(mode & 0o7777)).at(object())?;
        return Ok(layer);
    }
    let uid = open::metadata(&layer).at(object())?.uid();
    if ids.is_none_or(|ids| ids.contains(&uid)) {
        return Ok(layer);
    }
    Err(Problem::refused(
        object(),
        format!(
            "was written by a task with other ids (its owner is {uid}): an overlay's changes \
             belong to the ids of the task that made them; give the task a fixed range \
             (private_users), or begin with an empty folder"
        ),
    ))
}

fn mount_one(
    overlay: &files::Overlay<Place>,
    lower: &[PathBuf],
    upper: Option<overlay::Upper>,
    at: &Path,
) -> Result<(), Problem> {
    fs::create_dir(at).at(at.display())?;
    if let ([only], None) = (lower, &upper) {
        // The kernel wants two layers in a read-only overlay.
        return mount(Some(only), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .at(at.display());
    }
    let overlay = Overlay {
        object: format!("overlay {}", overlay.target),
        lower,
        upper,
        flags: MsFlags::MS_NOSUID,
        stale: "its changes were made over other lower layers than today's: begin with an empty \
                folder",
    };
    overlay.mount(at)
}
