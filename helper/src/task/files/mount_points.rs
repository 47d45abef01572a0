//! Mount points inside other mounts, such as /local/cache below /local.
//!
//! In the root the image provides them. In a mount from the host they are made with the rights of
//! container root: nothing appears on the host that the payload could not have made itself.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use proto::path::{Absolute, Component};

use super::Context;
use crate::task::root::make_path;
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
pub(super) fn provide_all(context: &Context<'_>) -> Result<(), Problem> {
    for target in &context.targets {
        match above(context, &target.path) {
            None => context.root.provide(&target.path, target.kind)?,
            // systemd-nspawn can make them in what it mounts itself.
            Some((None, _)) => {}
            Some((Some(stage), below)) => {
                // The stage itself is closed to everybody else.
                let top = open::folder(&stage).at(stage.display())?;
                let find = |path: &Path| {
                    open::beneath(top.as_fd(), path, OFlag::O_PATH, open::Mounts::Cross)
                };
                let make = || make_path(&top, &below, target.kind, None, find);
                as_user(context.plan.container_root(), make).map_err(|problem| {
                    let reason = format!(
                        "cannot be made as a mount point in the mount around it ({}): make \
                         it there beforehand",
                        problem.reason()
                    );
                    Problem::refused(&target.path, reason)
                })?;
            }
        }
    }
    Ok(())
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
