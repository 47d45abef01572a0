//! Starting a task takes little more than half of the time that systemd-nspawn itself takes, whatever
//! the image's size, and an idle task costs next to no memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use nspawn_tests::{Suite, bench};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Starts measured of each kind; `cargo rig bench` measures more.
const PAIRS: usize = 20;
/// What a start shall cost at most, as a multiple of systemd-nspawn's own: as a rule, and with an
/// image used otherwise.
const RATIO_AIMS: [f64; 2] = [0.6, 0.65];
/// Where the test fails: the rest is for noisy machines.
const RATIO_MAX: f64 = 0.95;
/// The same of a task with a network of its own.
const NETWORK_MAX: f64 = 1.1;
/// The same of twenty and of a hundred starts at once.
const PARALLEL_AIM: f64 = 0.6;
const MEMORY_MAX_KIB: u64 = 40 * 1024;
const GROWTH_MAX_KIB: f64 = 50.0;

/// What a published port shall reach of DNAT by hand, and where the test fails.
const PORT_AIM: f64 = 0.95;
const PORT_MIN: f64 = 0.7;
/// Median from the payload's listen to the first answer: the aim, and where the test fails.
const FIRST_ANSWER_MS: [f64; 2] = [5.0, 25.0];
/// Longest median from the end of the payload to the refusal.
const REFUSAL_MS: f64 = 50.0;

/// Percent of a core that the figures of a hundred idle tasks may cost the driver: the aim is 4 for
/// five hundred. And how much more than without PID 1 may take: it is not asked.
const CROWD: usize = 100;
const STATISTICS_MAX: f64 = 4.0;
const PID1_MAX: f64 = 1.0;

/// Commands measured of each kind.
const EXEC_PAIRS: usize = 30;
/// Milliseconds that a command may take more than with nsenter(1): the aim, and where the test fails.
const EXEC_ADDED_MS: [f64; 2] = [10.0, 40.0];
/// The same for the 99th percentile of twenty at once.
const CROWD_P99_MS: [f64; 2] = [500.0, 2000.0];

/// One test at a time: each takes both cores.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_published_port_costs_what_dnat_by_hand_costs() {
    let _alone = alone();
    let network = bench::network(Suite::Trixie).unwrap();
    println!("{network}");
    for (what, ratio) in [
        ("throughput", network.throughput.ratio),
        ("connections", network.connection.ratio),
        ("connections with 4,096 more ports", network.crowded.ratio),
    ] {
        let verdict = if ratio >= PORT_AIM { "within" } else { "NOT within" };
        println!("{what}: ratio {ratio:.2}, {verdict} the aim of {PORT_AIM}");
        assert!(ratio >= PORT_MIN, "{what}: ratio {ratio:.2}");
    }
    let (first, refusal) = (network.first_answer.median, network.refusal.median);
    let [aim, most] = FIRST_ANSWER_MS;
    let verdict = if first <= aim { "within" } else { "NOT within" };
    println!("first answer: {first:.1} ms, {verdict} the aim of {aim} ms");
    assert!(first <= most, "{first:.1} ms from listen to answer");
    assert!(refusal <= REFUSAL_MS, "{refusal:.1} ms from the end to the refusal");
}

#[test]
fn a_start_takes_little_more_than_half_of_nspawns_own() {
    let _alone = alone();
    let report = bench::starts(Suite::Trixie, PAIRS).unwrap();
    println!("{report}");
    for image in bench::IMAGES.into_iter().chain(bench::MODES.map(|(mode, _)| mode)) {
        let ratio = report.ratio(image).unwrap();
        let [usual, other] = RATIO_AIMS;
        let aim = if bench::IMAGES.contains(&image) { usual } else { other };
        let verdict = if ratio <= aim { "within" } else { "NOT within" };
        println!("{image}: ratio {ratio:.2}, {verdict} the aim of {aim}");
        // A new link makes the kernel wait for those that are going away.
        let has_link = [bench::NETWORK, bench::OWN_NETWORK].contains(&image);
        let most = if has_link { NETWORK_MAX } else { RATIO_MAX };
        assert!(ratio <= most, "{image}: ratio {ratio:.2}");
    }
    for row in &report.parallel {
        let verdict = if row.ratio <= PARALLEL_AIM { "within" } else { "NOT within" };
        println!("{}: ratio {:.2}, {verdict} the aim of {PARALLEL_AIM}", row.image, row.ratio);
        assert!(row.ratio <= NETWORK_MAX, "{}: ratio {:.2}", row.image, row.ratio);
    }
    let (tasks, driver, helper) = *report.memory.last().unwrap();
    assert_eq!(tasks, 100);
    assert!(driver + helper < MEMORY_MAX_KIB, "driver {driver} KiB, helper {helper} KiB");
    let growth = report.growth_per_task().unwrap();
    assert!(growth <= GROWTH_MAX_KIB, "{growth:.1} KiB a task");
}

#[test]
fn a_command_in_a_task_takes_little_more_than_nsenter() {
    let _alone = alone();
    let exec = bench::exec(Suite::Trixie, EXEC_PAIRS).unwrap();
    println!("{exec}");
    for (what, seen, [aim, most]) in [
        ("more than nsenter", exec.added(), EXEC_ADDED_MS),
        ("p99 of twenty at once", exec.crowd_p99, CROWD_P99_MS),
    ] {
        let verdict = if seen <= aim { "within" } else { "NOT within" };
        println!("{what}: {seen:.1} ms, {verdict} the aim of {aim} ms");
        assert!(seen <= most, "{what}: {seen:.1} ms");
    }
}

/// `cargo rig bench tasks` asks for the figures of five hundred, and for checks.
#[test]
fn figures_of_many_tasks_cost_little() {
    let _alone = alone();
    let crowd = bench::crowd(Suite::Trixie, CROWD, false).unwrap();
    println!("{crowd}");
    let statistics = crowd.statistics;
    let [with, without] = statistics.pid1;
    assert!(statistics.samples > 90.0, "{statistics:?}");
    assert!(statistics.driver < STATISTICS_MAX, "{statistics:?}");
    assert!(with < without + PID1_MAX, "{statistics:?}");
}
