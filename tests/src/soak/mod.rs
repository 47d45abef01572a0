//! The long runs: what CI does with small numbers and `cargo rig soak` with large ones.

pub mod exec;
pub mod mutants;
pub mod policy;
pub mod run;

/// The seed of a run: `SOAK_SEED`, else the time. Printed, so that a run can be repeated.
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("SOAK_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.unwrap_or_else(|| now.map_or(1, |time| time.as_secs()));
    println!("seed {seed} (SOAK_SEED={seed} repeats it)");
    seed
}
