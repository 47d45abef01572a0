//! The filters of a process, byte by byte, and those of an entry of the cache.
//!
//! For the tests and the scanner. The reader is outside of the instance, under no filters itself
//! (`PTRACE_SECCOMP_GET_FILTER` of ptrace(2) asks for that), and trusts nothing that the product says.

use crate::Rig;
use anyhow::{Context as _, Result, bail};
use kernel::syscalls::{Instruction, traced_filter};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs;

/// The cache's directory inside an instance.
pub const CACHE: &str = "/run/nomad-nspawn/filters";

/// All filters of a process, oldest first.
pub type Filters = Vec<Vec<Instruction>>;

/// The filters of a process of the outer machine.
///
/// # Errors
/// It ends, or somebody else traces it.
pub fn of_process(pid: i32) -> Result<Filters> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, Options::empty()).with_context(|| format!("seize {pid}"))?;
    ptrace::interrupt(pid)?;
    waitpid(pid, Some(WaitPidFlag::__WALL))?;
    let mut all = Filters::new();
    let read = loop {
        match traced_filter(pid.as_raw(), all.len()) {
            Ok(Some(filter)) => all.push(filter),
            Ok(None) => break Ok(all),
            Err(error) => break Err(error),
        }
    };
    ptrace::detach(pid, None::<Signal>)?;
    Ok(read?)
}

/// Whether a process was executed with the variable that keeps systemd-nspawn from installing filters.
///
/// # Errors
/// It has ended.
pub fn is_without_own(pid: i32) -> Result<bool> {
    let environment = fs::read(format!("/proc/{pid}/environ"))?;
    Ok(environment.split(|byte| *byte == 0).any(|word| word == b"SYSTEMD_SECCOMP=0"))
}

/// The process of the outer machine that an instance calls by this number.
///
/// # Errors
/// There is none.
pub fn outer(rig: &Rig, inner: &str) -> Result<i32> {
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

/// The filters that the text of an entry holds: written from ARCHITECTURE and not by the product's
/// reader.
///
/// # Errors
/// A line of a filter is not one.
pub fn of_entry(text: &str) -> Result<Filters> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("filter "));
    lines.map(instructions).collect()
}

fn instructions(digits: &str) -> Result<Vec<Instruction>> {
    let mut all = Vec::new();
    for at in (0..digits.len()).step_by(16) {
        let Some(one) = digits.get(at..at + 16) else { bail!("a part of an instruction") };
        let number = u64::from_str_radix(one, 16)?;
        let [a, b, jump_true, jump_false, c, d, e, f] = number.to_be_bytes();
        let (code, operand) = (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]));
        all.push(Instruction { code, jump_true, jump_false, operand });
    }
    Ok(all)
}
