//! For the operator's tool alone: what only the launcher's own functions can find out.
//!
//! Compiled with feature `doctor`, never into the binary that PID 1 starts.
#![allow(clippy::disallowed_methods, reason = "takes a path of the operator's")]

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use kernel::syscalls;
use proto::limits::{RANGE_FIRST, RANGE_WIDTH};
use proto::plan::Range;

use super::{namespaces, open, step};

/// Whether the kernel can ID-map the file system of a directory. The caller must be single-threaded
/// and have no children.
///
/// # Errors
/// It cannot be opened, or the caller is not root.
pub fn can_be_mapped(directory: &Path) -> io::Result<bool> {
    let clone = syscalls::clone_mount(open::directory(directory)?.as_fd(), false)?;
    let failed = |problem: step::Problem| io::Error::other(problem.reason().to_owned());
    let range = Range { base: RANGE_FIRST, width: RANGE_WIDTH };
    let users = namespaces::user_namespace(range).map_err(failed)?;
    namespaces::reap().map_err(failed)?;
    match syscalls::set_mount_attributes(clone.as_fd(), 0, Some(users.as_fd())) {
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(false),
        other => other.map(|()| true),
    }
}
