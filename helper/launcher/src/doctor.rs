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

use super::filters::entry::Entry;
use super::filters::{choose, find};
use super::{namespaces, open, step};

/// An entry of the cache of system call filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedFilters {
    /// Name of its file.
    pub name: String,
    /// The words that the launcher's verbs take: bounding set and rules.
    pub options: Vec<String>,
    /// How many filters it has; 0 when it cannot be read.
    pub count: usize,
    /// Whether systemd-nspawn and its libraries are as they were.
    pub is_current: bool,
    /// Version of the systemd-nspawn that has made it; 0 when it cannot be read.
    pub version: u32,
    /// Whether starts use filters of this version.
    pub is_tested: bool,
}

/// The entries of the cache of system call filters, by name.
///
/// # Errors
/// The directory cannot be read.
pub fn cached_filters() -> io::Result<Vec<CachedFilters>> {
    let directory = match std::fs::read_dir(kernel::layout::FILTERS) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        directory => directory?,
    };
    let mut all = Vec::new();
    for file in directory {
        let file = file?;
        let entry = std::fs::read_to_string(file.path()).ok().and_then(|text| Entry::read(&text));
        let version = entry.as_ref().map_or(0, |entry| entry.version);
        all.push(CachedFilters {
            name: file.file_name().to_string_lossy().into_owned(),
            options: entry.as_ref().map(|entry| entry.options.words()).unwrap_or_default(),
            count: entry.as_ref().map_or(0, |entry| entry.filters.len()),
            is_current: entry.is_some_and(|entry| find::is_current(&entry)),
            version,
            is_tested: choose::is_tested(version),
        });
    }
    all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

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
