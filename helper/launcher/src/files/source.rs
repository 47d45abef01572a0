//! A file or directory of the host: opened once, checked and cloned by that descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use proto::plan::Place;

use crate::namespaces::Owner;
use crate::open;
use crate::prepared::MountPoint;
use crate::step::{At, Problem};
use kernel::syscalls;

/// An opened file or directory.
pub(super) struct Source<'a> {
    pub(super) place: &'a Place,
    pub(super) kind: MountPoint,
    pub(super) owner: Owner,
    /// How many names the object has.
    pub(super) links: u64,
    handle: OwnedFd,
}

impl<'a> Source<'a> {
    /// Opens a place that must be a regular file or a directory.
    pub(super) fn open(place: &'a Place) -> Result<Self, Problem> {
        let (handle, meta) = open::object(place)?;
        let kind = match meta.file_type() {
            t if t.is_dir() => MountPoint::Directory,
            t if t.is_file() => MountPoint::File,
            _ => {
                let reason = "is neither a regular file nor a directory: sockets, FIFOs and device \
                              nodes are not bound (bind the directory around a socket; a device \
                              has a block of its own)";
                return Err(Problem::refused(place, reason));
            }
        };
        Ok(Self { place, kind, owner: Owner::of(&meta), links: meta.nlink(), handle })
    }

    /// Opens a place that must be a directory.
    pub(super) fn open_directory(place: &'a Place) -> Result<Self, Problem> {
        let source = Self::open(place)?;
        if source.kind == MountPoint::Directory {
            return Ok(source);
        }
        Err(Problem::refused(place, "is not a directory"))
    }

    /// Whether no other local user can make use of a set-uid file in it.
    pub(super) fn is_protected(&self, recursive: bool) -> Result<bool, Problem> {
        let handle = self.handle.as_fd();
        let protected = if recursive { open::is_tree_protected } else { open::is_protected };
        protected(handle).at(self.place)
    }

    /// A detached clone without any mapping; always nodev and nosuid.
    pub(super) fn clone(&self, read_only: bool, recursive: bool) -> Result<OwnedFd, Problem> {
        let clone = syscalls::clone_mount(self.handle.as_fd(), recursive).at(self.place)?;
        let read_only = if read_only { syscalls::READ_ONLY } else { 0 };
        let attributes = syscalls::NO_DEV | syscalls::NO_SUID | read_only;
        syscalls::set_mount_attributes(clone.as_fd(), attributes, None).at(self.place)?;
        Ok(clone)
    }

    /// ID-maps a clone; `false`: a file system in it cannot be mapped, or is mapped already.
    pub(super) fn map(&self, clone: &OwnedFd, users: &impl AsFd) -> Result<bool, Problem> {
        match syscalls::set_mount_attributes(clone.as_fd(), 0, Some(users.as_fd())) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EPERM)) => Ok(false),
            other => other.map(|()| true).at(self.place),
        }
    }
}
