//! System call filters of a process of a test host, read from outside with ptrace(2).

use crate::Rig;
use anyhow::{Context as _, Result};
use kernel::syscalls::{Instruction, traced_filter};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;

/// All filters of a process, oldest first.
pub type Filters = Vec<Vec<Instruction>>;

/// The process of the outer machine that the host calls by this number.
///
/// # Errors
/// When there is none.
pub fn outer_pid(rig: &Rig, inner: &str) -> Result<i32> {
    // Namespaces have one number everywhere.
    let namespace = rig.run(&["readlink", &format!("/proc/{inner}/ns/pid")])?;
    let is_it = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let own = fs::read_link(format!("/proc/{pid}/ns/pid"));
        ids.split_whitespace().nth(1) == Some(inner)
            && own.is_ok_and(|own| own.to_string_lossy() == namespace.trim())
    };
    let pids = fs::read_dir("/proc")?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(is_it).with_context(|| format!("no process {inner}"))
}

/// The filters of a process of the outer machine.
///
/// # Errors
/// The kernel's.
pub fn filters_of(pid: i32) -> Result<Filters> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::empty())?;
    ptrace::interrupt(pid)?;
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    let mut all = Filters::new();
    while let Some(filter) = traced_filter(pid.as_raw(), all.len())? {
        all.push(filter);
    }
    ptrace::detach(pid, None::<Signal>)?;
    Ok(all)
}
