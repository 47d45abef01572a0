//! Starting a task costs what systemd-nspawn costs, whatever the image's size, and an idle task
//! costs next to no memory.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something is missing")]

use nspawn_tests::{Suite, bench};

/// Starts measured of each kind; `cargo rig bench` measures more.
const PAIRS: usize = 20;
/// Where the test fails. The aim is 1.15; the rest is for noisy machines.
const RATIO_MAX: f64 = 1.4;
/// A disk image against the bare start of a folder: it has a loop device to make, and a file system
/// to mount and to read for the first time.
const RAW_RATIO_MAX: f64 = 3.0;
const MEMORY_MAX_KIB: u64 = 40 * 1024;
const GROWTH_MAX_KIB: f64 = 50.0;

#[test]
fn a_start_costs_what_nspawn_costs() {
    let report = bench::run(Suite::Trixie, PAIRS).unwrap();
    println!("{report}");
    for image in bench::IMAGES.into_iter().chain(bench::MODES.map(|(mode, _)| mode)) {
        let ratio = report.ratio(image).unwrap();
        let max = if image == "raw" { RAW_RATIO_MAX } else { RATIO_MAX };
        assert!(ratio <= max, "{image}: ratio {ratio:.2}");
    }
    let (tasks, driver, helper) = *report.memory.last().unwrap();
    assert_eq!(tasks, 100);
    assert!(driver + helper < MEMORY_MAX_KIB, "driver {driver} KiB, helper {helper} KiB");
    let growth = report.growth_per_task().unwrap();
    assert!(growth <= GROWTH_MAX_KIB, "{growth:.1} KiB a task");
}
