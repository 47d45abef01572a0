//! Reports of the kernel that something has happened to the memory of a task (memory.events of
//! cgroup-v2.rst): one inotify descriptor for all tasks, because a user may have few of them.
//!
//! A report is a hint to read the file again, no more: the kernel sends at most one in 10 ms.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// Longest report about a file: its number, three more numbers, no name (inotify(7)).
const REPORT: usize = 16;

/// Files that are watched.
#[derive(Debug, Default)]
pub(crate) struct MemoryEvents {
    inotify: OnceLock<Inotify>,
    /// By the kernel's number, which is one for each file: all that watch it.
    watches: Mutex<HashMap<i32, Vec<Arc<Notify>>>>,
}

/// One file that is watched, as long as this exists.
#[derive(Debug)]
pub(crate) struct Watch {
    events: Arc<MemoryEvents>,
    id: WatchDescriptor,
    changed: Arc<Notify>,
}

impl MemoryEvents {
    /// Begins to watch a file.
    ///
    /// # Errors
    /// The file is not there, or the kernel's bound on watches is reached.
    pub(crate) fn watch(self: &Arc<Self>, file: &Path) -> io::Result<Watch> {
        let inotify = match self.inotify.get() {
            Some(inotify) => inotify,
            None => {
                let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
                // The runtime wants a descriptor of its own, and reads this one as it would a pipe.
                let reports = inotify.as_fd().try_clone_to_owned()?;
                let reports = pipe::Receiver::from_owned_fd_unchecked(reports)?;
                // The first of two at once counts; the other is closed.
                if self.inotify.set(inotify).is_ok() {
                    let events = Arc::clone(self);
                    tokio::spawn(async move { events.pass_on(reports).await });
                }
                self.inotify.get().ok_or_else(|| io::Error::other("no reports"))?
            }
        };
        // Under the lock: a report may come before the entry is there.
        let mut watches = self.watches();
        let id = inotify.add_watch(file, AddWatchFlags::IN_MODIFY)?;
        let changed = Arc::default();
        watches.entry(id.as_raw()).or_default().push(Arc::clone(&changed));
        drop(watches);
        Ok(Watch { events: Arc::clone(self), id, changed })
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, HashMap<i32, Vec<Arc<Notify>>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes reports on, for good.
    async fn pass_on(&self, reports: pipe::Receiver) {
        loop {
            let mut bytes = [0; REPORT * 64];
            let read = match reports.readable().await {
                Ok(()) => reports.try_read(&mut bytes),
                Err(error) => Err(error),
            };
            match read {
                Ok(length) => {
                    let watches = self.watches();
                    for report in bytes.get(..length).unwrap_or_default().chunks_exact(REPORT) {
                        let id = report.first_chunk().map(|id| i32::from_ne_bytes(*id));
                        for changed in id.and_then(|id| watches.get(&id)).into_iter().flatten() {
                            changed.notify_one();
                        }
                    }
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => {
                    tracing::error!(%error, "no reports about the memory of tasks any more");
                    return;
                }
            }
        }
    }
}

impl Watch {
    /// Waits until the file has changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watches = self.events.watches();
        if let Some(all) = watches.get_mut(&self.id.as_raw()) {
            all.retain(|changed| !Arc::ptr_eq(changed, &self.changed));
            if !all.is_empty() {
                return;
            }
        }
        watches.remove(&self.id.as_raw());
        // Still under the lock: another may begin to watch the file.
        if let Some(inotify) = self.events.inotify.get() {
            // It has gone with its cgroup, mostly.
            inotify.rm_watch(self.id).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    #[tokio::test]
    async fn each_file_wakes_its_own() {
        let directory = std::env::temp_dir().join(format!("nspawn-events-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let events = Arc::new(MemoryEvents::default());
        let [one, two] = ["one", "two"].map(|name| {
            let file = directory.join(name);
            fs::write(&file, "0").unwrap();
            events.watch(&file).unwrap()
        });
        assert!(events.watch(&directory.join("none")).is_err());
        let within = |watch: &Watch, ms| {
            let changed = Arc::clone(&watch.changed);
            async move {
                let limit = Duration::from_millis(ms);
                tokio::time::timeout(limit, changed.notified()).await.is_ok()
            }
        };
        fs::write(directory.join("two"), "1").unwrap();
        assert!(within(&two, 5_000).await);
        assert!(!within(&one, 50).await);
        // Two of one file have one number, and either goes without the other.
        let again = events.watch(&directory.join("two")).unwrap();
        assert_eq!(events.watches().len(), 2);
        drop(two);
        fs::write(directory.join("two"), "2").unwrap();
        assert!(within(&again, 5_000).await);
        drop(again);
        assert_eq!(events.watches().len(), 1);
        fs::write(directory.join("one"), "1").unwrap();
        tokio::time::timeout(Duration::from_secs(5), one.changed()).await.unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
