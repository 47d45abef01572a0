//! Script checks of many tasks at once, each at its interval, on a host that is busy with them.

use crate::plugin::{Allocation, Plugin};
use anyhow::Result;
use nomad_proto::drivers::ExecTaskRequest;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Tasks with a check, and how often each is asked.
const TASKS: usize = 50;
const INTERVAL: Duration = Duration::from_secs(2);
const ROUNDS: u32 = 5;

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Checks {
    /// Checks that were asked for.
    pub asked: usize,
    /// Those that did not succeed within their interval.
    pub missed: usize,
    /// Milliseconds that the slowest took.
    pub slowest: f64,
}

impl Checks {
    pub(super) fn json(&self) -> Value {
        json!({ "asked": self.asked, "missed": self.missed, "slowest_ms": self.slowest })
    }
}

impl fmt::Display for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, missed, slowest } = self;
        writeln!(f, "script checks of {TASKS} tasks, every {} s", INTERVAL.as_secs())?;
        writeln!(f, "  {asked} checks, {missed} missed, the slowest {slowest:.1} ms")
    }
}

/// Runs the checks of the first tasks of a crowd, each a command of the shell as Consul's are.
///
/// # Errors
/// When a check's thread fails; a check that fails is counted.
pub(super) async fn run(plugin: &Plugin, crowd: &[Allocation]) -> Result<Checks> {
    let begun = Instant::now();
    let mut all = Vec::new();
    for (number, allocation) in (0_u32..).zip(crowd.iter().take(TASKS)) {
        let task_id = allocation.task_id(1);
        let driver = plugin.driver();
        // Spread over the interval, as by chance.
        let offset = INTERVAL * number / u32::try_from(TASKS)?;
        all.push(tokio::spawn(async move {
            let mut times = Vec::new();
            for round in 0..ROUNDS {
                tokio::time::sleep_until(begun + offset + INTERVAL * round).await;
                let request = ExecTaskRequest {
                    task_id: task_id.clone(),
                    command: ["/bin/sh", "-c", "test -d /alloc"].map(str::to_owned).to_vec(),
                    timeout: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
                };
                let called = Instant::now();
                let reply = driver.clone().exec_task(request).await;
                let ended = reply.ok().and_then(|reply| reply.into_inner().result);
                let good = ended.is_some_and(|ended| ended.exit_code == 0 && ended.signal == 0);
                times.push((good, called.elapsed()));
            }
            times
        }));
    }
    let mut checks = Checks::default();
    for task in all {
        for (good, time) in task.await? {
            checks.asked += 1;
            checks.missed += usize::from(!good || time > INTERVAL);
            checks.slowest = checks.slowest.max(time.as_secs_f64() * 1000.0);
        }
    }
    Ok(checks)
}
