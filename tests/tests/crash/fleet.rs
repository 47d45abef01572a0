//! Ten tasks that must not notice anything, and a single one that comes and goes.

use nspawn_tests::processes::Process;
use nspawn_tests::shell::ShellJob;
use nspawn_tests::{Alloc, Job, Rig, wait};
use std::collections::BTreeMap;
use std::time::Duration;

/// Tasks of the fleet.
pub(crate) const SHIPS: usize = 10;
/// Longest time until everything is as it was.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Counts in its log, says when it gets USR1, ends with 33 on USR2 and with 7 on TERM. `sleep` in
/// the background: a shell looks at its traps when `wait` returns.
const PAYLOAD: &str = "trap 'echo usr1' USR1; trap 'exit 33' USR2; trap 'echo bye; exit 7' TERM; \
                       i=0; while :; do echo $i; i=$((i+1)); sleep 0.2 & wait $!; done";

/// How often and in which way a task is started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    /// Tasks of the job.
    pub(crate) count: usize,
    /// How often each may be started again.
    pub(crate) restarts: usize,
    /// Whether the command is PID 2 below a stub init.
    pub(crate) two: bool,
}

/// A job of such tasks.
pub(crate) fn hcl(name: &str, start: Start) -> String {
    let Start { count, restarts, two } = start;
    let job = ShellJob {
        name,
        kind: "service",
        count,
        restarts,
        process_two: two,
        port: false,
        kill_timeout: "3s",
        script: PAYLOAD,
    };
    job.hcl()
}

/// The ten tasks as they were when they had been started.
pub(crate) struct Fleet<'r> {
    pub(crate) rig: &'r Rig,
    job: Job,
    allocs: Vec<Alloc>,
    containers: BTreeMap<String, Process>,
}

impl<'r> Fleet<'r> {
    pub(crate) fn start(rig: &'r Rig) -> Self {
        let job =
            rig.run_job(&hcl("fleet", Start { count: SHIPS, restarts: 0, two: false })).unwrap();
        let allocs = job.wait_allocs(SHIPS).unwrap();
        allocs.iter().for_each(|alloc| drop(alloc.wait_running().unwrap()));
        let containers = rig.containers();
        assert_eq!(containers.len(), SHIPS, "{containers:?}");
        Self { rig, job, allocs, containers }
    }

    /// No container has ended or been started anew.
    pub(crate) fn assert_untouched(&self) {
        let now = self.rig.containers();
        for (unit, init) in &self.containers {
            assert_eq!(now.get(unit), Some(init), "{unit}");
        }
    }

    /// The agent can reach one task's payload, through driver and helper, and its logs go on.
    pub(crate) fn assert_reached(&self, ship: usize) {
        let alloc = &self.allocs[ship];
        let count = |text: &[u8]| text.split(|b| *b == b'\n').filter(|l| *l == b"usr1").count();
        let before = count(&alloc.logs("t", "stdout").unwrap());
        self.wait_reached(alloc);
        alloc.wait_logs("t", "stdout", LIMIT, |text| count(text) > before).unwrap();
    }

    /// The agent has taken over every task again. Before that, a plugin must not be killed once
    /// more: Nomad tries to recover a task once, and takes it for lost when that fails.
    pub(crate) fn wait_recovered(&self) {
        self.allocs.iter().for_each(|alloc| self.wait_reached(alloc));
    }

    /// The agent has, after a plugin's death, taken over this task.
    pub(crate) fn wait_reached(&self, alloc: &Alloc) {
        let mut last = String::new();
        wait::true_within("the agent to reach a task again", LIMIT, || {
            let sent = alloc.signal("t", "SIGUSR1");
            last = format!("{sent:?}");
            Ok(sent.is_ok())
        })
        .unwrap_or_else(|error| {
            let grep = format!("journalctl --no-pager -o cat | grep {} | tail -20", alloc.id);
            panic!("{error:#}: {last}\n{}", self.rig.sh(&grep).unwrap_or_default())
        });
    }

    /// The agent shows every task as running and as never restarted.
    pub(crate) fn assert_shown_running(&self) {
        for alloc in &self.allocs {
            let value = alloc.wait_running().unwrap();
            let task = alloc.task("t").unwrap();
            assert!(value["ClientStatus"] == "running" && task.restarts() == 0, "{task:?}");
            assert!(task.events().iter().all(|event| event.kind != "Terminated"), "{task:?}");
        }
    }

    /// Every line that a task has written is in its log, once and in order.
    pub(crate) fn assert_logs_complete(&self) {
        for alloc in &self.allocs {
            let text = alloc.logs("t", "stdout").unwrap();
            let text = String::from_utf8(text).unwrap();
            let numbers = text.lines().filter(|line| *line != "usr1");
            for (line, number) in numbers.clone().zip(0..) {
                assert_eq!(line, number.to_string(), "{}", alloc.id);
            }
            assert!(numbers.count() > 3, "{text}");
        }
    }

    pub(crate) fn end(self) {
        self.job.purge().unwrap();
    }
}
