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
mod same;

use kernel::syscalls::{Instruction, traced_filter};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use nspawn_tests::stand::{Running, Stand};
use nspawn_tests::{Rig, wait};
use serde_json::{Value, json};
use std::fs;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// The cache.
const CACHE: &str = "/run/nomad-nspawn/filters";

/// All filters of a process, oldest first.
type Filters = Vec<Vec<Instruction>>;

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

/// The process of the outer machine that the host calls by this number.
fn outer(rig: &Rig, inner: &str) -> i32 {
    // Namespaces have one number everywhere.
    let namespace = rig.run(&["readlink", &format!("/proc/{inner}/ns/pid")]).unwrap();
    let is_it = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let own = fs::read_link(format!("/proc/{pid}/ns/pid"));
        ids.split_whitespace().nth(1) == Some(inner)
            && own.is_ok_and(|own| own.to_string_lossy() == namespace.trim())
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(is_it).unwrap_or_else(|| panic!("no process {inner}"))
}

/// The filters of a process.
fn filters_of(pid: i32) -> Filters {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::empty()).unwrap();
    ptrace::interrupt(pid).unwrap();
    waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
    let mut all = Filters::new();
    while let Some(filter) = traced_filter(pid.as_raw(), all.len()).unwrap() {
        all.push(filter);
    }
    ptrace::detach(pid, None::<Signal>).unwrap();
    all
}

/// The filters of a task's payload.
fn filters_of_task(running: &Running<'_>) -> Filters {
    let leader = running.leader().unwrap();
    filters_of(outer(running.rig(), &leader))
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
