//! Crashes of plugin, helper and agent, restarts of the host's own services, and many tasks: no
//! container notices, every end is reported as it was, nothing is left.
//!
//! One instance for all tests, one test at a time: each kills what the others need.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod fleet;
mod many;
mod random;
mod rounds;
mod services;

use nspawn_tests::{Config, Rig};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The instance, for the caller alone. It goes down with the process.
fn rig() -> (&'static Rig, MutexGuard<'static, ()>) {
    static RIG: OnceLock<Rig> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    // A test that panicked has said so; the others still count.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let rig = RIG.get_or_init(|| {
        let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
        // The first task of a host brings its slice, which stays.
        many::batch(&rig, 0);
        rig
    });
    (rig, turn)
}
