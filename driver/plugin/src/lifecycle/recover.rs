//! Taking over tasks that another process started, and recovering them after a crash of agent, plugin
//! or helper.
//!
//! Called for every stored handle one after another while the agent starts, so it is quick: the
//! time spent on waiting for a helper that is away is bounded for all tasks together. A task that
//! has ended meanwhile is taken over too; its exit status is delivered by the wait.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nomad_proto::drivers::TaskHandle;
use proto::wire::State;

use super::Driver;
use super::end_detection::{Learnt, publish};
use super::handle::{Identity, OLDER_DRIVER};
use super::task::Task;
use crate::error::Failure;
use crate::helper_client::Health;

/// Time for a helper that answers.
const ANSWER: Duration = Duration::from_secs(5);

impl Driver {
    /// Takes a task over.
    ///
    /// # Errors
    /// The handle is not this driver's, or the task is certainly gone.
    pub(crate) async fn recover(self: &Arc<Self>, handle: &TaskHandle) -> Result<(), Failure> {
        self.activate();
        if handle.version == OLDER_DRIVER {
            return Err(self.refuse_older(handle));
        }
        let (identity, details) = Identity::from_handle(handle)?;
        let id = identity.key.to_string();
        if let Some(known) = self.tasks.get(&id) {
            self.check(&known);
            return Ok(());
        }
        if identity.boot != self.boot {
            return Err(Failure::permanent(format!(
                "the host was rebooted after task {id} was started; its container is gone"
            )));
        }
        match self.learn(&identity, self.patience()).await {
            Learnt::Known(found) => {
                let task = self.tasks.add(Task::new(identity, details, found.leader));
                if let State::Ended(exit) = found.state {
                    publish(&self.helper.figures, &task, exit);
                }
                // Between answer and entry its end may have gone unseen.
                self.check(&task);
                self.follow_memory(&task);
            }
            Learnt::Gone => {
                return Err(Failure::permanent(format!(
                    "task {id} is gone together with its exit status: neither the nspawn helper \
                     nor systemd knows unit {}",
                    identity.unit
                )));
            }
            // Taken to run until helper or PID 1 can answer.
            Learnt::Disputed | Learnt::Nothing => {
                tracing::warn!(task = id.as_str(), "taken over unseen, to be checked");
                let task = self.tasks.add(Task::new(identity, details, None));
                self.check(&task);
                self.follow_memory(&task);
            }
        }
        tracing::info!(task = id.as_str(), "task recovered");
        Ok(())
    }

    /// How long one task may wait for its answer: a while when there was one last time, else what
    /// is left of the operator's `recover_timeout`, which counts from the start of the process
    /// and for all tasks together.
    fn patience(&self) -> Duration {
        if self.is_nobody() {
            return Duration::ZERO;
        }
        let most = self.config.borrow().recover_timeout.0;
        let up = matches!(*self.helper.health().borrow(), Health::Up(_));
        if up && !self.unanswered.load(Ordering::Relaxed) {
            return ANSWER.min(most);
        }
        let elapsed = self.active.get().map(tokio::time::Instant::elapsed);
        most.saturating_sub(elapsed.unwrap_or_default())
    }
}
