//! System call filters: each payload has those that a plain systemd-nspawn would install, whether they
//! come from the cache or not.
//!
//! The filters are read from outside, with ptrace(2), and compared byte by byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod calls;
mod faults;
mod kept;
mod same;
mod scan;

use nspawn_tests::filters::Filters;
use nspawn_tests::filters::read::{self, CACHE, outer};
use nspawn_tests::stand::{Running, Stand};
use nspawn_tests::{Rig, wait};
use serde_json::{Value, json};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
const POLICY: &str = "[caps]\nallow = [\"all\"]\n[userns]\nrequire = false\n[syscalls]\n\
                      allow_extra = [\"bpf\"]\n[network]\nallow = [\"private\", \"veth\"]\n";

/// The host. Tests damage its cache and change its policy, so they are alone.
fn host() -> (MutexGuard<'static, ()>, &'static Stand) {
    static HOST: OnceLock<Stand> = OnceLock::new();
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stand = HOST.get_or_init(|| Stand::up(POLICY).unwrap());
    stand.rig.set_policy(POLICY).unwrap();
    (alone, stand)
}

/// A task that lives until it is stopped.
fn task(more: &Value) -> Value {
    let mut config = json!({
        "image": "busybox", "boot": false, "ephemeral": true, "private_network": true,
        "command": ["/bin/sh", "-c", "echo ready; exec sleep 1000"],
    });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn start<'a>(stand: &'a Stand, more: &Value) -> Running<'a> {
    stand.start(&task(more), |_| {}).unwrap().unwrap()
}

/// The filters of a task's payload.
fn filters_of_task(running: &Running<'_>) -> Filters {
    let leader = running.leader().unwrap();
    read::of_process(outer(running.rig(), &leader).unwrap()).unwrap()
}

/// Whether the task's systemd-nspawn was executed without filters of its own.
fn is_fast(running: &Running<'_>) -> bool {
    let rig = running.rig();
    let main = rig.run(&["systemctl", "show", "-P", "MainPID", &running.unit()]).unwrap();
    let words = format!("tr '\\0' '\\n' </proc/{}/environ", main.trim());
    rig.sh(&words).unwrap().lines().any(|line| line == "SYSTEMD_SECCOMP=0")
}

/// A task whose filters come from the cache: the first start that misses them has them made.
fn start_fast<'a>(stand: &'a Stand, more: &Value) -> Running<'a> {
    let mut fast = None;
    wait::true_within("a start with filters of the cache", SOON, || {
        let running = start(stand, more);
        if is_fast(&running) {
            fast = Some(running);
            return Ok(true);
        }
        running.destroy()?;
        Ok(false)
    })
    .unwrap();
    fast.unwrap()
}
