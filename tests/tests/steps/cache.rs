//! The fill of the cache of system call filters, the launcher that installs them, and the helper are
//! killed around each step of it: never a payload with other filters than systemd-nspawn makes, and never
//! a start that fails because a fill has died.
//!
//! Filters are read from outside and compared byte by byte with those of a start without the cache.

use crate::task::{self, HOOKS, Hook};
use crate::{Kind, steps};
use nspawn_tests::filters::Filters;
use nspawn_tests::filters::read::{self, CACHE};
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::product::Variant;
use nspawn_tests::{Config, Rig, outer, wait};
use proto::name::Instance;
use proto::step::Step;
use proto::task_spec::TaskSpec;
use proto::wire::{Answer, State, Verb};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const WORDS: [&str; 2] = ["/bin/sleep", "434343"];
const SWITCHED_OFF: &str = "preset = \"compat\"\n[seccomp]\ncache = false\n";
const HELPER: &str = "nomad-nspawn-helper.service";
/// The unit of a fill.
const FILL: &str = "nomad-nspawn-filters.service";
/// Filters of a set.
const COUNT: u32 = 5;

/// A moment of a step, and how often the step is met before it.
#[derive(Debug, Clone, Copy)]
struct Moment {
    hook: Hook,
    left: u32,
}

impl Moment {
    /// Lets the next process that meets it kill `victim`.
    fn arm(self, rig: &Rig, victim: &str) {
        self.hook.arm(rig, &format!("{victim} 9 {}", self.left));
    }

    fn is_over(self, rig: &Rig) -> bool {
        !self.hook.is_armed(rig)
    }
}

fn moments(step: Step, count: u32) -> impl Iterator<Item = Moment> {
    let both = ["before", "after"].into_iter();
    both.flat_map(move |moment| {
        (0..count).map(move |left| Moment { hook: Hook { step, moment }, left })
    })
}

/// Those of the launcher while it installs filters.
fn moments_of_a_start() -> impl Iterator<Item = Moment> {
    moments(Step::Keyring, 1).chain(moments(Step::Filter, COUNT))
}

/// One host, one allocation, one run after another.
struct Bench<'a> {
    rig: &'a Rig,
    task: Handmade<'a>,
    client: Client,
    expected: Filters,
    run: u32,
}

fn up() -> Rig {
    let config =
        Config { product: Some(Variant::StepHook), agent: false, ..Config::from_env().unwrap() };
    let rig = Rig::up(&config).unwrap();
    task::allow_hooks(&rig);
    rig
}

impl<'a> Bench<'a> {
    fn new(rig: &'a Rig) -> Self {
        rig.set_policy(SWITCHED_OFF).unwrap();
        let (task, client) = (Handmade::new(rig, "killed").unwrap(), enter(rig));
        let mut bench = Self { rig, task, client, expected: Filters::new(), run: 0 };
        let spec = bench.next();
        bench.start(&spec).unwrap();
        let (expected, is_cached) = bench.look();
        assert!(expected.len() >= 5 && !is_cached);
        bench.remove(&spec);
        bench.expected = expected;
        rig.set_policy("preset = \"compat\"\n").unwrap();
        bench
    }

    fn next(&mut self) -> TaskSpec {
        self.run += 1;
        let mut spec = self.task.spec(&WORDS).unwrap();
        spec.key.instance = Instance(self.run);
        spec
    }

    /// Starts it; the text of what went wrong instead.
    fn start(&self, spec: &TaskSpec) -> Result<(), String> {
        match self.client.start(spec) {
            Ok(Ok(Answer::Started(_))) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    fn remove(&self, spec: &TaskSpec) {
        assert_eq!(self.client.ask(Verb::Remove(spec.key.clone())).unwrap(), Ok(Answer::Removed));
    }

    fn payloads(&self) -> usize {
        self.rig.containers_of(&self.task.key.alloc.to_string(), 1).len()
    }

    /// The filters of the one payload, and whether they are from the cache.
    fn look(&self) -> (Filters, bool) {
        let found = self.rig.containers_of(&self.task.key.alloc.to_string(), 1);
        assert_eq!(found.len(), 1, "{found:?}");
        let status = std::fs::read_to_string(format!("/proc/{}/status", found[0].pid)).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
        let is_cached = read::is_without_own(parent.trim().parse().unwrap()).unwrap();
        (read::of_process(found[0].pid).unwrap(), is_cached)
    }

    /// The one payload is confined as it must be; whether by the cache.
    fn assert_confined(&self, what: &str) -> bool {
        let (found, is_cached) = self.look();
        assert!(found == self.expected, "{what}: {} filters", found.len());
        is_cached
    }

    /// A start goes well, now.
    fn assert_starts(&mut self, what: &str) -> bool {
        let spec = self.next();
        let started = self.start(&spec);
        assert_eq!(started, Ok(()), "{what}: {}", self.rig.journal_tail(40));
        let is_cached = self.assert_confined(what);
        self.remove(&spec);
        is_cached
    }

    /// The cache is in use again.
    fn await_cache(&mut self) {
        let limit = std::time::Instant::now() + SOON;
        while !self.assert_starts("with the cache") {
            assert!(limit > std::time::Instant::now(), "the cache is not in use");
        }
    }

    /// The next helper's; what it has found of the task.
    fn find(&mut self, spec: &TaskSpec) -> Option<State> {
        self.client = enter(self.rig);
        wait::until("the state of the task", SOON, || {
            Ok(match self.client.ask(Verb::Status(spec.key.clone()))? {
                Ok(Answer::Status(task)) if matches!(task.state, State::Starting(_)) => None,
                Ok(Answer::Status(task)) => Some(Some(task.state)),
                _ => Some(None),
            })
        })
        .unwrap()
    }

    fn remove_all(self) {
        self.task.remove(&self.client).unwrap();
    }
}

/// A connection to the helper as soon as it is there.
pub(crate) fn enter(rig: &Rig) -> Client {
    wait::until("the helper", SOON, || Ok(Door::of(rig).and_then(|door| door.enter()).ok()))
        .unwrap()
}

/// The helper's pid within the host.
fn helper(rig: &Rig) -> String {
    let look = || Ok(Some(rig.main_pid(HELPER)?).filter(|pid| *pid != 0));
    wait::until("the helper", SOON, look).unwrap().to_string()
}

/// Names of entries.
fn sets(names: &str) -> Vec<&str> {
    names.split_whitespace().filter(|name| name.len() == 32).collect()
}

fn is_filling(rig: &Rig) -> bool {
    let state = rig.exec(&["systemctl", "is-active", FILL]).unwrap();
    matches!(state.text().trim(), "active" | "activating" | "deactivating")
}

/// A launcher that dies between two filters leaves nothing, and the next start is a good one.
#[test]
fn a_launcher_killed_around_each_filter_leaves_no_payload() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    bench.await_cache();
    for moment in moments_of_a_start() {
        let spec = bench.next();
        moment.arm(&rig, "self");
        let started = bench.start(&spec);
        assert!(started.is_err() && moment.is_over(&rig), "{moment:?}: {started:?}");
        assert_eq!(bench.payloads(), 0, "{moment:?}");
        bench.remove(&spec);
        assert!(bench.assert_starts("the next"), "{moment:?}");
    }
    bench.remove_all();
    rig.down().unwrap();
}

/// The launcher goes on without a helper, and the next helper takes its payload over.
#[test]
fn a_helper_killed_around_each_filter_finds_a_payload_that_is_confined() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    bench.await_cache();
    for moment in moments_of_a_start() {
        let spec = bench.next();
        moment.arm(&rig, &helper(&rig));
        let started = bench.start(&spec);
        assert!(started.is_err() && moment.is_over(&rig), "{moment:?}: {started:?}");
        let found = bench.find(&spec);
        assert_eq!(found, Some(State::Running), "{moment:?}: {}", rig.journal_tail(40));
        assert!(bench.assert_confined(&format!("{moment:?}")), "{moment:?}: not from the cache");
        bench.remove(&spec);
    }
    bench.remove_all();
    rig.down().unwrap();
}

/// Both: nothing runs, and nothing is taken for running.
#[test]
fn helper_and_launcher_killed_around_each_filter_leave_no_payload() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    bench.await_cache();
    for left in 0..COUNT {
        let spec = bench.next();
        let [first, second] = ["before", "after"]
            .map(|moment| Moment { hook: Hook { step: Step::Filter, moment }, left });
        first.arm(&rig, &helper(&rig));
        second.arm(&rig, "self");
        assert!(bench.start(&spec).is_err(), "{left}: the helper was to die");
        let found = bench.find(&spec);
        assert!(first.is_over(&rig) && second.is_over(&rig), "{left}: {found:?}");
        assert_ne!(found, Some(State::Running), "{left}");
        assert_eq!(bench.payloads(), 0, "{left}: {found:?}");
        bench.remove(&spec);
        bench.assert_starts("the next");
    }
    bench.remove_all();
    rig.down().unwrap();
}

/// Empties the cache and lets a new helper fill it, with a moment at which the fill, or that helper, is
/// killed; a task starts meanwhile. Whether the moment came.
fn start_beside_a_fill(bench: &mut Bench<'_>, moment: Moment, kills_helper: bool) -> bool {
    let rig = bench.rig;
    let what = format!("{moment:?}, kills the helper: {kills_helper}");
    rig.run(&["systemctl", "stop", HELPER]).unwrap();
    rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
    if kills_helper {
        // The fill waits for the helper's pid: nobody has it before.
        rig.run(&["systemctl", "start", HELPER]).unwrap();
        moment.arm(rig, &helper(rig));
        bench.client = enter(rig);
        // Another set than the one that may be made by now.
        rig.sh(&format!("rm -rf {CACHE}/*")).unwrap();
    } else {
        moment.arm(rig, "self");
        rig.run(&["systemctl", "start", HELPER]).unwrap();
        bench.client = enter(rig);
    }
    let spec = bench.next();
    let started = bench.start(&spec);
    if kills_helper && started.is_err() {
        // It died under the start, which its successor goes on with or undoes.
        let found = bench.find(&spec);
        if found == Some(State::Running) {
            bench.assert_confined(&what);
        } else {
            assert_eq!(bench.payloads(), 0, "{what}: {found:?}");
        }
    } else {
        assert_eq!(started, Ok(()), "{what}: {}", rig.journal_tail(40));
        bench.assert_confined(&what);
    }
    // Not before it has begun: then it is killed, or makes sets.
    let has_sets = || rig.run(&["ls", CACHE]).is_ok_and(|names| !sets(&names).is_empty());
    wait::true_within("the fill's end", SOON, || {
        Ok(moment.is_over(rig) || (!is_filling(rig) && has_sets()))
    })
    .unwrap();
    bench.client = enter(rig);
    // Between two sets nothing is being filled: the helper may be killed at the second one only now.
    let removed = bench.client.ask(Verb::Remove(spec.key.clone()));
    if kills_helper && removed.is_err() {
        bench.client = enter(rig);
        bench.remove(&spec);
    } else {
        assert_eq!(removed.unwrap(), Ok(Answer::Removed), "{what}");
    }
    moment.is_over(rig)
}

/// After that, everything that the killed ones have left is taken away by the next fill.
fn assert_filled_again(bench: &mut Bench<'_>) {
    let rig = bench.rig;
    rig.sh(&format!("rm -f {HOOKS}/*")).unwrap();
    wait::true_within("the last fill's end", SOON, || Ok(!is_filling(rig))).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    bench.client = enter(rig);
    bench.await_cache();
    wait::true_within("the fill's end", SOON, || Ok(!is_filling(rig))).unwrap();
    let names = rig.run(&["ls", CACHE]).unwrap();
    assert_eq!(sets(&names).len(), names.split_whitespace().count(), "{names}");
    let left = rig.exec(&["pgrep", "-x", "systemd-nspawn"]).unwrap();
    assert!(!left.success(), "{}", left.text());
}

#[test]
fn a_fill_killed_at_each_stop_fails_no_start() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    let others = steps(Kind::Fill).filter(|step| *step != Step::FillStop);
    for moment in others.flat_map(|step| moments(step, 1)) {
        assert!(start_beside_a_fill(&mut bench, moment, false), "{moment:?} was not met");
    }
    let mut stops = 0;
    loop {
        let hook = Hook { step: Step::FillStop, moment: "before" };
        // A busy host may miss one that there is.
        let mut met =
            (0..3).map(|_| start_beside_a_fill(&mut bench, Moment { hook, left: stops }, false));
        if !met.any(|met| met) {
            break;
        }
        stops += 1;
    }
    outer::tell(&format!("{}: killed at {stops} stops", rig.suite().name()));
    assert!(stops >= 24, "four runs of systemd-nspawn have more stops than {stops}");
    assert_filled_again(&mut bench);
    bench.remove_all();
    rig.down().unwrap();
}

#[test]
fn a_helper_killed_at_steps_of_a_fill_leaves_no_payload_unconfined() {
    let rig = up();
    let mut bench = Bench::new(&rig);
    let others = steps(Kind::Fill).filter(|step| *step != Step::FillStop);
    let stops = [0, 7, 14, 21]
        .map(|left| Moment { hook: Hook { step: Step::FillStop, moment: "before" }, left });
    let mut met = 0;
    for moment in others.flat_map(|step| moments(step, 1)).chain(stops) {
        met += u32::from(start_beside_a_fill(&mut bench, moment, true));
        rig.sh(&format!("rm -f {HOOKS}/*")).unwrap();
    }
    outer::tell(&format!("{}: {met} moments met", rig.suite().name()));
    assert!(met >= 5, "{met} moments met");
    assert_filled_again(&mut bench);
    bench.remove_all();
    rig.down().unwrap();
}
