//! `rig`: the test host as a command (`cargo rig …`, `cargo demo`).
//!
//! For people, and for the library, whose instances are owned by `rig supervise`. It never needs
//! more than one argument word to do something useful, and prints how to go on.

mod cli;
mod demo;
mod virtual_machine;

/// Counts what the fuzzed readers take (`rig soak`).
#[global_allocator]
static ALLOCATOR: nspawn_tests::fuzz::allocator::Counting = nspawn_tests::fuzz::allocator::Counting;

fn main() -> std::process::ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match cli::run(&args) {
        Ok(code) => std::process::ExitCode::from(code),
        Err(error) => {
            eprintln!("rig: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
