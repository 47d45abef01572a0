//! Mounting an overlay (overlayfs of the kernel): the root's, and those of the job.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::step::{At, Problem};

/// Where the changes go.
#[derive(Debug)]
pub(super) struct Upper {
    pub(super) upper: PathBuf,
    /// The kernel's own folder.
    pub(super) work: PathBuf,
    /// Whether it goes with the task.
    pub(super) volatile: bool,
}

/// What is mounted where, and what people are told when an upper layer was made over other layers.
#[derive(Debug)]
pub(super) struct Overlay<'a, O> {
    pub(super) object: O,
    /// Lowest first.
    pub(super) lower: &'a [PathBuf],
    pub(super) upper: Option<Upper>,
    pub(super) flags: MsFlags,
    pub(super) stale: &'a str,
}

impl<O: Display> Overlay<'_, O> {
    /// Mounts it on a folder.
    pub(super) fn mount(&self, at: &Path) -> Result<(), Problem> {
        let layers: Vec<_> =
            self.lower.iter().rev().map(|path| path.display().to_string()).collect();
        let mut options = format!("lowerdir={},metacopy=off", layers.join(":"));
        let mut flags = self.flags | MsFlags::MS_NODEV;
        if let Some(Upper { upper, work, volatile }) = &self.upper {
            let (upper, work) = (upper.display(), work.display());
            options.push_str(&format!(",upperdir={upper},workdir={work}"));
            // An index lets the kernel refuse a second mount of a layer that is in use. "volatile"
            // is for layers that are never used twice: nothing is gained by syncing them.
            options.push_str(if *volatile { ",index=off,volatile" } else { ",index=on" });
        } else {
            flags |= MsFlags::MS_RDONLY;
        }
        let object = &self.object;
        match mount(Some("overlay"), at, Some("overlay"), flags, Some(options.as_str())) {
            Err(Errno::EBUSY) => {
                return Err(Errno::EBUSY).at(format!("{object}: another task's changes go there"));
            }
            Err(Errno::ESTALE) => return Err(Problem::refused(object, self.stale)),
            other => other.at(object)?,
        }
        // An overlay whose work folder cannot be used mounts read-only without an error.
        let is_read_only = statvfs(at).at(object)?.flags().contains(FsFlags::ST_RDONLY);
        if self.upper.is_some() && is_read_only {
            let reason = "came up read-only: its upper layer's file system cannot hold one";
            return Err(Problem::refused(object, reason));
        }
        Ok(())
    }
}
