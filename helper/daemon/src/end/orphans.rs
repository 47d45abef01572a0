//! Tasks whose allocation is gone: nobody will ever ask for their removal.
//!
//! It happens when agent and plugin die in the middle of a start and the allocation is stopped
//! meanwhile. A task is removed when its allocation's directory is missing at two looks in a row. Where
//! the directory of all allocations is missing or empty as well, or lies on another device than at
//! the start (a file system that is not mounted), nothing is concluded. Layers that were kept for an
//! allocation go the same way, and so does output that nobody has collected.
//!
//! A file system that hangs holds up nothing but the looks at itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use proto::name::{AllocId, Instance, TaskKey};
use proto::unit_id::UnitId;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::end::remove;
use crate::systemd::units::cleanup;
use kernel::kept_layers;
use kernel::layout::UPPERS;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(20);
/// Time for a file system to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More allocations that are gone at once have a line of their own.
const MANY: usize = 4;

/// Looks until the process ends.
pub(crate) async fn sweep(context: Rc<Context>) {
    let (mut looks, mut layers) = (Looks::default(), Looks::default());
    let mut missing = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        context.streams.borrow_mut().sweep();
        let now = look_for_all(&context, &mut looks).await;
        let gone = missing_twice(&mut missing, now);
        if gone.len() > MANY {
            let tasks = gone.len();
            tracing::warn!(tasks, "the directories of many allocations are gone at once");
        }
        for key in gone {
            tracing::warn!(task = %key, "its allocation's directory is gone: the task is removed");
            if let Err(error) = remove::run(&context, &key).await {
                tracing::error!(task = %key, %error, "an orphan could not be removed");
            }
        }
        if layers.look(Path::new(UPPERS), kept_layers::has_orphans).await == Some(true) {
            // Any unit's clean-up takes such layers along, so that of none does.
            let none = UnitId { alloc: AllocId([0; 16]), instance: Instance(0) };
            if let Err(error) = cleanup::run(&context.bus, none).await {
                tracing::error!(%error, "layers kept for a gone allocation could not be removed");
            }
        }
    }
}

/// The tasks whose allocation's directory is missing now.
async fn look_for_all(context: &Context, looks: &mut Looks<Vec<TaskKey>>) -> HashSet<TaskKey> {
    let mut all: BTreeMap<PathBuf, Vec<(TaskKey, Option<u64>)>> = BTreeMap::new();
    for record in context.table.borrow().records() {
        let tasks = all.entry(PathBuf::from(&record.allocs)).or_default();
        tasks.push((record.key.clone(), record.allocs_device));
    }
    let mut missing = HashSet::new();
    for (allocs, tasks) in all {
        let at = allocs.clone();
        let look = move || {
            let gone = |(key, device): &(TaskKey, Option<u64>)| {
                let is_the_one =
                    |all: &Path| device.is_some() && kept_layers::device(all) == *device;
                kept_layers::is_gone(&at.join(key.alloc.to_string()), is_the_one)
            };
            tasks.into_iter().filter(gone).map(|(key, _)| key).collect()
        };
        missing.extend(looks.look(&allocs, look).await.into_iter().flatten());
    }
    missing
}

/// Looks at file systems that may hang: at most one thread waits for each.
struct Looks<T>(HashMap<PathBuf, JoinHandle<T>>);

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Send + 'static> Looks<T> {
    /// What a look finds; `None` when there is no answer in time. A later call takes that answer,
    /// and does not look again before.
    async fn look(&mut self, at: &Path, look: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let start = || tokio::task::spawn_blocking(look);
        let look = self.0.entry(at.to_owned()).or_insert_with(start);
        let found = tokio::time::timeout(PATIENCE, look).await.ok()?;
        self.0.remove(at);
        found.ok()
    }
}

/// Those that were missing at the last look as well; remembers this one.
fn missing_twice(missing: &mut HashSet<TaskKey>, now: HashSet<TaskKey>) -> Vec<TaskKey> {
    let before = std::mem::replace(missing, now);
    before.intersection(missing).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::TaskName;

    fn key(number: u8) -> TaskKey {
        let task = TaskName::new("web").unwrap();
        TaskKey { alloc: AllocId([number; 16]), task, instance: Instance(1) }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn c7_a_file_system_that_hangs_holds_up_no_other() {
        let mut looks = Looks::default();
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hung = move || hang.recv().map_or(1, |()| 2);
        assert_eq!(looks.look(Path::new("/hung"), hung).await, None);
        let begun = std::time::Instant::now();
        assert_eq!(looks.look(Path::new("/other"), || 3).await, Some(3));
        assert!(begun.elapsed() < PATIENCE);
        release.send(()).unwrap();
        assert_eq!(looks.look(Path::new("/hung"), || 4).await, Some(2), "a second thread");
        assert_eq!(looks.look(Path::new("/hung"), || 4).await, Some(4));
    }

    #[test]
    fn one_look_is_not_enough() {
        let mut missing = HashSet::new();
        assert_eq!(missing_twice(&mut missing, HashSet::from([key(1), key(2)])), []);
        // One came back, another is new.
        assert_eq!(missing_twice(&mut missing, HashSet::from([key(2), key(3)])), [key(2)]);
        assert_eq!(missing_twice(&mut missing, HashSet::from([key(1)])), []);
        assert_eq!(missing_twice(&mut missing, HashSet::new()), []);
    }
}
