//! Starting a task costs what systemd-nspawn costs, whatever the image's size, and an idle task
//! costs next to no memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use nspawn_tests::{Suite, bench};

/// Starts measured of each kind; `cargo rig bench` measures more.
const PAIRS: usize = 20;
/// What a start shall cost at most, as a multiple of systemd-nspawn's own: as a rule, and with an
/// image used otherwise.
const RATIO_AIMS: [f64; 2] = [1.15, 1.2];
/// Where the test fails: the rest is for noisy machines.
const RATIO_MAX: f64 = 1.4;
/// The same of a task with a network of its own.
const NETWORK_MAX: f64 = 1.5;
const MEMORY_MAX_KIB: u64 = 40 * 1024;
const GROWTH_MAX_KIB: f64 = 50.0;

#[test]
fn a_start_costs_what_nspawn_costs() {
    let report = bench::run(Suite::Trixie, PAIRS).unwrap();
    println!("{report}");
    for image in bench::IMAGES.into_iter().chain(bench::MODES.map(|(mode, _)| mode)) {
        let ratio = report.ratio(image).unwrap();
        let [usual, other] = RATIO_AIMS;
        let aim = if bench::IMAGES.contains(&image) { usual } else { other };
        let verdict = if ratio <= aim { "within" } else { "NOT within" };
        println!("{image}: ratio {ratio:.2}, {verdict} the aim of {aim}");
        // A new link makes the kernel wait for those that are going away.
        let most = if image == bench::NETWORK { NETWORK_MAX } else { RATIO_MAX };
        assert!(ratio <= most, "{image}: ratio {ratio:.2}");
    }
    let (tasks, driver, helper) = *report.memory.last().unwrap();
    assert_eq!(tasks, 100);
    assert!(driver + helper < MEMORY_MAX_KIB, "driver {driver} KiB, helper {helper} KiB");
    let growth = report.growth_per_task().unwrap();
    assert!(growth <= GROWTH_MAX_KIB, "{growth:.1} KiB a task");
}
