//! What the kernel shows of processes by their number (proc_pid(5)).
//!
//! A number means a process only as long as that lives: callers hold a descriptor and look again.
//! Never signals, never trusts a process's name.

use std::fs;

/// A field of /proc/PID/status. The name in the same file may be any bytes.
#[must_use]
pub fn status_field(pid: u32, field: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().to_owned())
}

/// The children of a process; none of one that has ended.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is PID 1 of a pid namespace below ours.
#[must_use]
pub fn is_namespace_init(pid: u32) -> bool {
    let ids = status_field(pid, "NSpid:").unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    matches!(ids[..], [_, "1"])
}
