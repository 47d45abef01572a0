//! Removals that could not be finished: the helper was away, or a step of it failed.
//!
//! Nothing of a task may remain, so they are tried again until the helper reports that nothing
//! is left. They are kept in memory alone: after a plugin crash, the next start of the task finds
//! what is left of earlier runs by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::name::TaskKey;
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::helper_client::{Health, Helper};

const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(2);

/// Tasks that are still to be removed.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    keys: Mutex<BTreeSet<TaskKey>>,
    wake: Notify,
}

impl Leftovers {
    /// Queues a removal to be retried.
    pub(super) fn add(&self, key: TaskKey) {
        self.lock().insert(key);
        self.wake.notify_one();
    }

    /// A task of this key is about to start: its removal is no longer wanted.
    pub(super) fn cancel(&self, key: &TaskKey) {
        self.lock().remove(key);
    }

    fn all(&self) -> Vec<TaskKey> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<TaskKey>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Retries removals indefinitely; sleeps while there are none.
pub(super) async fn work(helper: Arc<Helper>, leftovers: Arc<Leftovers>) {
    let mut health = helper.health();
    let mut pause = PAUSE;
    loop {
        let pending = leftovers.all();
        if pending.is_empty() {
            pause = PAUSE;
            leftovers.wake.notified().await;
            continue;
        }
        if matches!(*health.borrow_and_update(), Health::Up(_)) {
            for key in pending {
                match helper.remove(&key, PATIENCE).await {
                    Ok(()) => {
                        leftovers.cancel(&key);
                        tracing::info!(task = %key, "leftover removed");
                    }
                    Err(error) => {
                        tracing::error!(task = %key, %error, "leftover still there");
                    }
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            // A helper that comes up again may manage at once.
            _ = health.changed() => pause = PAUSE,
        }
    }
}
