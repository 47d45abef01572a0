//! kill -9 of plugin, helper and agent, alone and together, at moments spread over start, run and
//! stop.

use crate::fleet::{Fleet, LIMIT, SHIPS, Start, hcl};
use crate::killers::{Killers, Victims, revive};
use crate::random::Random;
use crate::{Host, rig};
use nix::sys::signal::Signal;
use nspawn_tests::job::Event;
use nspawn_tests::processes::Part;
use nspawn_tests::{Alloc, Job, Rig, World, wait};
use std::time::{Duration, Instant};

/// Two kills each: one while a task starts, one while it ends or runs.
const ROUNDS: usize = 26;
/// Every so many rounds the agent is among the victims; its start takes seconds.
const AGENT_EVERY: usize = 6;
/// A start, an end and a stop take about so long, the kill's moment is spread over it.
const SPREAD_MS: usize = 350;

/// How Nomad says that it could not ask a driver about a task that had just been placed
/// (`makeFailedAlloc` in Nomad's client/client.go). The driver never hears of such an allocation;
/// Nomad places it anew where the job's `reschedule` block allows it.
const TURNED_AWAY: &str =
    "Unable to add allocation due to error: failed creating runner for task \"t\": ";
/// So often in a row the few milliseconds in which that happens are not met.
const OFFERS: usize = 4;

/// Units of runs.
const RUNS: &str = "nomad-nspawn-*-*.service";
/// A run whose plugin died before it could tell Nomad, and whose job was stopped before Nomad tried
/// again, is removed when its allocation's directory is gone at two looks of the helper.
const ORPHANS: Duration = Duration::from_secs(60);

/// What happens to a task when the parts are killed.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It exits with 33.
    Exit,
    /// Its command is killed with this signal.
    Signal(Signal),
    /// The job is stopped; the task exits with 7 on SIGTERM.
    Stop,
    /// Nothing, it is stopped later.
    Nothing,
}

/// The last one is for tasks with `process_two`: the kernel keeps other signals than SIGKILL from a
/// container's PID 1 that has no handler.
const FATES: [Fate; 5] = [
    Fate::Exit,
    Fate::Signal(Signal::SIGKILL),
    Fate::Stop,
    Fate::Nothing,
    Fate::Signal(Signal::SIGSEGV),
];

#[test]
fn no_task_notices_that_plugin_helper_or_agent_are_killed() {
    let (rig, _turn) = rig(Host::Rounds);
    let before = World::snapshot(rig).unwrap();
    let mut random = Random::new();
    let fleet = Fleet::start(rig);
    let (mut killers, mut jobs) = (Killers::default(), Vec::new());
    for round in 0..ROUNDS {
        let start = Instant::now();
        let with_agent = round % AGENT_EVERY == 0;
        let two = round % 2 == 1;
        let victims = killers.draw(&mut random, with_agent);
        let (job, alloc) = started_under_fire(&fleet, &mut random, round, &mut killers, victims);
        fleet.wait_recovered();
        let fate = FATES[random.below(FATES.len() - usize::from(!two))];
        let with_agent = round % AGENT_EVERY == AGENT_EVERY / 2;
        let victims = killers.draw(&mut random, with_agent);
        eprintln!("round {round}: {victims:?} at {fate:?} of {}", alloc.id);
        let happened = Duration::from_millis(20) + random.up_to_ms(SPREAD_MS);
        let first = random.below(2) == 0;
        if first {
            befall(rig, &job, &alloc, fate, two);
            std::thread::sleep(happened);
        }
        killers.kill(rig, victims);
        if !first {
            befall(rig, &job, &alloc, fate, two);
        }
        revive(rig, victims);
        fleet.wait_recovered();
        assert_true_end(&alloc, fate);
        fleet.assert_untouched();
        fleet.assert_reached(random.below(SHIPS));
        job.stop().unwrap();
        jobs.push(job);
        eprintln!("round {round}: {:.1} s", start.elapsed().as_secs_f64());
    }
    (0..SHIPS).for_each(|ship| fleet.assert_reached(ship));
    fleet.assert_untouched();
    fleet.assert_shown_running();
    fleet.assert_logs_complete();
    fleet.end();
    jobs.iter().for_each(|job| job.purge().unwrap());
    killers.assert_all_struck();
    wait::true_within("runs that nobody was told of to be removed", ORPHANS, || {
        let all = ["systemctl", "list-units", "--all", "--plain", "--no-legend", RUNS];
        Ok(rig.run(&all)?.trim().is_empty())
    })
    .unwrap();
    before.assert_same(rig).unwrap();
}

/// Starts a task while parts are killed. It may take Nomad a second try.
fn started_under_fire(
    fleet: &Fleet<'_>,
    random: &mut Random,
    round: usize,
    killers: &mut Killers,
    victims: Victims,
) -> (Job, Alloc) {
    let (job, alloc) = (0..OFFERS)
        .find_map(|offer| offered_under_fire(fleet, random, (round, offer), killers, victims))
        .unwrap_or_else(|| panic!("turned away {OFFERS} times in a row"));
    let tries = alloc.task("t").unwrap().restarts() + 1;
    eprintln!("round {round}: {victims:?} at the start of {}, {tries} tries", alloc.id);
    let containers = fleet.rig.containers_of(&alloc.id, 1);
    assert_eq!(containers.len(), 1, "{containers:?}");
    let now = alloc.logs("t", "stdout").unwrap_or_default().len();
    alloc.wait_logs("t", "stdout", LIMIT, |text| text.len() > now).unwrap();
    fleet.wait_reached(&alloc);
    (job, alloc)
}

/// One such start. None when the agent itself turned the allocation away, having found no plugin to
/// ask for its configuration's schema: nothing may be left of it then.
fn offered_under_fire(
    fleet: &Fleet<'_>,
    random: &mut Random,
    (round, offer): (usize, usize),
    killers: &mut Killers,
    victims: Victims,
) -> Option<(Job, Alloc)> {
    let start = Start { count: 1, restarts: 3, two: round % 2 == 1 };
    let rig = fleet.rig;
    let job = rig.run_job(&hcl(&format!("extra-{round}-{offer}"), start)).unwrap();
    std::thread::sleep(random.up_to_ms(SPREAD_MS));
    killers.kill(rig, victims);
    revive(rig, victims);
    let explained = |error: &dyn std::fmt::Display| {
        let logs = ["nomad.service", "nomad-nspawn-helper.service"].map(|it| rig.unit_tail(it, 90));
        format!("round {round}, {victims:?}: {error:#}\n{}", logs.join("\n"))
    };
    let alloc = job.alloc().unwrap_or_else(|error| panic!("{}", explained(&error)));
    let running = alloc.wait_running();
    let Err(error) = running else { return Some((job, alloc)) };
    let said = alloc.get().unwrap()["ClientDescription"].as_str().unwrap_or_default().to_owned();
    let turned_away = victims.contains(&Part::Plugin) && said.starts_with(TURNED_AWAY);
    assert!(turned_away, "{}", explained(&error));
    assert!(alloc.task("t").unwrap().events().is_empty(), "{error:#}");
    eprintln!("round {round}: {victims:?}, {} was turned away: {said}", alloc.id);
    job.purge().unwrap();
    fleet.wait_recovered();
    None
}

fn befall(rig: &Rig, job: &Job, alloc: &Alloc, fate: Fate, two: bool) {
    let number = if two { 2 } else { 1 };
    let command = || *rig.containers_of(&alloc.id, number).first().unwrap();
    match fate {
        Fate::Exit => command().signal(Signal::SIGUSR2).unwrap(),
        Fate::Signal(signal) => command().signal(signal).unwrap(),
        Fate::Stop => job.stop().unwrap(),
        Fate::Nothing => {}
    }
}

/// The task's end is told as it was.
fn assert_true_end(alloc: &Alloc, fate: Fate) {
    let number = |event: &Event, key: &str| event.details[key].as_str().unwrap_or("0").to_owned();
    let end = || {
        let event = alloc.wait_event("t", "Terminated", LIMIT).unwrap();
        (number(&event, "exit_code"), number(&event, "signal"))
    };
    let expected = match fate {
        Fate::Nothing => return,
        Fate::Exit => ("33".to_owned(), "0".to_owned()),
        Fate::Signal(signal) => ((128 + signal as i32).to_string(), (signal as i32).to_string()),
        Fate::Stop => {
            let found = end();
            let said = |text: &[u8]| text.ends_with(b"bye\n");
            if found == ("7".to_owned(), "0".to_owned()) {
                alloc.wait_logs("t", "stdout", LIMIT, said).unwrap();
            } else {
                // The signal itself was lost with the helper: then it was killed in time.
                assert_eq!(found, ("137".to_owned(), "9".to_owned()));
                assert!(!said(&alloc.logs("t", "stdout").unwrap()));
            }
            return;
        }
    };
    assert_eq!(end(), expected, "{:?}", alloc.task("t"));
}
