//! Waiting until a command in a task that has been started succeeds: `ready.mode = "exec"`.
//!
//! Nomad waits with the start, so a task whose command never succeeds is undone like any other
//! start that has failed. The command is the job's and may write secrets: events show the end of
//! its output only when the start fails, where nobody could find out the reason otherwise.

use std::sync::Arc;
use std::time::Duration;

use nomad_proto::drivers::TaskConfig;
use tokio::time::{Instant, sleep};

use super::Driver;
use super::task::Task;
use crate::error::Failure;
use crate::exec::{Limits, last_line};
use crate::translate::Probe;

/// The longest pause between two tries, where the job names none that is longer. A task that takes
/// minutes must not cost the node a process in it each second.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The pause after one of this length.
fn longer(pause: Duration, interval: Duration) -> Duration {
    pause.saturating_add(pause / 2).min(interval.max(PAUSE_MAX))
}

impl Driver {
    /// Waits until the task is ready, or removes it.
    ///
    /// # Errors
    /// It has ended, or was not ready in time. Both may go better another time.
    pub(super) async fn wait_until_ready(
        self: &Arc<Self>,
        config: &TaskConfig,
        probe: &Probe,
    ) -> Result<(), Failure> {
        let timeout = probe.timeout;
        let waits = format!("Ready: waits until ready.command succeeds, at most {timeout:?}");
        self.events.send(config, &waits);
        let since = Instant::now();
        let result = match self.tasks.get(&config.id) {
            Some(task) => tokio::select! {
                // An end comes first: the command fails with it, for a lesser reason.
                biased;
                exit = task.wait_until_ended() => Err(format!(
                    "the task ended with exit code {} before its ready.command succeeded", exit.code
                )),
                result = self.repeat(&task, probe) => result,
            },
            None => Err("the task was removed before it was ready".to_owned()),
        };
        match result {
            Ok(()) => {
                let ready = format!(
                    "Ready: ready.command succeeded after {:.1} s",
                    since.elapsed().as_secs_f64()
                );
                self.events.send(config, &ready);
                Ok(())
            }
            Err(reason) => {
                self.destroy(&config.id).await;
                Err(Failure::recoverable(format!("ready: {reason}")))
            }
        }
    }

    /// Executes the command until it succeeds or the time is over.
    async fn repeat(self: &Arc<Self>, task: &Arc<Task>, probe: &Probe) -> Result<(), String> {
        let deadline = Instant::now() + probe.timeout;
        let (mut last, mut pause) = (String::new(), probe.interval);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!(
                    "ready.command did not succeed within {:?} ({last}); correct it, or raise \
                     ready.timeout",
                    probe.timeout
                ));
            }
            match self.run_script(&task.id, &probe.command, Limits::of_script(left)).await {
                Ok(finished) if finished.code == 0 => return Ok(()),
                Ok(finished) => {
                    let line = last_line(&finished.output);
                    let line = if line.is_empty() { "nothing".to_owned() } else { line };
                    last = format!("exit code {}, output ends with: {line}", finished.code);
                }
                // A program that is missing now may be unpacked by the payload in a moment.
                Err(failure) => last = failure.to_string(),
            }
            // That the task has ended may be the reason.
            self.check(task);
            sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
            pause = longer(pause, probe.interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_ten_seconds() {
        let seconds = Duration::from_secs_f64;
        let after = |interval: Duration, tries: usize| {
            (0..tries).fold(interval, |pause, _| longer(pause, interval))
        };
        assert_eq!(after(seconds(1.0), 1), seconds(1.5));
        assert_eq!(after(seconds(1.0), 2), seconds(2.25));
        assert_eq!(after(seconds(1.0), 20), PAUSE_MAX);
        assert_eq!(after(seconds(30.0), 20), seconds(30.0));
    }
}
