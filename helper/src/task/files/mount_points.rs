//! Mount points inside other mounts, such as /local/cache below /local.
//!
//! In the root the image provides them. In a mount from the host they are made with the rights of
//! container root: nothing appears on the host that the payload could not have made itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use proto::path::{Absolute, Component};

use super::Context;
use crate::task::root::{self, Image, MountPoint};
use crate::task::step::{At, Problem};
use crate::task::{STAGE, open};

/// The folders that every task has from its allocation.
const TASK_DIRS: [&str; 3] = ["alloc", "local", "secrets"];

/// The innermost mount that a path lies below, as where it is on the stage, with the rest of the
/// path.
pub(super) fn above(
    context: &Context<'_>,
    path: &Absolute,
) -> Option<(Option<PathBuf>, Vec<Component>)> {
    let names = path.components();
    let mounts = context.targets.iter().filter_map(|mount| {
        let below = names.strip_prefix(mount.path.components())?;
        Some((mount.stage.clone(), below))
    });
    let task_dirs = TASK_DIRS.iter().filter_map(|dir| {
        let (first, below) = names.split_first()?;
        (first.as_str() == *dir).then(|| (Some(Path::new(STAGE).join(dir)), below))
    });
    let all = mounts.chain(task_dirs).filter(|(_, below)| !below.is_empty());
    all.min_by_key(|(_, below)| below.len()).map(|(stage, below)| (stage, below.to_vec()))
}

/// Makes what is missing for every target.
pub(super) fn provide_all(context: &Context<'_>, image: &Image) -> Result<(), Problem> {
    for target in &context.targets {
        match above(context, &target.path) {
            None => {
                image.provide(&target.path, target.kind)?;
                check_kind(&target.path, target.kind)?;
            }
            // systemd-nspawn can make them in what it mounts itself.
            Some((None, _)) => {}
            Some((Some(stage), below)) => {
                let user = context.plan.users.map_or(0, |range| range.base);
                // The stage itself is closed to everybody else.
                let top = open::folder(&stage).at(stage.display())?;
                as_user(user, || make(&top, &below, target.kind)).map_err(|e| {
                    Problem::refused(
                        &target.path,
                        format!(
                            "cannot be made as a mount point in the mount around it ({e}): make \
                             it there beforehand"
                        ),
                    )
                })?;
            }
        }
    }
    Ok(())
}

/// systemd-nspawn cannot mount a file on a folder or a folder on a file, and says so to the journal
/// alone.
fn check_kind(path: &Absolute, kind: MountPoint) -> Result<(), Problem> {
    let root = open::folder(&root::path()).at("root")?;
    let found = open::in_root(root.as_fd(), &path.to_path()).and_then(|h| open::metadata(&h));
    let is = |folder| if folder { "folder" } else { "file" };
    match found {
        Ok(meta) if meta.is_dir() != (kind == MountPoint::Folder) => Err(Problem::refused(
            path,
            format!("is a {} in the image, the mount a {}", is(meta.is_dir()), is(!meta.is_dir())),
        )),
        // systemd-nspawn makes what is missing; what else is wrong is its to say.
        _ => Ok(()),
    }
}

/// Runs an action with a user's rights on files. The capabilities over files go and come back with
/// the user (capabilities(7)).
fn as_user<T>(id: u32, action: impl FnOnce() -> T) -> T {
    let (gid, uid) = (setfsgid(Gid::from_raw(id)), setfsuid(Uid::from_raw(id)));
    let result = action();
    setfsuid(uid);
    setfsgid(gid);
    result
}

fn make(top: &OwnedFd, names: &[Component], kind: MountPoint) -> io::Result<()> {
    let mut parent: OwnedFd = top.try_clone()?;
    let mut below = PathBuf::new();
    for (index, name) in names.iter().enumerate() {
        let name = Path::new(name.as_str());
        below.push(name);
        let kind = if index + 1 == names.len() { kind } else { MountPoint::Folder };
        let found = open::beneath(top.as_fd(), &below, OFlag::O_PATH, open::Mounts::Cross);
        parent = match found {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_one(&parent, name, kind)?;
                open::beneath(top.as_fd(), &below, OFlag::O_PATH, open::Mounts::Cross)?
            }
            other => other?,
        };
    }
    Ok(())
}

fn make_one(parent: &OwnedFd, name: &Path, kind: MountPoint) -> io::Result<()> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(match kind {
        MountPoint::Folder => mkdirat(parent, name, Mode::from_bits_truncate(0o755)),
        MountPoint::File => openat(parent, name, flags, Mode::from_bits_truncate(0o644)).map(drop),
    }?)
}
