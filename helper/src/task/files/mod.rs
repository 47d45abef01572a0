//! Files of the host in the container: binds, file systems in memory, overlays, hidden paths,
//! devices, credentials.
//!
//! Places come from the policy and are opened beneath their roots without following any link; what
//! is mounted is a clone made from that descriptor, never from a path. Everything lies on the
//! stage, so it goes with the task's mount namespace; only an ephemeral overlay's upper layer lies
//! on disk, where `clean` takes it away.
//!
//! Never gives the payload a device node or a set-uid program of the host through a mount, and
//! never writes to the host beyond mount points that container root could have made itself.

mod binds;
pub(super) mod credentials;
mod devices;
mod mount_points;
mod overlays;
mod source;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use proto::path::Absolute;
use proto::plan::Plan;
use proto::spec::files::Tmpfs;

use super::extras::{Extras, escape};
use super::root::{MountPoint, Mounted, attach_at};
use super::step::{At, Problem};
use super::{open, root};
use crate::sys;

/// What every part needs, and what they leave behind.
struct Context<'a> {
    plan: &'a Plan,
    users: Option<BorrowedFd<'a>>,
    root: &'a Mounted,
    extras: &'a mut Extras,
    targets: Vec<Target>,
}

/// Something that systemd-nspawn will mount.
struct Target {
    path: Absolute,
    kind: MountPoint,
    /// Where it lies on the stage; `None`: systemd-nspawn makes it.
    stage: Option<PathBuf>,
}

/// Prepares everything on the stage.
pub(super) fn prepare(
    plan: &Plan,
    root: &Mounted,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<(), Problem> {
    let mut context = Context { plan, users, root, extras, targets: Vec::new() };
    binds::mount_all(&mut context)?;
    overlays::mount_all(&mut context)?;
    devices::make_all(&mut context)?;
    for tmpfs in &plan.files.tmpfs {
        let path = tmpfs.target.clone();
        context.targets.push(Target { path, kind: MountPoint::Folder, stage: None });
        context.extras.arguments.push(tmpfs_option(tmpfs));
    }
    mount_points::provide_all(&context)?;
    credentials::load_all(&mut context)?;
    hide_all(&mut context)
}

/// systemd-nspawn gives up on a path that is not there; what can be seen of that is said before.
fn hide_all(context: &mut Context<'_>) -> Result<(), Problem> {
    for path in &context.plan.files.inaccessible {
        let in_image = open::in_root(context.root.folder.as_fd(), &path.to_path());
        let is_missing = in_image.is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        if is_missing && !root::is_nspawns_own(path) && mount_points::above(context, path).is_none()
        {
            let reason = "does not exist in the image: only what exists can be hidden";
            return Err(Problem::refused(format!("inaccessible path {path}"), reason));
        }
        // This option knows no escapes.
        context.extras.arguments.push(format!("--inaccessible={path}"));
    }
    Ok(())
}

impl Context<'_> {
    /// Binds an object of the stage.
    fn bind(&mut self, stage: PathBuf, path: &Absolute, kind: MountPoint, how: How) {
        self.extras.bind(&stage, path, how.read_only, how.recursive);
        self.targets.push(Target { path: path.clone(), kind, stage: Some(stage) });
    }
}

/// How a bind is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct How {
    read_only: bool,
    recursive: bool,
}

/// Attaches a detached mount on the stage. `propagated`: mounts of the host go on arriving below it.
fn attach(
    mounted: BorrowedFd<'_>,
    at: &Path,
    kind: MountPoint,
    propagated: bool,
) -> Result<(), Problem> {
    if kind == MountPoint::Folder {
        attach_at(mounted, at)?;
    } else {
        let file = open::create(at).at(at.display())?;
        sys::attach_mount(mounted, file.as_fd()).at(at.display())?;
    }
    if !propagated {
        let none = None::<&str>;
        mount(none, at, none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).at(at.display())?;
    }
    Ok(())
}

/// Without an explicit mode systemd-nspawn would make the folder writable for everybody.
fn tmpfs_option(tmpfs: &Tmpfs) -> String {
    let mut option = format!(
        "--tmpfs={}:nosuid,nodev,mode={:04o}",
        escape(&tmpfs.target.to_string()),
        tmpfs.mode.unwrap_or(0o755)
    );
    for (name, value) in [("size", tmpfs.size), ("nr_inodes", tmpfs.inodes)] {
        if let Some(value) = value {
            option.push_str(&format!(",{name}={value}"));
        }
    }
    for (word, given) in [("noexec", !tmpfs.executable), ("ro", tmpfs.read_only)] {
        if given {
            option.push_str(&format!(",{word}"));
        }
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_never_read_as_options() {
        let tmpfs = Tmpfs {
            target: Absolute::parse(r"/a:exec,suid\").unwrap(),
            size: Some(4096),
            inodes: None,
            mode: Some(0o1777),
            read_only: true,
            executable: false,
        };
        let expected = r"--tmpfs=/a\:exec,suid\\:nosuid,nodev,mode=1777,size=4096,noexec,ro";
        assert_eq!(tmpfs_option(&tmpfs), expected);
    }
}
