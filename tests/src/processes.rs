//! The processes of an instance, looked at and killed from outside.
//!
//! For the tests that kill parts of the product and ask which containers live on. Processes are
//! found by the instance's cgroup, so those of another instance are never met; pids are the outer
//! machine's.

use crate::{Rig, product};
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Directories of the task units' cgroups within the instance.
const SLICES: [&str; 2] = [
    "machine.slice/machine-nspawn.slice/machine-nspawn-share.slice",
    "machine.slice/machine-nspawn.slice",
];

/// A part of the product that can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The driver's process.
    Plugin,
    /// The root helper.
    Helper,
    /// Nomad's client agent.
    Agent,
}

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number on the outer machine.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

impl Process {
    /// The process that has this number now.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold blanks; the start is the 20th field behind it.
        let started = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    /// Whether it is still there.
    #[must_use]
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }

    /// Sends a signal; one that is gone is fine.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if !self.lives() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{signal} to {self:?}")),
        }
    }
}

impl Rig {
    /// The processes that are this part of the product. While the agent starts, there may be
    /// several plugins, because it starts them to ask who they are.
    #[must_use]
    pub fn processes_of(&self, part: Part) -> Vec<Process> {
        let helper = format!("{}/nomad-nspawn-helper", product::LIBEXEC);
        let (unit, program) = match part {
            Part::Plugin => ("system.slice/nomad.service", product::PLUGIN),
            Part::Helper => ("system.slice/nomad-nspawn-helper.service", helper.as_str()),
            Part::Agent => ("system.slice/nomad.service", "/usr/local/bin/nomad"),
        };
        let directory = self.ready().tree.join(unit);
        let is_part = |pid: &i32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let exe = exe.to_string_lossy();
            // Nomad's log collectors are the same program.
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let agent = words.split(|byte| *byte == 0).nth(1) == Some(b"agent");
            exe.trim_end_matches(" (deleted)") == program && agent == (part == Part::Agent)
        };
        pids(&directory).into_iter().filter(is_part).filter_map(Process::of).collect()
    }

    /// Kills a part of the product with signal 9; returns how many processes that were.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kill_part(&self, part: Part) -> Result<usize> {
        let list = self.processes_of(part);
        list.iter().try_for_each(|process| process.signal(Signal::SIGKILL))?;
        Ok(list.len())
    }

    /// PID 1 of every container, by the name of its unit.
    #[must_use]
    pub fn containers(&self) -> BTreeMap<String, Process> {
        let mut found = BTreeMap::new();
        for unit in self.units() {
            let init = pids(&unit.path()).into_iter().find(|pid| number_inside(*pid) == Some(1));
            if let Some(init) = init.and_then(Process::of) {
                found.insert(unit.file_name().to_string_lossy().into_owned(), init);
            }
        }
        found
    }

    /// The cgroups of task units.
    fn units(&self) -> impl Iterator<Item = fs::DirEntry> {
        let tree = &self.ready().tree;
        let entries = SLICES.map(|slice| fs::read_dir(tree.join(slice)).into_iter().flatten());
        let units = entries.into_iter().flatten().flatten();
        units.filter(|it| !it.file_name().to_string_lossy().ends_with(".slice"))
    }

    /// The processes that a container of this allocation calls 1 (its init) or 2 (the command of a
    /// task with `process_two`); one for each of its containers.
    #[must_use]
    pub fn containers_of(&self, alloc: &str, number: u32) -> Vec<Process> {
        let id = alloc.replace('-', "");
        let units = self.units();
        units
            .filter(|unit| unit.file_name().to_string_lossy().contains(&id))
            .flat_map(|unit| pids(&unit.path()))
            .filter(|pid| number_inside(*pid) == Some(number))
            .filter_map(Process::of)
            .collect()
    }
}

/// The number of a container's process in its own pid namespace; `None` for other processes.
fn number_inside(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    // The outer machine's, where there is one, the instance's, the container's.
    let number = if crate::host::here::is_here() { 1 } else { 2 };
    ids.split_whitespace().nth(number)?.parse().ok()
}

/// The processes of a cgroup and of all below it; one that vanishes meanwhile has none.
fn pids(directory: &Path) -> Vec<i32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let mut list: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list.extend(pids(&entry.path()));
        }
    }
    list
}
