//! The helper's policy against the oracle's: in process, by mutants, and through the real socket.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use nspawn_tests::soak;

/// Specifications in CI; `cargo rig soak` tries a million.
const TRIES: u64 = 100_000;

#[test]
fn the_policy_says_what_the_oracle_says() {
    let seed = soak::seed();
    let tally = soak::policy::run(seed, TRIES).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    println!("{tally:?}");
    assert_eq!(tally.poor(), None);
}

/// Compiling all of them takes a minute: three of the seed's choice here, all in the soak.
#[test]
fn three_mutants_of_the_policy_are_caught() {
    let seed = soak::seed();
    let mutants = soak::mutants::run(seed, TRIES, 3).unwrap();
    for mutant in &mutants {
        println!("{mutant:?}");
    }
    assert_eq!(mutants.len(), 3);
    assert!(mutants.iter().all(|mutant| mutant.caught.is_some()), "a mutant survived");
}
