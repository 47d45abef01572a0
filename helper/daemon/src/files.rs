//! Files in /run that come and go with tasks: locks of uid ranges, marks of launchers, sockets.
//!
//! Trusts its callers for paths, which they make of constants, numbers and ids. Never fails: a file
//! that stays is a line in the journal.

use std::path::Path;
use std::{fs, io};

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "cannot remove a file");
    }
}
