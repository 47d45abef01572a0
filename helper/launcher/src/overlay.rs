//! Mounting an overlay (overlayfs of the kernel): the root's, and those of the job.
//!
//! Trusts the directories that it is given, not their names: no path of a job is ever part of the
//! options.

use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, mkdirat};
use proto::plan::Range;

use super::open::{self, Mounts};
use super::stage::OwnPath;
use super::step::{At, Problem};

/// Refuses a start whose changes could fill the file system that all tasks share: a full one would
/// end the tasks that run.
pub(super) fn check_free(min_free: u64) -> Result<(), Problem> {
    let place = OwnPath::uppers();
    let free = place.free_space().at(&place)?;
    if free >= min_free {
        return Ok(());
    }
    let reason = format!(
        "{} MiB are free in its file system, which takes the task's changes, and [limits] min_free \
         of the policy file asks for {} MiB: remove files there, or add ephemeral_mode = \"tmpfs\" \
         to the job",
        free >> 20,
        min_free.div_ceil(1 << 20),
    );
    Err(Problem::held(place, reason))
}

/// Where the changes go. The kernel is given descriptors: a path may hold a task's name, whose
/// commas and colons would be read as options.
pub(super) struct Upper {
    upper: OwnedFd,
    /// The kernel's own directory.
    work: OwnedFd,
    /// Whether it goes with the task.
    volatile: bool,
}

impl Upper {
    /// Opens the two directories of a layer. What is missing is made, and looks like the top of the
    /// layers below, whose owners the range shifts.
    pub(super) fn open(
        object: impl Display,
        layer: &OwnedFd,
        top: &fs::Metadata,
        range: Option<Range>,
        volatile: bool,
    ) -> Result<Self, Problem> {
        let range = range.unwrap_or(Range { base: 0, width: u32::MAX });
        let (uid, gid) = (top.uid(), top.gid());
        if uid.max(gid) >= range.width {
            let reason = format!("lie over {uid}:{gid}'s, beyond the task's {} ids", range.width);
            return Err(Problem::refused(object, reason));
        }
        let make = |name| -> io::Result<(OwnedFd, u32)> {
            let made = match mkdirat(layer, name, Mode::S_IRWXU) {
                Err(Errno::EEXIST) => false,
                other => other.map(|()| true)?,
            };
            let directory =
                open::beneath(layer.as_fd(), Path::new(name), open::HANDLE, Mounts::Stay)?;
            if made {
                let [uid, gid] = [uid, gid].map(|id| range.base.saturating_add(id));
                open::set_owner(&directory, uid, gid)?;
                OwnPath::of_handle(&directory).set_mode(top.mode())?;
            }
            let owner = open::metadata(&directory)?.uid();
            Ok((directory, owner))
        };
        let open = |name| {
            let (directory, owner) = make(name).at(&object)?;
            if range.holds(owner) {
                return Ok(directory);
            }
            let reason = format!(
                "were made by a task with other ids ({name} is owned by {owner}), to whom they \
                 belong; give the task a fixed range (private_users), or begin with an empty \
                 directory"
            );
            Err(Problem::refused(&object, reason))
        };
        Ok(Self { upper: open("upper")?, work: open("work")?, volatile })
    }
}

/// What is mounted, and what people are told when a lasting upper layer was made over other layers.
pub(super) struct Overlay<'a, O> {
    pub(super) object: O,
    /// Lowest first: names of ours on the stage.
    pub(super) lower: &'a [OwnPath],
    pub(super) upper: Option<Upper>,
    pub(super) flags: MsFlags,
    pub(super) stale: &'a str,
}

impl<O: Display> Overlay<'_, O> {
    /// Mounts it on a directory.
    pub(super) fn mount(&self, at: &OwnPath) -> Result<(), Problem> {
        let layers: Vec<_> = self.lower.iter().rev().map(ToString::to_string).collect();
        // Neither is followed: such marks of a layer would lead to other files of those below.
        let mut options =
            format!("lowerdir={},redirect_dir=nofollow,metacopy=off", layers.join(":"));
        let mut flags = self.flags | MsFlags::MS_NODEV;
        if let Some(Upper { upper, work, volatile }) = &self.upper {
            let [upper, work] = [upper, work].map(|directory| open::link(directory.as_fd()));
            let (upper, work) = (upper.display(), work.display());
            options.push_str(&format!(",upperdir={upper},workdir={work}"));
            // An index lets the kernel refuse a second mount of a layer that is in use. "volatile"
            // is for layers that are never used twice: nothing is gained by syncing them.
            options.push_str(if *volatile { ",index=off,volatile" } else { ",index=on" });
        } else {
            flags |= MsFlags::MS_RDONLY;
        }
        let object = &self.object;
        let is_lasting = self.upper.as_ref().is_some_and(|upper| !upper.volatile);
        match at.mount("overlay", flags, &options) {
            Err(Errno::EBUSY) => {
                return Err(Errno::EBUSY).at(format!("{object}: another task's changes go there"));
            }
            Err(Errno::ESTALE) if is_lasting => return Err(Problem::refused(object, self.stale)),
            other => other.at(object)?,
        }
        // An overlay whose work directory cannot be used mounts read-only without an error.
        if self.upper.is_some() && at.is_read_only().at(object)? {
            let reason = "came up read-only: its upper layer's file system cannot hold one";
            return Err(Problem::refused(object, reason));
        }
        Ok(())
    }
}
