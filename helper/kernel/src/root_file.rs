//! Configuration of the operator: root-owned, closed to writers, read whole or not at all.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Longest such file, in bytes.
const LONGEST: u64 = 64 * 1024;

/// The text of the file, which every directory above it and its own inode protect from all but
/// root. Judged from the root down: what lies in a directory that only root can write stays as it
/// was seen.
///
/// # Errors
/// It is missing, too long, not text, or somebody else could write it.
pub fn read(path: &Path) -> io::Result<String> {
    let directories: Vec<_> = path.ancestors().skip(1).collect();
    for directory in directories.iter().rev() {
        check_owner(directory, &fs::symlink_metadata(directory)?)?;
    }
    // Neither follows a link nor waits for the writer of a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    check_owner(path, &meta)?;
    if !meta.is_file() {
        return Err(io::Error::other("must be a regular file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("longer than 64 KiB"));
    }
    Ok(text)
}

fn check_owner(path: &Path, meta: &fs::Metadata) -> io::Result<()> {
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 || meta.is_symlink() {
        return Err(io::Error::other(format!(
            "{} must belong to root, be no link and not be writable by others",
            path.display()
        )));
    }
    Ok(())
}
