//! Two tasks that end while something happens to the host: the agent tells each end as it was.

use crate::fleet::{LIMIT, Start, hcl};
use nix::sys::signal::Signal;
use nspawn_tests::{Alloc, Job, Rig, wait};

/// One that will exit with 33, one that will be killed.
pub(crate) struct Ends<'r> {
    rig: &'r Rig,
    job: Job,
    allocs: Vec<Alloc>,
}

impl<'r> Ends<'r> {
    pub(crate) fn start(rig: &'r Rig, name: &str) -> Self {
        let job = rig.run_job(&hcl(name, Start { count: 2, restarts: 0, two: false })).unwrap();
        let allocs = job.wait_allocs(2).unwrap();
        for alloc in &allocs {
            alloc.wait_running().unwrap();
            // Its traps are set.
            alloc.wait_logs("t", "stdout", LIMIT, |text| !text.is_empty()).unwrap();
        }
        Self { rig, job, allocs }
    }

    fn signal(&self, which: usize, signal: Signal) {
        let [init] = self.rig.containers_of(&self.allocs[which].id, 1)[..] else {
            panic!("not one container of {:?}", self.allocs[which])
        };
        init.signal(signal).unwrap();
    }

    pub(crate) fn exit(&self) {
        self.signal(0, Signal::SIGUSR2);
    }

    pub(crate) fn kill(&self) {
        self.signal(1, Signal::SIGKILL);
    }

    /// The agent has been told the truth, in time.
    pub(crate) fn assert_told(self) {
        for (alloc, expected) in self.allocs.iter().zip([(33, 0), (137, 9)]) {
            let end = wait::until("the end to be told", LIMIT, || Ok(alloc.task("t")?.exit()));
            assert_eq!(end.unwrap(), expected, "{:?}", alloc.task("t"));
        }
        self.job.purge().unwrap();
    }
}
