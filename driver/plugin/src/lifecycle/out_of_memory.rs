//! What a person is told when the kernel kills processes of a task for want of memory: of the first
//! at once, also when the task goes on, of further ones in sums, and once more at the task's end.
//!
//! The counts are the kernel's. A plugin that comes later tells what it finds: it may have been
//! told before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proto::wire::Exit;
use tokio::time::{Instant, sleep};

use super::Driver;
use super::task::Task;
use crate::node::cgroup;

/// Between two questions for a unit's control group.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at the counts: a task at its limit changes them all the time.
const SETTLE: Duration = Duration::from_millis(100);

/// Between the first two messages about kills; it doubles from one to the next. A task that starts
/// what is killed again at once would have ten a second, for ever.
const BETWEEN_MIN: Duration = Duration::from_secs(1);
/// The most between two. After as long without any, the next is sent at once again.
const BETWEEN_MAX: Duration = Duration::from_secs(60);

/// How long to be silent after a message. `before`: the silence after the last, and the time since.
fn silence(before: Option<(Duration, Duration)>) -> Duration {
    match before {
        Some((silence, since)) if since < silence + BETWEEN_MAX => {
            silence.saturating_mul(2).min(BETWEEN_MAX)
        }
        _ => BETWEEN_MIN,
    }
}

/// The memory of a task at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    kills: u64,
    /// In bytes; 0: none, or unknown.
    limit: u64,
    /// The most so far, in bytes; 0 when unknown.
    peak: u64,
}

impl Seen {
    /// Reads them; `None` when the cgroup is gone.
    fn read(directory: &Path) -> Option<Self> {
        let text = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
        let number = |name: &str| text(name)?.trim().parse().ok();
        let [kills] = cgroup::fields(&text("memory.events")?, ["oom_kill"]);
        Some(Self {
            kills: kills.unwrap_or_default(),
            limit: number("memory.max").unwrap_or_default(),
            peak: number("memory.peak").unwrap_or_default(),
        })
    }
}

impl Driver {
    /// Tells of processes of the task that are killed, until it has ended.
    pub(super) fn follow_memory(self: &Arc<Self>, task: &Arc<Task>) {
        let (driver, task) = (Arc::clone(self), Arc::clone(task));
        tokio::spawn(async move {
            let exit = tokio::select! {
                () = driver.report_kills(&task) => task.wait_until_ended().await,
                exit = task.wait_until_ended() => exit,
            };
            if exit.oom {
                driver.events.send_for(&task.identity.key, &end_message(&exit));
            }
        });
    }

    /// Ends where there is nothing to be seen: without the memory controller, or with the cgroup.
    async fn report_kills(&self, task: &Task) {
        let group = loop {
            match self.bus.control_group(&task.identity.unit).await {
                Some(group) => break group,
                None => sleep(PAUSE).await,
            }
        };
        let Some(directory) = cgroup::directory(&group) else { return };
        let Ok(watch) = self.memory_events.watch(&directory.join("memory.events")) else { return };
        let (mut told, mut last) = (0, None::<(Duration, Instant)>);
        while let Some(seen) = Seen::read(&directory) {
            let pause = if seen.kills > told {
                self.events.send_for(&task.identity.key, &kill_message(told, seen));
                told = seen.kills;
                let silence = silence(last.map(|(silence, sent)| (silence, sent.elapsed())));
                last = Some((silence, Instant::now()));
                silence
            } else {
                SETTLE
            };
            sleep(pause).await;
            // Also what came meanwhile.
            watch.changed().await;
        }
    }
}

fn kill_message(told: u64, seen: Seen) -> String {
    let who = match seen.kills.saturating_sub(told) {
        1 => "A process of the task was".to_owned(),
        number => format!("{number} processes of the task were"),
    };
    format!("{who} killed for want of memory: {}", amounts(seen.limit, seen.peak))
}

fn end_message(exit: &Exit) -> String {
    let amounts = amounts(exit.memory_limit, exit.memory_peak);
    format!("The task has ended for want of memory: {amounts}")
}

/// Limit and most memory used, in MiB.
fn amounts(limit: u64, peak: u64) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1 << 20));
    let limit = match limit {
        0 => "no limit of its own".to_owned(),
        limit => format!("limit {}", mib(limit)),
    };
    match peak {
        0 => limit,
        peak => format!("{limit}, most used {}", mib(peak)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d35_limit_and_peak_are_told() {
        let seen = Seen { kills: 3, limit: 64 << 20, peak: (64 << 20) - 1 };
        let killed = "killed for want of memory: limit 64 MiB, most used 64 MiB";
        assert_eq!(kill_message(2, seen), format!("A process of the task was {killed}"));
        assert_eq!(kill_message(0, seen), format!("3 processes of the task were {killed}"));
        assert_eq!(amounts(0, 5 << 20), "no limit of its own, most used 5 MiB");
        assert_eq!(amounts(1 << 20, 0), "limit 1 MiB");
    }

    /// The first at once, sums later: a loop of kills has some sixty messages an hour.
    #[test]
    fn messages_about_kills_become_rare() {
        let second = Duration::from_secs(1);
        let mut pauses = vec![silence(None)];
        for _ in 0..7 {
            let last = *pauses.last().unwrap();
            pauses.push(silence(Some((last, last))));
        }
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs);
        assert_eq!(pauses, expected);
        assert_eq!(silence(Some((8 * second, 67 * second))), 16 * second);
        assert_eq!(silence(Some((8 * second, 68 * second))), BETWEEN_MIN);
        assert_eq!(silence(Some((60 * second, 120 * second))), BETWEEN_MIN);
    }

    #[test]
    fn counts_are_those_of_the_cgroup() {
        let directory = std::env::temp_dir().join(format!("nspawn-oom-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        assert_eq!(Seen::read(&directory), None);
        let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
        write("memory.events", "low 0\nmax 9\noom 2\noom_kill 1\noom_group_kill 0\n");
        assert_eq!(Seen::read(&directory), Some(Seen { kills: 1, limit: 0, peak: 0 }));
        write("memory.max", "max\n");
        write("memory.peak", "77\n");
        assert_eq!(Seen::read(&directory), Some(Seen { kills: 1, limit: 0, peak: 77 }));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
