//! Uid ranges: one an allocation, 65,536 wide, locked with systemd-nspawn's own lock files so that
//! its `pick` and other tools stay away (UIDS-GIDS.md of systemd).
//!
//! The first choice follows from the allocation's id, so a restart of a task, or of the host, finds
//! the files that it left under the same owners, where their file system cannot be ID-mapped.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::error::{Code, Refusal};
use proto::limits::{RANGE_FIRST, RANGE_LAST, RANGE_WIDTH};
use proto::name::AllocId;
use proto::step::Step;

use crate::files;
use crate::systemd::notify;
use kernel::syscalls;

const LOCKS: &str = "/run/systemd/nspawn-uid";

/// Ranges in use, by their first uid.
#[derive(Default)]
pub(crate) struct Ranges {
    held: BTreeMap<u32, Held>,
}

struct Held {
    alloc: AllocId,
    tasks: usize,
    /// Held open: the lock goes with the last copy, and PID 1 has one.
    _lock: OwnedFd,
}

/// Name of a range's lock in the descriptor store.
pub(crate) fn stored_name(base: u32) -> String {
    format!("range-{base}")
}

/// Whether a range is locked: the host's own ids and ranges beside systemd-nspawn's grid have no
/// lock file.
pub(crate) fn is_locked(base: u32) -> bool {
    base != 0 && base.is_multiple_of(RANGE_WIDTH)
}

impl Ranges {
    /// The range of an allocation, or the wanted one for it; locked now when it is not yet.
    pub(crate) fn take(&mut self, alloc: AllocId, wanted: Option<u32>) -> Result<u32, Refusal> {
        let fits = |(base, held): &(&u32, &mut Held)| {
            wanted.map_or(held.alloc == alloc, |wanted| wanted == **base)
        };
        let refused = |code, object: &str, reason: String| {
            Refusal::new(code, Step::Range.name(), object, reason)
        };
        if let Some((&base, held)) = self.held.iter_mut().find(fits) {
            if held.alloc != alloc {
                let reason = format!("allocation {} has it", held.alloc);
                return Err(refused(Code::Busy, &format!("uid range {base}"), reason));
            }
            held.tasks += 1;
            return Ok(base);
        }
        let free = candidates(alloc).filter(|_| wanted.is_none());
        for base in wanted.into_iter().chain(free) {
            let lock = match lock(base) {
                Ok(lock) => lock,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Err(e) => return Err(refused(Code::Failed, LOCKS, e.to_string())),
            };
            notify::store(&stored_name(base), lock.as_fd())
                .map_err(|e| refused(Code::Failed, "descriptor store", e.to_string()))?;
            self.held.insert(base, Held { alloc, tasks: 1, _lock: lock });
            return Ok(base);
        }
        Err(match wanted {
            None => refused(Code::Busy, "uid ranges", "all are in use".to_owned()),
            Some(base) => {
                let reason = format!("another program has it, by {LOCKS}/{base}");
                refused(Code::Busy, &format!("uid range {base}"), reason)
            }
        })
    }

    /// Takes a range over from an earlier process: with its stored lock, or locked again.
    pub(crate) fn adopt(&mut self, alloc: AllocId, base: u32, stored: Option<OwnedFd>) {
        if let Some(held) = self.held.get_mut(&base) {
            held.tasks += 1;
            return;
        }
        let is_new = stored.is_none();
        let lock = match stored.map_or_else(|| lock(base), Ok) {
            Ok(lock) => lock,
            Err(error) => {
                tracing::error!(base, %error, "cannot lock the uid range of a running task");
                return;
            }
        };
        if is_new && let Err(error) = notify::store(&stored_name(base), lock.as_fd()) {
            tracing::error!(base, %error, "cannot store the lock of a uid range");
        }
        self.held.insert(base, Held { alloc, tasks: 1, _lock: lock });
    }

    /// One task fewer; the last one frees the range.
    pub(crate) fn release(&mut self, base: u32) {
        let Some(held) = self.held.get_mut(&base) else { return };
        held.tasks = held.tasks.saturating_sub(1);
        if held.tasks == 0 {
            self.held.remove(&base);
            free(base);
        }
    }
}

/// Takes a lock file and its stored lock away. The file first: whoever opens it again gets a new
/// file, and whoever holds the old one sees that it is gone (see [`lock`]).
pub(crate) fn free(base: u32) {
    files::remove(&lock_path(base));
    notify::forget(&stored_name(base));
}

fn lock_path(base: u32) -> PathBuf {
    Path::new(LOCKS).join(base.to_string())
}

/// Locks a range as systemd-nspawn does: an exclusive open-file-description lock on a file that is
/// still in its directory once it is locked (make_lock_file() of systemd).
fn lock(base: u32) -> io::Result<OwnedFd> {
    let path = lock_path(base);
    loop {
        let file: File = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        syscalls::lock_whole(&file)?;
        if file.metadata()?.nlink() > 0 {
            return Ok(file.into());
        }
    }
}

/// All bases, beginning with the allocation's own.
fn candidates(alloc: AllocId) -> impl Iterator<Item = u32> {
    let count = (RANGE_LAST - RANGE_FIRST) / RANGE_WIDTH + 1;
    // An allocation id is random: its last four bytes are as good as a checksum.
    let [.., a, b, c, d] = alloc.0;
    let first = u32::from_be_bytes([a, b, c, d]) % count;
    (0..count).map(move |n| RANGE_FIRST + (first + n) % count * RANGE_WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_is_met_once_and_fits() {
        let mut all: Vec<u32> = candidates(AllocId([0xff; 16])).collect();
        assert_eq!(all.first(), candidates(AllocId([0xff; 16])).collect::<Vec<_>>().first());
        all.sort_unstable();
        assert_eq!(all.first(), Some(&RANGE_FIRST));
        assert_eq!(all.last(), Some(&RANGE_LAST));
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] == RANGE_WIDTH));
    }
}
