//! Where a task stands: the only place that decides that a task has ended.
//!
//! The bus only hints; the helper decides, because it holds the exact exit status. As long as the
//! helper cannot be asked, or has not yet found its tasks again, a task is taken to run: a living
//! container must never be reported lost, and an end can be reported late. There is one check of
//! a task at a time, however many hints come.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::error::Code;
use proto::wire::{self, Exit, State};
use tokio::time::{sleep, timeout};

use super::Driver;
use super::handle::Identity;
use super::task::Task;
use crate::helper_client::{CallError, Health};
use crate::metrics::figures::Figures;
use crate::node::unit_signals::Watcher;

const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Rounds in which PID 1 has reported an end that the helper has not seen.
const DOUBTS: usize = 20;

/// What could be learnt of a task.
#[derive(Debug)]
pub(super) enum Learnt {
    /// The helper knows it.
    Known(Box<wire::Task>),
    /// Neither helper nor PID 1 knows it: it is gone, and its exit status with it.
    Gone,
    /// The helper does not know it, but its unit runs according to PID 1.
    Disputed,
    /// No answer was to be had.
    Nothing,
}

impl Driver {
    /// Asks the helper and, when it knows nothing, PID 1; both together for at most `patience`.
    pub(super) async fn learn(&self, identity: &Identity, patience: Duration) -> Learnt {
        if patience.is_zero() {
            return Learnt::Nothing;
        }
        let asked = timeout(patience, self.ask_about(identity, patience)).await;
        let learnt = asked.unwrap_or(Learnt::Nothing);
        self.unanswered.store(matches!(learnt, Learnt::Nothing), Ordering::Relaxed);
        learnt
    }

    async fn ask_about(&self, identity: &Identity, patience: Duration) -> Learnt {
        match self.helper.status(&identity.key, patience).await {
            Ok(task) => Learnt::Known(Box::new(task)),
            Err(CallError::Refused(refusal)) if refusal.code == Code::Unknown => {
                match self.bus.unit_runs(&identity.unit).await {
                    Some(false) => Learnt::Gone,
                    Some(true) => Learnt::Disputed,
                    None => Learnt::Nothing,
                }
            }
            Err(error) => {
                tracing::debug!(task = %identity.key, %error, "task could not be asked for");
                Learnt::Nothing
            }
        }
    }

    /// Finds out, in the background, whether a task has ended.
    pub(crate) fn check(self: &Arc<Self>, task: &Arc<Task>) {
        if task.claim_check() {
            let (driver, task) = (Arc::clone(self), Arc::clone(task));
            tokio::spawn(async move {
                loop {
                    driver.watch_until_ended(&task).await;
                    if task.finish_check() {
                        break;
                    }
                }
            });
        }
    }

    /// Looks at every task that is taken to run.
    pub(crate) fn check_all(self: &Arc<Self>) {
        for task in self.tasks.running() {
            self.check(&task);
        }
    }

    async fn watch_until_ended(&self, task: &Task) {
        let mut pause = PAUSE;
        let mut doubts = 0;
        let mut health = self.helper.health();
        while task.exit().is_none() {
            if !matches!(*health.borrow_and_update(), Health::Up(_)) {
                tokio::select! {
                    _ = health.changed() => {}
                    _ = task.wait_until_ended() => {}
                }
                continue;
            }
            match self.learn(&task.identity, PATIENCE).await {
                Learnt::Known(found) => match found.state {
                    State::Ended(exit) => return publish(&self.helper.figures, task, exit),
                    State::Starting(_) | State::Running => {
                        task.set_leader(found.leader);
                        doubts += 1;
                        // Not reported by PID 1, or so often denied that the hint was wrong.
                        if !task.is_suspected() || doubts > DOUBTS {
                            return;
                        }
                        pause = pause.min(Duration::from_millis(500));
                    }
                },
                Learnt::Gone => {
                    return publish(&self.helper.figures, task, lost_exit(&task.identity));
                }
                Learnt::Disputed if task.is_first_dispute() => tracing::warn!(
                    task = task.id.as_str(),
                    unit = task.identity.unit.as_str(),
                    "the unit runs, but the helper does not know it yet"
                ),
                Learnt::Disputed | Learnt::Nothing => {}
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

impl Watcher for Arc<Driver> {
    fn watches(&self, path: &str) -> bool {
        self.tasks.at(path).is_some()
    }

    fn suspect(&self, path: &str) {
        if let Some(task) = self.tasks.at(path) {
            task.suspect();
            self.check(&task);
        }
    }

    fn suspect_all(&self) {
        self.check_all();
    }
}

/// Makes a task's end known.
pub(super) fn publish(figures: &Figures, task: &Task, exit: Exit) {
    tracing::info!(
        task = task.id.as_str(),
        code = exit.code,
        signal = exit.signal,
        oom = exit.oom,
        error = exit.error.as_str(),
        "task ended"
    );
    let oom = exit.oom;
    if task.end(exit) && oom {
        figures.count_oom_kill();
    }
}

/// The end of a task whose exit record is lost: a failure, never a success.
fn lost_exit(identity: &Identity) -> Exit {
    Exit {
        code: 1,
        signal: 0,
        oom: false,
        memory_peak: 0,
        memory_limit: 0,
        ended_ms: 0,
        error: format!(
            "unit {} is gone together with its exit status; was it stopped or reset by hand?",
            identity.unit
        ),
    }
}
