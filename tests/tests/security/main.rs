//! Security: what a local user can learn, what plugin and payload can do, and what the helper does
//! with hostile bytes.
//!
//! Two hosts: one with a Nomad agent for real jobs, one with the helper alone, where every
//! connection and every descriptor is ours and can be counted.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod assembly;
mod cases;
mod flood;
mod logs;
mod policy;
mod privileges;
mod process_rows;
mod rows;
mod scanner;
mod secrets;
mod specs;
mod values;

use nspawn_tests::{Config, Rig};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";

/// The host with a Nomad agent. It goes down with this process.
fn host() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| Rig::up(&Config::from_env().unwrap()).unwrap())
}

/// The host with the helper alone, for one test at a time.
fn bare() -> (MutexGuard<'static, ()>, &'static Rig) {
    static RIG: OnceLock<Rig> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let config = || Config { agent: false, ..Config::from_env().unwrap() };
    (turn, RIG.get_or_init(|| Rig::up(&config()).unwrap()))
}

/// The helper as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Helper {
    pid: i32,
    descriptors: usize,
    resident_kib: u64,
}

impl Helper {
    fn look(rig: &Rig) -> Self {
        let pid = rig.main_pid(HELPER).unwrap();
        let status = rig.read_file(&format!("/proc/{pid}/status")).unwrap();
        let status = String::from_utf8(status).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let descriptors = rig.run(&["ls", &format!("/proc/{pid}/fd")]).unwrap().lines().count();
        Self { pid, descriptors, resident_kib: resident }
    }

    /// Waits until the same process holds as few descriptors as before.
    fn wait_same_descriptors(self, rig: &Rig) {
        let what = format!("the helper's descriptors to be {} again", self.descriptors);
        nspawn_tests::wait::true_within(&what, std::time::Duration::from_secs(10), || {
            let now = Self::look(rig);
            assert_eq!(now.pid, self.pid, "the helper died");
            Ok(now.descriptors <= self.descriptors)
        })
        .unwrap();
    }
}

/// Whether no line or NUL-ended text of an environment begins with this word.
fn variable_free(environment: &str, word: &str) -> bool {
    environment.split(['\n', '\0']).all(|one| !one.starts_with(word))
}
