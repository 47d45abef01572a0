//! Tasks whose allocation is gone: nobody will ever ask for their removal.
//!
//! It happens when agent and plugin die in the middle of a start and the allocation is stopped
//! meanwhile. A task is removed when its allocation's folder is missing at two looks in a row. Where
//! the folder of all allocations is missing or empty as well (a file system that is not mounted),
//! nothing is concluded. Layers that were kept for an allocation go the same way, and
//! so does output that nobody has collected.

use std::collections::HashSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use proto::name::{AllocId, Instance, TaskKey};
use proto::plan::UnitId;

use super::context::Context;
use super::{remove, unit};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(20);

/// Looks for ever.
pub(super) async fn sweep(context: Rc<Context>) {
    let mut missing = HashSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        context.streams.borrow_mut().sweep();
        let all: Vec<_> = {
            let table = context.table.borrow();
            let place = |record: &super::record::Record| {
                (record.key.clone(), PathBuf::from(&record.allocs))
            };
            table.records().map(place).collect()
        };
        // A file system that hangs must not hold the loop up.
        let Ok(now) = tokio::task::spawn_blocking(|| {
            let gone = |(key, allocs): &(TaskKey, PathBuf)| {
                crate::task::is_gone(&allocs.join(key.alloc.to_string()))
            };
            all.into_iter().filter(gone).map(|(key, _)| key).collect()
        })
        .await
        else {
            continue;
        };
        for key in twice(&mut missing, now) {
            tracing::warn!(task = %key, "its allocation's folder is gone: the task is removed");
            if let Err(error) = remove::run(&context, &key).await {
                tracing::error!(task = %key, %error, "an orphan could not be removed");
            }
        }
        if tokio::task::spawn_blocking(crate::task::has_orphans).await.unwrap_or(false) {
            // Any unit's clean-up takes such layers along, so that of none does.
            let none = UnitId { alloc: AllocId([0; 16]), instance: Instance(0) };
            if let Err(error) = unit::clean(&context.bus, none).await {
                tracing::error!(%error, "layers kept for a gone allocation could not be removed");
            }
        }
    }
}

/// Those that were missing at the last look as well; remembers this one.
fn twice(missing: &mut HashSet<TaskKey>, now: HashSet<TaskKey>) -> Vec<TaskKey> {
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

    #[test]
    fn one_look_is_not_enough() {
        let mut missing = HashSet::new();
        assert_eq!(twice(&mut missing, HashSet::from([key(1), key(2)])), []);
        // One came back, another is new.
        assert_eq!(twice(&mut missing, HashSet::from([key(2), key(3)])), [key(2)]);
        assert_eq!(twice(&mut missing, HashSet::from([key(1)])), []);
        assert_eq!(twice(&mut missing, HashSet::new()), []);
    }
}
