//! The task's directories at /alloc, /local and /secrets.
//!
//! With the identity mapping (container uid n is disk uid n) a payload can leave a root-owned
//! set-uid file on the host's disk. So a directory is mapped that way only when no other local user
//! can make use of such a file ([`open::is_protected`]). Otherwise its files belong to ids that no
//! account of the host has, the same ones for every task, so that a later allocation can read the
//! data it takes over. /secrets is protected where Nomad's agent is root: it mounts them noexec.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proto::limits::{DISK_FIRST, RANGE_WIDTH};
use proto::plan::{Plan, Range, TaskDirs};

use super::namespaces;
use super::open::{self, Mounts};
use super::prepared::{Extras, MountPoint};
use super::stage::OwnPath;
use super::step::{At, Problem};
use kernel::syscalls;

/// Names of the directories inside, and of their mounts on the stage.
const NAMES: [&str; 3] = ["alloc", "local", "secrets"];

/// The ids that files have on disk where other local users can reach them.
pub(super) const ON_DISK: Range = Range { base: DISK_FIRST, width: RANGE_WIDTH };

/// Most entries of a directory whose owners are looked at.
const LOOKED_AT: usize = 1000;

struct Dir {
    name: &'static str,
    path: PathBuf,
    handle: OwnedFd,
}

/// Mounts the three directories on the stage.
pub(super) fn mount_all(
    plan: &Plan,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<(), Problem> {
    let all = open_all(&plan.task_dirs)?;
    check_secrets(plan, &all, extras)?;
    let mut remarked = false;
    for dir in all {
        let is_protected = open::is_protected(dir.handle.as_fd()).at(dir.path.display())?;
        let map = match (plan.users, users) {
            (Some(_), Some(users)) if is_protected => {
                Some(users.try_clone_to_owned().at("user namespace")?)
            }
            (Some(range), Some(_)) => Some(namespaces::swapping_namespace(ON_DISK, range)?),
            _ => None,
        };
        // A mount of its own, because the attributes below are a mount's. Not recursive: what the
        // host has mounted below is not the task's.
        let clone = syscalls::clone_mount(dir.handle.as_fd(), false).at(dir.path.display())?;
        let map = set_attributes(&dir, &clone, map.as_ref(), extras)?;
        if map.is_some() && is_protected {
            remark_files_of_open_times(&dir, extras)?;
        } else if map.is_some() && !remarked {
            remarked = true;
            extras.notes.push(open_to_others(plan));
        }
        let at = OwnPath::on_stage(dir.name);
        at.attach(clone.as_fd(), MountPoint::Directory)?;
        if dir.name == NAMES[0] {
            close_logs(&dir, &clone, map)?;
        }
        extras.mount_own(at, dir.name).map_err(|e| Problem::refused(dir.name, e))?;
    }
    Ok(())
}

/// Restricts a clone and maps it; returns the mapping that it has.
fn set_attributes<'a>(
    dir: &Dir,
    clone: &OwnedFd,
    map: Option<&'a OwnedFd>,
    extras: &mut Extras,
) -> Result<Option<BorrowedFd<'a>>, Problem> {
    let mut attributes = syscalls::NO_DEV | syscalls::NO_SUID;
    let is_secrets = dir.name == "secrets";
    if is_secrets {
        attributes |= syscalls::NO_EXEC;
    }
    let map = map.map(AsFd::as_fd);
    // While the clone is detached: nothing sees it without its attributes, and the kernel ID-maps
    // no other.
    let set = |map| syscalls::set_mount_attributes(clone.as_fd(), attributes, map);
    match set(map) {
        Err(e) if map.is_some() && e.kind() == io::ErrorKind::InvalidInput => {}
        other => return other.map(|()| map).at(dir.path.display()),
    }
    // Without the map, but never without the attributes.
    set(None).at(dir.path.display())?;
    extras.notes.push(if is_secrets {
        "this kernel cannot ID-map the file system of /secrets (a tmpfs needs Linux 6.3): files in \
         it that are not readable by everybody cannot be read inside"
            .to_owned()
    } else {
        format!(
            "/{}: this kernel cannot ID-map the file system of {}: files of the task belong to the \
             uid range of its allocation, so the next allocation of a sticky or migrated \
             ephemeral_disk cannot read those that are not readable by everybody; nor can the task \
             read such files of Nomad's",
            dir.name,
            dir.path.display()
        )
    });
    Ok(None)
}

/// What a task cannot read where other local users can reach its directories.
fn open_to_others(plan: &Plan) -> String {
    format!(
        "{}: no directory above it is closed (root's, 0700) and its mount is not nosuid, so files \
         of tasks belong to uids from {DISK_FIRST} on the host; files that Nomad writes to /alloc \
         and /local show as nobody's, and those with mode 0600 cannot be read inside",
        plan.task_dirs.alloc_dir
    )
}

/// Remarks on files that a task wrote while other local users could reach the directory: the
/// identity mapping shows them as nobody's.
fn remark_files_of_open_times(dir: &Dir, extras: &mut Extras) -> Result<(), Problem> {
    // What Nomad moves to the next allocation (ephemeral_disk).
    let kept = match dir.name {
        "alloc" => "data",
        "local" => ".",
        _ => return Ok(()),
    };
    let flags = open::HANDLE;
    let found = open::beneath(dir.handle.as_fd(), Path::new(kept), flags, Mounts::Stay);
    let Some(kept_dir) = open::if_there(found).at(dir.path.display())? else { return Ok(()) };
    let entries = OwnPath::of_handle(&kept_dir).entries().at(dir.path.display())?;
    for entry in entries.take(LOOKED_AT).filter_map(Result::ok) {
        // It may have been removed in the meantime.
        let Ok(meta) = entry.metadata() else { continue };
        if ON_DISK.holds(meta.uid()) {
            let path = dir.path.join(kept).join(entry.file_name());
            let path: PathBuf = path.components().collect();
            extras.notes.push(format!(
                "{} belongs to uid {} on the host: it was written where other local users could \
                 reach the directory, and shows as nobody's now; chown it to uid {}, which it \
                 had inside",
                path.display(),
                meta.uid(),
                meta.uid() - DISK_FIRST
            ));
            return Ok(());
        }
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
    let clone = syscalls::clone_mount(logs.as_fd(), false).at(object.display())?;
    let attributes = syscalls::NO_DEV | syscalls::NO_SUID | syscalls::NO_EXEC | syscalls::READ_ONLY;
    syscalls::set_mount_attributes(clone.as_fd(), attributes, map).at(object.display())?;
    // Found in the clone that the container gets, where the mount must lie.
    let point = open(attached).at(object.display())?;
    syscalls::attach_mount(clone.as_fd(), point.as_fd()).at(object.display())
}

/// The opened directories, for the tests.
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
        Ok(Dir { name, path, handle })
    };
    let alloc = open_one(NAMES[0], PathBuf::from("alloc"), Mounts::Stay)?;
    let local = open_one(NAMES[1], task.join("local"), Mounts::Stay)?;
    let secrets = open_one(NAMES[2], task.join("secrets"), Mounts::Cross)?;
    Ok([alloc, local, secrets])
}

/// An agent that is root mounts a tmpfs for secrets. Where it is not seen, either it is in a mount
/// namespace of the agent's, and the task would see an empty directory; or there is none, and the
/// agent itself writes to the disk.
fn check_secrets(plan: &Plan, all: &[Dir; 3], extras: &mut Extras) -> Result<(), Problem> {
    let [_, local, secrets] = all;
    if plan.task_dirs.agent_uid != 0 || device(secrets)? != device(local)? {
        return Ok(());
    }
    let refused = |reason| Err(Problem::refused(secrets.path.display(), reason));
    match plan.agent.map(namespaces::is_in_hosts_mount_namespace).transpose()? {
        Some(true) => {
            extras.notes.push(format!(
                "secrets lie on disk, in {}, not in memory: Nomad does not mount their tmpfs again \
                 after a reboot of the host (hashicorp/nomad#28274); a new allocation has one \
                 (nomad alloc stop)",
                secrets.path.display()
            ));
            Ok(())
        }
        Some(false) => refused(
            "is no mount here: the Nomad agent runs in a private mount namespace, so the task \
             would see empty secrets; take PrivateTmp=, ProtectHome=, ProtectSystem= and the like out \
             of the agent's unit",
        ),
        None => refused(
            "is no mount here, and whether the Nomad agent runs in a private mount namespace \
             cannot be seen: the plugin has outlived the agent that started it; kill the plugin's \
             process, and the agent starts it again",
        ),
    }
}

fn device(dir: &Dir) -> Result<u64, Problem> {
    Ok(open::metadata(&dir.handle).at(dir.path.display())?.dev())
}
