//! The tasks that this process knows, and where each of them stands.
//!
//! A task's end is published once and stays until the task is destroyed, for any number of
//! waiters. This module does no I/O; see [`super::end_detection`] for how the truth is found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proto::systemd::unit_path;
use proto::wire::Exit;
use tokio::sync::watch;

use super::handle::{Details, Identity};

/// Where a task stands, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It runs, or it did at the last check.
    Running {
        /// Process id of the container's PID 1.
        leader: Option<u32>,
    },
    /// It has ended.
    Ended(Arc<Exit>),
}

/// One task.
#[derive(Debug)]
pub(crate) struct Task {
    /// Nomad's id.
    pub(crate) id: String,
    /// What it is.
    pub(crate) identity: Identity,
    /// The rest; `None` for those that an earlier version started.
    pub(crate) details: Option<Details>,
    phase: watch::Sender<Phase>,
    check: AtomicU8,
    suspected: AtomicBool,
    disputed: AtomicBool,
}

const CHECK_IDLE: u8 = 0;
const CHECK_RUNS: u8 = 1;
const CHECK_AGAIN: u8 = 2;

impl Task {
    /// A task that runs.
    pub(crate) fn new(
        identity: Identity,
        details: Option<Details>,
        leader: Option<u32>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: identity.key.to_string(),
            identity,
            details,
            phase: watch::Sender::new(Phase::Running { leader }),
            check: AtomicU8::new(CHECK_IDLE),
            suspected: AtomicBool::new(false),
            disputed: AtomicBool::new(false),
        })
    }

    /// Where it stands now.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Its end, when it has ended.
    pub(crate) fn exit(&self) -> Option<Arc<Exit>> {
        match &*self.phase.borrow() {
            Phase::Running { .. } => None,
            Phase::Ended(exit) => Some(Arc::clone(exit)),
        }
    }

    /// Waits for its end. Any number may wait, and may stop waiting.
    pub(crate) async fn wait_until_ended(&self) -> Arc<Exit> {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Ended(exit) = &*phase.borrow_and_update() {
                return Arc::clone(exit);
            }
            if phase.changed().await.is_err() {
                // The sender lives in `self`, which is borrowed here.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Publishes its end; the first one stays. Whether this is the first.
    pub(crate) fn end(&self, exit: Exit) -> bool {
        self.phase.send_if_modified(|phase| {
            let first = matches!(phase, Phase::Running { .. });
            if first {
                *phase = Phase::Ended(Arc::new(exit));
            }
            first
        })
    }

    /// Notes its leader.
    pub(crate) fn set_leader(&self, leader: Option<u32>) {
        self.phase.send_if_modified(|phase| {
            let news = matches!(phase, Phase::Running { leader: old } if *old != leader);
            if news {
                *phase = Phase::Running { leader };
            }
            news
        });
    }

    /// Notes that PID 1 reported the end of its unit.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Relaxed);
    }

    /// Whether PID 1 has reported the end of its unit.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    /// Whether helper and PID 1 disagree about it for the first time: it is logged once.
    pub(crate) fn is_first_dispute(&self) -> bool {
        !self.disputed.swap(true, Ordering::Relaxed)
    }

    /// Claims the one check of a task; when one is under way, it will go round once more.
    pub(crate) fn claim_check(&self) -> bool {
        let claim = self.check.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(if state == CHECK_IDLE { CHECK_RUNS } else { CHECK_AGAIN })
        });
        claim == Ok(CHECK_IDLE)
    }

    /// Ends a round of the check; `false` when another round was asked for meanwhile.
    pub(crate) fn finish_check(&self) -> bool {
        let finish = self.check.fetch_update(Ordering::AcqRel, Ordering::Acquire, |state| {
            Some(if state == CHECK_AGAIN { CHECK_RUNS } else { CHECK_IDLE })
        });
        finish == Ok(CHECK_RUNS)
    }
}

/// All tasks, by Nomad's id and by the D-Bus path of their unit.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    inner: Mutex<Maps>,
}

#[derive(Debug, Default)]
struct Maps {
    by_id: HashMap<String, Arc<Task>>,
    by_path: HashMap<String, Arc<Task>>,
}

impl Tasks {
    fn maps(&self) -> std::sync::MutexGuard<'_, Maps> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a task, unless its id is there already; gives back the one that is there then.
    pub(crate) fn add(&self, task: Arc<Task>) -> Arc<Task> {
        let mut maps = self.maps();
        if let Some(known) = maps.by_id.get(&task.id) {
            return Arc::clone(known);
        }
        let path = unit_path(&task.identity.unit);
        maps.by_path.insert(path, Arc::clone(&task));
        maps.by_id.insert(task.id.clone(), Arc::clone(&task));
        task
    }

    /// The task of this id.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Task>> {
        self.maps().by_id.get(id).cloned()
    }

    /// The task whose unit has this D-Bus path.
    pub(crate) fn at(&self, path: &str) -> Option<Arc<Task>> {
        self.maps().by_path.get(path).cloned()
    }

    /// Forgets a task.
    pub(crate) fn forget(&self, id: &str) {
        let mut maps = self.maps();
        if let Some(task) = maps.by_id.remove(id) {
            maps.by_path.remove(&unit_path(&task.identity.unit));
        }
    }

    /// How many run, and how many have ended.
    pub(crate) fn count(&self) -> [usize; 2] {
        let maps = self.maps();
        let ended = maps.by_id.values().filter(|task| task.exit().is_some()).count();
        [maps.by_id.len().saturating_sub(ended), ended]
    }

    /// Tasks that have not ended.
    pub(crate) fn running(&self) -> Vec<Arc<Task>> {
        let maps = self.maps();
        let tasks = maps.by_id.values();
        tasks.filter(|task| task.exit().is_none()).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::MachineName;

    fn task(instance: u32) -> Arc<Task> {
        let key = format!("0e8b1c2d-1111-2222-3333-444455556666/web/{instance:08x}");
        let identity = Identity {
            key: key.parse().unwrap(),
            unit: format!("nomad-nspawn-{instance}.service"),
            machine: MachineName::new("web").unwrap(),
            boot: String::new(),
            stop_signal: 15,
            uid_base: None,
            started_ms: 0,
        };
        Task::new(identity, None, Some(7))
    }

    fn exit(code: i32) -> Exit {
        let (memory_peak, memory_limit) = (0, 0);
        let error = String::new();
        Exit { code, signal: 0, oom: false, memory_peak, memory_limit, ended_ms: 0, error }
    }

    #[test]
    fn tasks_are_found_by_id_and_by_path() {
        let tasks = Tasks::default();
        let one = tasks.add(task(1));
        assert!(Arc::ptr_eq(&tasks.add(task(1)), &one));
        assert!(tasks.get(&one.id).is_some());
        assert!(tasks.at(&unit_path(&one.identity.unit)).is_some());
        tasks.add(task(2)).end(exit(0));
        assert_eq!(tasks.running().len(), 1);
        assert_eq!(tasks.count(), [1, 1]);
        tasks.forget(&one.id);
        assert!(tasks.get(&one.id).is_none());
        assert!(tasks.at(&unit_path(&one.identity.unit)).is_none());
    }

    #[test]
    fn the_first_end_stays() {
        let task = task(1);
        task.end(exit(7));
        task.end(exit(0));
        task.set_leader(Some(9));
        assert_eq!(task.exit().unwrap().code, 7);
    }

    #[test]
    fn a_dispute_is_reported_once() {
        let task = task(1);
        assert!(task.is_first_dispute());
        assert!(!task.is_first_dispute());
    }

    #[test]
    fn checks_are_never_two_and_never_lost() {
        let task = task(1);
        assert!(task.claim_check());
        assert!(!task.claim_check());
        assert!(!task.finish_check());
        assert!(task.finish_check());
        assert!(task.claim_check());
    }

    #[tokio::test]
    async fn any_number_may_wait_and_stop_waiting() {
        let task = task(1);
        let impatient =
            tokio::time::timeout(std::time::Duration::from_millis(1), task.wait_until_ended());
        assert!(impatient.await.is_err());
        let (one, two) = (Arc::clone(&task), Arc::clone(&task));
        let waiters = [
            tokio::spawn(async move { one.wait_until_ended().await.code }),
            tokio::spawn(async move { two.wait_until_ended().await.code }),
        ];
        task.end(exit(133));
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 133);
        }
        assert_eq!(task.wait_until_ended().await.code, 133);
    }
}
