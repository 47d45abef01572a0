//! The scanner, with few starts; `cargo rig soak filters` makes ten thousand.

use nspawn_tests::filters::scan::Scanner;
use nspawn_tests::soak;

const STARTS: u64 = 200;

#[test]
fn no_first_instruction_is_without_the_right_filters_whatever_becomes_of_the_cache() {
    let seed = soak::seed();
    let figures = Scanner::new().unwrap().run(seed, STARTS).unwrap();
    println!("{} starts: {figures}", figures.starts);
    assert!(figures.wrong.is_empty(), "SOAK_SEED={seed}: {:#?}", figures.wrong);
    // Both ways, or it has not been tried.
    let share = figures.cached * 100 / figures.starts;
    assert!((10..=90).contains(&share), "SOAK_SEED={seed}: {share} % from the cache");
    assert!(figures.damaged.iter().sum::<u64>() >= STARTS / 6, "SOAK_SEED={seed}: {figures}");
}
