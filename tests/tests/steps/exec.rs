//! The worker of a command in a task, its copy, and the helper are killed around each step of a session:
//! nothing of the session is left, the task goes on, and so does the next command.

use crate::cache::enter;
use crate::task::{self, Hook};
use crate::{Kind, helper, moments, steps};
use nspawn_tests::hostile::{Client, Handmade, command};
use nspawn_tests::product::Variant;
use nspawn_tests::{Config, Rig, wait};
use proto::step::Step;
use proto::wire::Answer;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// A task, and who has commands executed in it.
struct Bench<'a> {
    rig: &'a Rig,
    task: Handmade<'a>,
    client: Client,
}

impl<'a> Bench<'a> {
    fn new(rig: &'a Rig) -> Self {
        task::allow_hooks(rig);
        let (task, client) = (Handmade::new(rig, "cut").unwrap(), enter(rig));
        let spec = task.spec(&["/bin/sleep", "454545"]).unwrap();
        let started = client.start(&spec).unwrap();
        assert!(matches!(started, Ok(Answer::Started(_))), "{started:?}");
        let bench = Self { rig, task, client };
        // The filters of the task's kind are there from here on.
        assert_eq!(bench.execute(), Ok("here\n".to_owned()));
        bench.tidy();
        bench
    }

    /// What a command has written; in words why it has not ended well.
    fn execute(&self) -> Result<String, String> {
        let words = ["/bin/sh", "-c", "(setsid sleep 464646 >/dev/null 2>&1 &); echo here"];
        let session = self.client.exec(&command(&self.task.key, &words));
        let session = session.map_err(|error| error.to_string())?;
        let mut session = session.map_err(|refusal| refusal.to_string())?;
        let started = session.started().map_err(|error| error.to_string())?;
        started.map_err(|refusal| refusal.to_string())?;
        Ok(session.finish().map_err(|error| error.to_string())?.stdout)
    }

    /// Cgroups of sessions.
    fn leaves(&self) -> String {
        self.rig.sh("find /sys/fs/cgroup -type d -name 'nomad-exec-*'").unwrap()
    }

    /// Nothing of a cut session is left, and the next command is executed. `is_cut`: otherwise the
    /// process that the command has left behind lives on, as it may.
    fn assert_goes_on(&self, hook: Hook, is_cut: bool) {
        if is_cut {
            let gone = || Ok(self.leaves().trim().is_empty());
            wait::true_within("the session's cgroup to be gone", SOON, gone)
                .unwrap_or_else(|e| panic!("{hook}: {e:#}: {}", self.rig.journal_tail(40)));
        }
        let ran = self.execute();
        assert_eq!(ran, Ok("here\n".to_owned()), "{hook}: {}", self.rig.journal_tail(40));
        self.tidy();
    }

    /// Ends what commands have left behind, and takes their cgroups away, as a later session would.
    fn tidy(&self) {
        self.rig.sh("pkill -KILL -f '[s]leep 464646' || true").unwrap();
        let remove = "find /sys/fs/cgroup -type d -name 'nomad-exec-*' -exec rmdir {} + || true";
        wait::true_within("no cgroup of a session", SOON, || {
            self.rig.sh(remove)?;
            Ok(self.leaves().trim().is_empty())
        })
        .unwrap();
    }
}

fn up() -> Rig {
    let config =
        Config { product: Some(Variant::StepHook), agent: false, ..Config::from_env().unwrap() };
    Rig::up(&config).unwrap()
}

fn wait_met(rig: &Rig, hook: Hook) {
    let met = wait::true_within("the moment to come", SOON, || Ok(!hook.is_armed(rig)));
    met.unwrap_or_else(|error| panic!("{hook}: {error:#}: {}", rig.journal_tail(40)));
}

#[test]
fn a_worker_killed_at_each_of_its_steps_leaves_nothing() {
    let rig = up();
    let bench = Bench::new(&rig);
    for hook in steps(Kind::Worker).flat_map(moments) {
        hook.arm(&rig, "self");
        let ran = bench.execute();
        wait_met(&rig, hook);
        // The last step comes when the driver has everything.
        let is_over = hook.step == Step::SessionEnd;
        assert_eq!(ran.is_ok(), is_over, "{hook}: {ran:?}");
        bench.assert_goes_on(hook, (hook.step, hook.moment) != (Step::SessionEnd, "after"));
    }
    bench.task.remove(&bench.client).unwrap();
    rig.down().unwrap();
}

#[test]
fn a_helper_killed_at_each_step_of_a_session_leaves_none_behind() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    for hook in steps(Kind::HelperExecutes).flat_map(moments) {
        hook.arm(&rig, "self");
        let ran = bench.execute();
        assert!(ran.is_err(), "{hook}: {ran:?}");
        wait_met(&rig, hook);
        bench.client = enter(&rig);
        bench.assert_goes_on(hook, true);
    }
    for hook in steps(Kind::Worker).flat_map(moments) {
        hook.arm(&rig, &helper(&rig));
        let ran = bench.execute();
        wait_met(&rig, hook);
        bench.client = enter(&rig);
        // Before that, the helper may have died with the driver's end of the session in its hands.
        assert!(ran.is_ok() || hook.step != Step::SessionEnd, "{hook}: {ran:?}");
        bench.assert_goes_on(hook, ran.is_err());
    }
    bench.task.remove(&bench.client).unwrap();
    rig.down().unwrap();
}
