//! Races at every place where the launcher opens what others may swap (P2, P3).
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use nspawn_tests::race;

/// Tries a site in CI; `cargo rig soak` makes five million.
const TRIES: u64 = 200_000;

#[test]
fn p02_p03_no_swapped_directory_or_file_leads_outside_and_naive_openings_do() {
    for figures in race::run(TRIES).unwrap() {
        println!("{figures}");
        assert_eq!(figures.product.escapes, 0, "{figures}");
        assert!(figures.product.refused < figures.product.tries, "never opened: {figures}");
        assert!(figures.control() > 0, "the harness does not race: {figures}");
    }
}
