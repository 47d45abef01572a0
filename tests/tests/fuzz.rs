//! Every reader of hostile bytes, a million times each (P1, P10, P11, P28).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use nspawn_tests::fuzz::{self, allocator};
use nspawn_tests::soak;

#[global_allocator]
static ALLOCATOR: allocator::Counting = allocator::Counting;

/// Messages for one reader in CI; `cargo rig soak` sends a hundred million to each decoder.
const TRIES: u64 = 1_000_000;

#[test]
fn p01_p10_p11_p28_no_reader_of_hostile_bytes_panics_or_takes_what_it_should_not() {
    assert!(allocator::counts());
    let seed = soak::seed();
    for target in fuzz::all().unwrap() {
        let begun = std::time::Instant::now();
        let figures = fuzz::run(&target, seed, TRIES).unwrap_or_else(|wrong| panic!("{wrong}"));
        println!("{figures} in {:?}", begun.elapsed());
        assert!(figures.taken > 0 && figures.taken < figures.tries, "{figures}");
    }
}
