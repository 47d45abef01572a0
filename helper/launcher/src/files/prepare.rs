//! The order in which files of the host are prepared, and file systems in memory.

use std::os::fd::BorrowedFd;

use nix::mount::MsFlags;
use proto::plan::Plan;
use proto::task_spec::files::Tmpfs;

use super::{binds, credentials, devices, overlays};
use crate::prepared::{Extras, MountPoint};
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// What every part needs, and what they leave behind.
pub(super) struct Context<'a> {
    pub(super) plan: &'a Plan,
    pub(super) users: Option<BorrowedFd<'a>>,
    pub(super) extras: &'a mut Extras,
}

/// Prepares everything on the stage.
pub(crate) fn prepare(
    plan: &Plan,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<(), Problem> {
    let mut context = Context { plan, users, extras };
    binds::mount_all(&mut context)?;
    overlays::mount_all(&mut context)?;
    devices::make_all(&mut context)?;
    for (number, tmpfs) in plan.files.tmpfs.iter().enumerate() {
        let at = OwnPath::on_stage(format!("tmpfs{number}"));
        at.make_dir(0o755)?;
        let (flags, options) = tmpfs_options(tmpfs, plan.container_root());
        at.mount("tmpfs", flags, &options).at(format!("tmpfs at {}", tmpfs.target))?;
        context.extras.mount(at, &tmpfs.target, MountPoint::Directory);
    }
    credentials::load_all(&mut context)
}

fn tmpfs_options(tmpfs: &Tmpfs, owner: u32) -> (MsFlags, String) {
    let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    flags.set(MsFlags::MS_NOEXEC, !tmpfs.executable);
    flags.set(MsFlags::MS_RDONLY, tmpfs.read_only);
    let mut options = format!("uid={owner},gid={owner},mode={:04o}", tmpfs.mode.unwrap_or(0o755));
    for (name, value) in [("size", tmpfs.size), ("nr_inodes", tmpfs.inodes)] {
        if let Some(value) = value {
            options.push_str(&format!(",{name}={value}"));
        }
    }
    (flags, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::target::Target;

    #[test]
    fn a_tmpfs_is_as_the_job_says_and_nothing_more() {
        let tmpfs = Tmpfs {
            target: Target::parse("/a:exec,suid").unwrap(),
            size: Some(4096),
            inodes: None,
            mode: Some(0o1777),
            read_only: true,
            executable: false,
        };
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let strict = safe | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        let options = "uid=7,gid=7,mode=1777,size=4096".to_owned();
        assert_eq!(tmpfs_options(&tmpfs, 7), (strict, options));
        let plain = Tmpfs { size: None, mode: None, read_only: false, executable: true, ..tmpfs };
        assert_eq!(tmpfs_options(&plain, 0), (safe, "uid=0,gid=0,mode=0755".to_owned()));
    }
}
