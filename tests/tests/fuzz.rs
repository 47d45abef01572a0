//! Every reader of hostile bytes, a million times each (P1, P10, P11, P28): no panic, nothing taken
//! that should not be, no more memory than promised. A test each, so that they run side by side.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use nspawn_tests::fuzz::{self, allocator};
use nspawn_tests::soak;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// Messages for one reader in CI; `cargo rig soak` sends a hundred million to each decoder.
const TRIES: u64 = 1_000_000;

/// A test for each reader, and their names.
macro_rules! readers {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            feed($name);
        })*
        const NAMES: &[&str] = &[$($name),*];
    };
}

readers! {
    p01_p10_p11_p28_requests: "Request",
    p01_p10_p11_p28_replies: "Reply",
    p01_p10_p11_p28_orders: "Order",
    p01_p10_p11_p28_reports: "Report",
    p01_p10_p11_p28_specifications: "TaskSpec",
    p01_p10_p11_p28_plans: "Plan",
    p01_p10_p11_p28_commands: "ExecSpec",
    p01_p10_p11_p28_works: "Work",
    p01_p10_p11_p28_session_reports: "SessionReport",
    p01_p10_p11_p28_worker_reports: "WorkerReport",
    image_records: "image record",
    superblocks_of_layers: "superblock",
    p01_p10_p11_p28_policy_files: "policy file",
    p01_p10_p11_p28_names_and_paths: "names and paths",
    p01_p10_p11_p28_job_configurations: "job configuration",
    p01_p10_p11_p28_arguments: "arguments",
}

#[test]
fn every_reader_has_its_test() {
    let all: Vec<_> = fuzz::all().unwrap().iter().map(|target| target.name).collect();
    assert_eq!(all, NAMES);
}

fn feed(name: &str) {
    assert!(allocator::counts());
    let seed = soak::seed();
    let target = fuzz::all().unwrap().into_iter().find(|target| target.name == name).unwrap();
    let begun = std::time::Instant::now();
    let figures = fuzz::run(&target, seed, TRIES).unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("{figures} in {:?}", begun.elapsed());
    assert!(figures.taken > 0 && figures.taken < figures.tries, "{figures}");
}
