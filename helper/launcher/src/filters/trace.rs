//! Watches a systemd-nspawn that has nothing to run, up to the end of its container's first process.
//!
//! That process has installed the filters of a payload and then found that the payload's program is
//! not there. Trusts systemd-nspawn as every start does; nothing of a job or an image runs here.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use proto::step::Step;

use super::entry::Filters;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::hook;
use kernel::syscalls::traced_filter;

/// Time for systemd-nspawn to get that far; some 100 ms are usual.
const LIMIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_micros(200);

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) filters: Filters,
    /// Files that the process had mapped.
    pub(super) mapped: Vec<PathBuf>,
}

/// Follows a child and all that it starts, until they have ended. The child must wait for `go` before
/// it executes systemd-nspawn.
pub(super) fn watch(child: Pid, go: impl FnOnce()) -> Result<Seen, Problem> {
    // With EXITKILL nothing of it outlives this process.
    let all = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_EXITKILL;
    ptrace::seize(child, all).at("PTRACE_SEIZE")?;
    go();
    let (begun, mut seen) = (Instant::now(), None);
    loop {
        if begun.elapsed() > LIMIT {
            return Err(Problem::refused("systemd-nspawn", "did not end in time"));
        }
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        match waitpid(None, Some(flags)) {
            Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                if event == Event::PTRACE_EVENT_EXIT as i32 && seen.is_none() && is_init(pid)? {
                    seen = Some(look(pid)?);
                }
                hook::run(Step::FillStop, || resume(pid, None))?;
            }
            Ok(WaitStatus::Stopped(pid, signal)) => {
                hook::run(Step::FillStop, || resume(pid, Some(signal)))?;
            }
            Ok(WaitStatus::StillAlive) => std::thread::sleep(PAUSE),
            Ok(_) => {}
            Err(Errno::ECHILD) => break,
            Err(error) => return Err(error).at("waitpid"),
        }
    }
    let reason = "ended before its container's first process did";
    seen.ok_or_else(|| Problem::refused("systemd-nspawn", reason))
}

fn resume(pid: Pid, signal: Option<nix::sys::signal::Signal>) -> Result<(), Problem> {
    match ptrace::cont(pid, signal) {
        // Killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).at("PTRACE_CONT"),
    }
}

/// Whether the process is the first of a pid namespace below ours.
fn is_init(pid: Pid) -> Result<bool, Problem> {
    let status = read(pid, "status")?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    Ok(matches!(ids.split_whitespace().collect::<Vec<_>>()[..], [_, "1"]))
}

fn look(pid: Pid) -> Result<Seen, Problem> {
    let mut filters = Filters::new();
    while let Some(filter) = traced_filter(pid.as_raw(), filters.len()).at("system call filters")? {
        filters.push(filter);
    }
    let maps = read(pid, "maps")?;
    // Address, permissions, offset, device, inode, path (proc_pid_maps(5)).
    let path = |line: &str| line.find('/').and_then(|at| line.get(at..)).map(PathBuf::from);
    let mut mapped: Vec<PathBuf> = maps.lines().filter_map(path).collect();
    mapped.sort_unstable();
    mapped.dedup();
    Ok(Seen { filters, mapped })
}

fn read(pid: Pid, name: &'static str) -> Result<String, Problem> {
    let path = OwnPath::of_process(pid.as_raw().cast_unsigned(), name);
    let bytes = path.read().at(&path)?;
    String::from_utf8(bytes).map_err(io::Error::other).at(path)
}
