//! The task's folders at /alloc, /local and /secrets.
//!
//! With the identity mapping (container uid n is disk uid n) a payload can leave a root-owned
//! set-uid file on the host's disk. So a folder is mapped only when no other local user can make
//! use of such a file ([`open::is_protected`]); else its files belong to the allocation's uid
//! range. /secrets is one of them where Nomad's agent is root: it mounts them noexec.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proto::path::Absolute;
use proto::plan::{Plan, TaskDirs};

use super::STAGE;
use super::extras::{Extras, MountPoint};
use super::namespace;
use super::open::{self, Mounts};
use super::root::attach_at;
use super::step::{At, Problem};
use crate::sys;

/// Names of the folders inside, and of their mounts on the stage.
const NAMES: [&str; 3] = ["alloc", "local", "secrets"];

struct Dir {
    name: &'static str,
    path: PathBuf,
    handle: OwnedFd,
    secrets: bool,
}

/// Mounts the three folders on the stage.
pub(super) fn mount_all(
    plan: &Plan,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<(), Problem> {
    let all = open_all(&plan.task_dirs)?;
    check_secrets(plan, &all, extras)?;
    for dir in all {
        let map = match users {
            Some(users) if is_protected(&dir)? => Some(users),
            _ => None,
        };
        let mut attributes = sys::NO_DEV | sys::NO_SUID;
        if dir.secrets {
            attributes |= sys::NO_EXEC;
        }
        let clone = sys::clone_mount(dir.handle.as_fd(), false).at(dir.path.display())?;
        match sys::set_mount_attributes(clone.as_fd(), attributes, map) {
            Ok(()) => {}
            // Before Linux 6.3 a tmpfs cannot be ID-mapped.
            Err(e) if dir.secrets && e.kind() == io::ErrorKind::InvalidInput => {
                sys::set_mount_attributes(clone.as_fd(), attributes, None)
                    .at(dir.path.display())?;
                extras.notes.push(
                    "this kernel cannot ID-map a tmpfs (Linux 6.3 can): files in /secrets that \
                     are not readable by everybody cannot be read inside"
                        .to_owned(),
                );
            }
            Err(e) => return Err(e).at(dir.path.display()),
        }
        let at = Path::new(STAGE).join(dir.name);
        attach_at(clone.as_fd(), &at, MountPoint::Folder)?;
        if dir.name == NAMES[0] {
            close_logs(&dir, &clone, map)?;
        }
        let target = Absolute::parse(&format!("/{}", dir.name));
        extras.mount(at, &target.map_err(|e| Problem::refused(dir.name, e))?, MountPoint::Folder);
    }
    Ok(())
}

/// Makes /alloc/logs read-only: Nomad's log collector, which is host root, opens and makes files in
/// it by their names, and follows links there. FIFOs can be written to all the same.
fn close_logs(alloc: &Dir, attached: &OwnedFd, map: Option<BorrowedFd<'_>>) -> Result<(), Problem> {
    let object = alloc.path.join("logs");
    let open =
        |top: &OwnedFd| open::beneath(top.as_fd(), Path::new("logs"), open::HANDLE, Mounts::Stay);
    let logs = open(&alloc.handle).at(object.display())?;
    let clone = sys::clone_mount(logs.as_fd(), false).at(object.display())?;
    let attributes = sys::NO_DEV | sys::NO_SUID | sys::NO_EXEC | sys::READ_ONLY;
    sys::set_mount_attributes(clone.as_fd(), attributes, map).at(object.display())?;
    let point = open(attached).at(object.display())?;
    sys::attach_mount(clone.as_fd(), point.as_fd()).at(object.display())
}

fn is_protected(dir: &Dir) -> Result<bool, Problem> {
    open::is_protected(dir.handle.as_fd()).at(dir.path.display())
}

/// The opened folders, for the door.
#[cfg(feature = "test-door")]
pub(super) fn handles(dirs: &TaskDirs) -> Result<[OwnedFd; 3], Problem> {
    open_all(dirs).map(|all| all.map(|dir| dir.handle))
}

fn open_all(dirs: &TaskDirs) -> Result<[Dir; 3], Problem> {
    let alloc_dir = open::place(&dirs.alloc_dir, open::HANDLE).at(&dirs.alloc_dir)?;
    let base = dirs.alloc_dir.to_path();
    let task = Path::new(dirs.task.as_str());
    let open_one = |name, below: PathBuf, mounts| -> Result<Dir, Problem> {
        let path = base.join(&below);
        let handle =
            open::beneath(alloc_dir.as_fd(), &below, open::HANDLE, mounts).at(path.display())?;
        Ok(Dir { name, path, handle, secrets: name == "secrets" })
    };
    let alloc = open_one(NAMES[0], PathBuf::from("alloc"), Mounts::Stay)?;
    let local = open_one(NAMES[1], task.join("local"), Mounts::Stay)?;
    let secrets = open_one(NAMES[2], task.join("secrets"), Mounts::Cross)?;
    Ok([alloc, local, secrets])
}

/// An agent that is root mounts a tmpfs for secrets. Where it is not seen, either it is in a mount
/// namespace of the agent's, and the task would see an empty directory; or there is none, and the agent
/// itself writes to the disk.
fn check_secrets(plan: &Plan, all: &[Dir; 3], extras: &mut Extras) -> Result<(), Problem> {
    let [_, local, secrets] = all;
    if plan.task_dirs.agent_uid != 0 || device(secrets)? != device(local)? {
        return Ok(());
    }
    let refused = |reason| Err(Problem::refused(secrets.path.display(), reason));
    match plan.agent.map(namespace::is_in_hosts_mount_namespace).transpose()? {
        Some(true) => {
            extras.notes.push(format!(
                "secrets lie on disk, in {}, not in memory: Nomad does not mount their tmpfs again \
                 after a reboot of the host (hashicorp/nomad#28274); a new allocation has one (nomad \
                 alloc stop)",
                secrets.path.display()
            ));
            Ok(())
        }
        Some(false) => refused(
            "is no mount here: the Nomad agent runs in a private mount namespace, so the task would \
             see empty secrets; take PrivateTmp=, ProtectHome=, ProtectSystem= and the like out of \
             the agent's unit",
        ),
        None => refused(
            "is no mount here, and whether the Nomad agent runs in a private mount namespace cannot \
             be seen: the plugin has outlived the agent that started it; kill the plugin's process, \
             and the agent starts it again",
        ),
    }
}

fn device(dir: &Dir) -> Result<u64, Problem> {
    Ok(open::metadata(&dir.handle).at(dir.path.display())?.dev())
}
