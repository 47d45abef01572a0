//! The task's output streams: Nomad's two log FIFOs, opened so that nobody can redirect them.
//!
//! The log folder is writable by the payload (it is /alloc/logs inside). So each FIFO is opened
//! beneath it without following links, through an ID-mapped clone (the payload may then re-open
//! /dev/stdout), and its type, owner and link count are checked before it is used. Opened for
//! reading and writing: that never blocks, and no writer gets SIGPIPE while Nomad's log collector
//! is replaced.
//!
//! Opened last of all: the collector stops reading for good when the last writer goes, and a
//! launcher that ends before "go" may be followed by another one for the same collector.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::fcntl::{OFlag, open as open_path};
use nix::sys::stat::Mode;
use proto::plan::{Plan, TaskDirs};
use proto::spec::Logs;

use super::open::{self, Mounts};
use super::step::{At, Problem};
use crate::sys;

/// The payload's standard output and standard error: first as checked handles, then opened.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

impl Streams {
    /// Opens the checked objects themselves: the links name the descriptors, not the paths.
    pub(super) fn open(&self) -> Result<Self, Problem> {
        let open = |handle: &OwnedFd| {
            let link = format!("/proc/self/fd/{}", handle.as_raw_fd());
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
            open_path(link.as_str(), flags, Mode::empty()).at("log stream")
        };
        Ok(Self { stdout: open(&self.stdout)?, stderr: open(&self.stderr)? })
    }
}

/// Finds and checks both streams.
pub(super) fn find(plan: &Plan, users: Option<BorrowedFd<'_>>) -> Result<Streams, Problem> {
    if plan.logs == Logs::Discard {
        return Ok(Streams { stdout: null()?, stderr: null()? });
    }
    let dirs = &plan.task_dirs;
    let alloc_dir = open::place(&dirs.alloc_dir, open::HANDLE).at(&dirs.alloc_dir)?;
    let folder =
        open::beneath(alloc_dir.as_fd(), Path::new("alloc/logs"), open::HANDLE, Mounts::Stay)
            .at(format!("{}/alloc/logs", dirs.alloc_dir))?;
    let clone = sys::clone_mount(folder.as_fd()).at("log folder")?;
    sys::set_mount_attributes(clone.as_fd(), sys::NO_DEV | sys::NO_SUID, users).at("log folder")?;
    let owner = plan.users.map_or(0, |range| range.base).saturating_add(dirs.agent_uid);
    Ok(Streams {
        stdout: find_fifo(clone.as_fd(), dirs, "stdout", owner)?,
        stderr: find_fifo(clone.as_fd(), dirs, "stderr", owner)?,
    })
}

/// The null device, for reading and writing.
pub(super) fn null() -> Result<OwnedFd, Problem> {
    open_path("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).at("/dev/null")
}

fn find_fifo(
    folder: BorrowedFd<'_>,
    dirs: &TaskDirs,
    stream: &str,
    owner: u32,
) -> Result<OwnedFd, Problem> {
    let name = format!(".{}.{stream}.fifo", dirs.task);
    let handle = open::beneath(folder, Path::new(&name), OFlag::O_PATH, Mounts::Stay).at(&name)?;
    let meta = open::metadata(&handle).at(&name)?;
    if !meta.file_type().is_fifo() || meta.uid() != owner || meta.nlink() != 1 {
        return Err(Problem::refused(
            name,
            "is not the FIFO that the Nomad agent made (type, owner or link count differ): \
             something in the allocation replaced it, or agent_uid in the policy file is not the \
             agent's uid",
        ));
    }
    Ok(handle)
}
