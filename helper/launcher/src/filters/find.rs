//! Looks the filters of a start up in the cache.
//!
//! Trusts the directory, which only root can write, and still checks the file: whose it is, its sum, and
//! that systemd-nspawn and its libraries are the ones that the filters were made with. Whatever
//! is not as it should be means: systemd-nspawn's own filters.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use nix::fcntl::OFlag;

use super::entry::{self, Entry};
use super::options::Options;
use crate::open::if_there;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Bytes of the longest entry: some 30 KiB are usual.
const ENTRY_MAX: u64 = 1 << 20;
/// What decides which libraries the dynamic loader takes (ld.so(8)); the second is seldom there.
pub(super) const LOADER: [&str; 2] = ["/etc/ld.so.cache", "/etc/ld.so.preload"];

/// Looks for the filters of these options.
pub(super) fn find(options: &Options) -> Option<Entry> {
    let found = read(options).unwrap_or_else(|problem| {
        eprintln!("filters of the cache are not used: {problem}");
        None
    });
    found.filter(is_current)
}

/// Whether the files that the filters were made with are there as they were. Asked again right before
/// they are installed.
pub(crate) fn is_current(entry: &Entry) -> bool {
    !entry.files.is_empty()
        && entry
            .files
            .iter()
            .all(|stamp| stamp.is_of(OwnPath::recorded(&stamp.path).metadata().ok().as_ref()))
}

fn read(options: &Options) -> Result<Option<Entry>, Problem> {
    let path = OwnPath::filters().join(entry::name(options));
    let Some(file) = if_there(path.open(OFlag::O_RDONLY | OFlag::O_NOFOLLOW)).at(&path)? else {
        return Ok(None);
    };
    let file = std::fs::File::from(file);
    let meta = file.metadata().at(&path)?;
    if !meta.is_file() || meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        return Err(Problem::refused(path, "is not a file of root's alone"));
    }
    let mut text = String::new();
    file.take(ENTRY_MAX).read_to_string(&mut text).at(&path)?;
    Ok(Entry::read(&text).filter(|entry| entry.options == *options))
}

/// The filters of these options, whichever systemd has made them: for a command in a task that has
/// them already.
pub(crate) fn stored(options: &Options) -> Result<Option<Entry>, Problem> {
    read(options)
}

/// How many filters this process is under, and whether it has no_new_privs.
pub(crate) fn confinement() -> Result<(usize, bool), Problem> {
    let path = OwnPath::constant("/proc/self/status");
    let status = String::from_utf8_lossy(&path.read().at(&path)?).into_owned();
    let unknown = || Problem::refused(&path, "has no Seccomp_filters and NoNewPrivs");
    let filters = count_in(&status).ok_or_else(unknown)?;
    Ok((filters, number(&status, "NoNewPrivs:").ok_or_else(unknown)? != 0))
}

/// How many filters the process of this status is under.
pub(crate) fn count_in(status: &str) -> Option<usize> {
    number(status, "Seccomp_filters:")
}

fn number(status: &str, key: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|value| value.trim().parse().ok())
}
