//! Crashes of plugin, helper and agent, restarts of the host's own services, and many tasks: no
//! container notices, every end is reported as it was, nothing is left.
//!
//! Two instances, one test at a time on each: each kills what the others need.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod ends;
mod fleet;
mod killers;
mod many;
mod random;
mod rounds;
mod services;

use nspawn_tests::{Config, Rig};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Which host a test uses: the long rounds have one of their own, so that the rest runs beside them.
#[derive(Clone, Copy)]
enum Host {
    Rounds,
    Rest,
}

/// The instance, for the caller alone. It goes down with the process.
fn rig(host: Host) -> (&'static Rig, MutexGuard<'static, ()>) {
    static RIGS: [OnceLock<Rig>; 2] = [OnceLock::new(), OnceLock::new()];
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let index = match host {
        Host::Rounds => 0,
        Host::Rest => 1,
    };
    // A test that panicked has said so; the others still count, on a host without its tasks.
    let panicked = TURNS[index].is_poisoned();
    TURNS[index].clear_poison();
    let turn = TURNS[index].lock().unwrap_or_else(PoisonError::into_inner);
    let rig = RIGS[index].get_or_init(|| {
        let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
        // The first task of a host brings its slice, which stays.
        let start = fleet::Start { count: 1, restarts: 0, two: false };
        let first = rig.run_job(&fleet::hcl("first", start)).unwrap();
        first.alloc().unwrap().wait_running().unwrap();
        first.purge().unwrap();
        rig
    });
    if panicked {
        rig.jobs().unwrap().iter().for_each(|job| job.purge().unwrap());
    }
    (rig, turn)
}
