//! Ending a task: a signal, a stop with its timeout, the removal of everything.
//!
//! Where the wanted state is reached, the answer is OK, also for unknown tasks: an
//! error of StopTask makes Nomad wait for minutes, and one of DestroyTask is only logged.

use std::sync::Arc;
use std::time::Duration;

use proto::error::Code;
use proto::name::TaskKey;
use proto::wire::{self, Exit, Verb};
use tokio::time::timeout;

use super::Driver;
use super::task::Task;
use crate::error::Failure;
use crate::helper_client::CallError;
use crate::translate::signal;

const PATIENCE: Duration = Duration::from_secs(5);
/// Time for the kill to reach the helper, and for the last process to be gone after it.
const KILL: Duration = Duration::from_secs(15);
/// SIGCONT, which thaws a frozen task.
const CONTINUE: u8 = 18;
/// Time for an end to show when the payload could not be signalled.
const SHORT: Duration = Duration::from_secs(1);

impl Driver {
    /// Sends a signal to the payload of a task.
    ///
    /// # Errors
    /// Unknown signal or task, or the helper refused.
    pub(crate) async fn signal(&self, id: &str, name: &str) -> Result<(), Failure> {
        let Some(number) = signal::parse(name) else {
            return Err(Failure::permanent(format!(
                "signal {name:?} is not known; write a name like SIGHUP, SIGUSR1 or SIGRTMIN+3"
            )));
        };
        let task = self.tasks.get(id).ok_or_else(|| Failure::unknown_task(id))?;
        if task.exit().is_some() {
            return Err(Failure::permanent(format!("task {id} has ended")));
        }
        self.send(&task, number).await.map_err(|error| Failure::permanent(error.to_string()))
    }

    async fn send(&self, task: &Task, signal: u8) -> Result<(), CallError> {
        let verb = Verb::Signal(wire::Signal { key: task.identity.key.clone(), signal });
        self.helper.call(verb, PATIENCE).await.map(|_| ())
    }

    /// Asks the payload to end, waits, and kills what is left.
    ///
    /// # Errors
    /// The helper could not be asked to kill, or did not manage; Nomad tries again.
    pub(crate) async fn stop(
        self: &Arc<Self>,
        id: &str,
        patience: Duration,
        name: &str,
    ) -> Result<(), Failure> {
        let Some(task) = self.tasks.get(id).filter(|task| task.exit().is_none()) else {
            return Ok(());
        };
        if !patience.is_zero() {
            let number = self.stop_signal(&task, name);
            let patience = match self.send(&task, number).await {
                Ok(()) => {
                    self.thaw(&task).await;
                    patience
                }
                Err(error) => {
                    tracing::warn!(task = id, %error, "stop signal not delivered");
                    self.check(&task);
                    SHORT.min(patience)
                }
            };
            if timeout(patience, task.wait_until_ended()).await.is_ok() {
                return Ok(());
            }
            let message = format!(
                "Killed: it had not ended {patience:?} after signal {number}; raise kill_timeout, \
                 or see what it does with the signal"
            );
            self.events.send_for(&task.identity.key, &message);
        }
        self.kill(&task).await
    }

    /// Lets a frozen task run (`nomad alloc signal -s SIGSTOP`): it could not get the stop signal.
    async fn thaw(&self, task: &Task) {
        if self.bus.is_frozen(&task.identity.unit).await == Some(true)
            && let Err(error) = self.send(task, CONTINUE).await
        {
            tracing::warn!(task = task.id.as_str(), %error, "a frozen task could not be thawed");
        }
    }

    /// The job's signal, or the start mode's own; an unknown name must not keep a task
    /// from being stopped.
    fn stop_signal(&self, task: &Task, name: &str) -> u8 {
        let own = task.identity.stop_signal;
        if name.is_empty() {
            return own;
        }
        signal::parse(name).unwrap_or_else(|| {
            let message =
                format!("kill_signal {name:?} is not known; signal {own} is sent instead");
            tracing::warn!(task = task.id.as_str(), "{message}");
            self.events.send_for(&task.identity.key, &message);
            own
        })
    }

    async fn kill(self: &Arc<Self>, task: &Arc<Task>) -> Result<(), Failure> {
        let verb = Verb::Kill(task.identity.key.clone());
        let asked = self.helper.call(verb, KILL).await;
        self.check(task);
        match asked {
            Ok(_) => {}
            // It is gone already; the check finds that out.
            Err(CallError::Refused(refusal)) if refusal.code == Code::Unknown => {
                tracing::warn!(task = task.id.as_str(), %refusal, "kill refused");
            }
            // An error makes Nomad ask again, unless there is nothing left to kill.
            Err(error) => {
                return timeout(SHORT, task.wait_until_ended()).await.map(drop).map_err(|_| {
                    Failure::recoverable(format!("task {} is not killed: {error}", task.id))
                });
            }
        }
        if timeout(KILL, task.wait_until_ended()).await.is_err() {
            tracing::error!(
                task = task.id.as_str(),
                "killed, but its end has not shown yet; a process may hang in the kernel"
            );
        }
        Ok(())
    }

    /// Removes everything of a task, killing it when it runs.
    pub(crate) async fn destroy(&self, id: &str) {
        let task = self.tasks.get(id);
        let key = match &task {
            Some(task) => task.identity.key.clone(),
            None => match id.parse::<TaskKey>() {
                Ok(key) => key,
                // Never was a task of this driver.
                Err(_) => return,
            },
        };
        if let Err(error) = self.helper.remove(&key, PATIENCE).await {
            tracing::error!(task = id, %error, "removal not finished; it is tried again");
            self.leftovers.add(key);
        }
        self.forget(id);
    }

    /// Forgets a task that is gone, for whoever still waits for it.
    pub(super) fn forget(&self, id: &str) {
        if let Some(task) = self.tasks.get(id) {
            task.end(destroyed_exit());
            self.tasks.forget(id);
        }
    }
}

/// For whoever still waits for a task that was destroyed while it ran.
fn destroyed_exit() -> Exit {
    Exit {
        code: 128 + libc::SIGKILL,
        signal: libc::SIGKILL,
        oom: false,
        memory_peak: 0,
        memory_limit: 0,
        ended_ms: 0,
        error: "the task was destroyed while it ran".to_owned(),
    }
}
