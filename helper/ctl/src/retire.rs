//! `retire`: ends the containers that the older Go driver has left running.
//!
//! That driver ran systemd-nspawn below an executor process of its own and registered it with
//! machined as `<task>-<allocation id>`. Its tasks cannot be taken over: the executor speaks a
//! protocol of its own and holds the exit status. Only such a machine is touched: machined must
//! call it a container of systemd-nspawn in a scope of its own, and its name must end with the id
//! of an allocation whose directory exists. Processes are held by descriptor and never signalled by
//! number.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, poll};
use proto::name::AllocId;
use serde_json::Value;

use super::{POLICY, bus, output};
use kernel::syscalls;

/// Time for an orderly end in milliseconds; then it is killed.
const PATIENCE_MS: u16 = 8_000;
/// SIGRTMIN+3: systemd as PID 1 shuts down (systemd(1)).
const HALT: u8 = 37;
const TERMINATE: u8 = 15;
const KILL: u8 = 9;

const MACHINED: &str = "org.freedesktop.machine1";

/// Ends the machines that are named, or all; `false` when one of them could not be ended.
///
/// # Errors
/// An option that there is not, machined or the policy file that cannot be read, or a name that is
/// no container of the older driver.
pub(super) fn run(words: &[&str]) -> Result<bool, String> {
    let (mut list, mut names) = (false, Vec::new());
    for word in words {
        match *word {
            "--list" => list = true,
            option if option.starts_with('-') => {
                return Err(format!("retire has no option {option}"));
            }
            name => names.push(name),
        }
    }
    let found = find()?;
    if let Some(name) = names.iter().find(|name| !found.iter().any(|it| it.name == **name)) {
        return Err(format!("{name} is not a running container of the older driver"));
    }
    let wanted = |it: &&Machine| names.is_empty() || names.contains(&it.name.as_str());
    let mut all = true;
    for machine in found.iter().filter(wanted) {
        if list {
            println!("{}", machine.name);
            continue;
        }
        match machine.end() {
            Ok(()) => println!("{}: ended", machine.name),
            Err(reason) => {
                println!("{}: {reason}", machine.name);
                all = false;
            }
        }
    }
    if found.is_empty() && !list {
        println!("no container of the older driver runs");
    }
    Ok(all)
}

/// A running container of the older driver.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    leader: Process,
}

/// All of them.
///
/// # Errors
/// The policy file or machined cannot be read.
pub(super) fn find() -> Result<Vec<Machine>, String> {
    let policy = crate::load_policy(Path::new(POLICY))?;
    let listed = bus(&[
        "call",
        MACHINED,
        "/org/freedesktop/machine1",
        "org.freedesktop.machine1.Manager",
        "ListMachines",
    ])?;
    let machines = listed.get(0).and_then(Value::as_array).ok_or("machined: no list")?;
    let mut found = Vec::new();
    for machine in machines {
        let text = |n: usize| machine.get(n).and_then(Value::as_str).unwrap_or_default();
        let (name, class, service, path) = (text(0), text(1), text(2), text(3));
        let ours = alloc_of(name).is_some_and(|alloc| {
            policy.nomad.alloc_dirs.iter().any(|dir| dir.to_path().join(alloc).is_dir())
        });
        if class != "container" || service != "systemd-nspawn" || !ours {
            continue;
        }
        let property = |name: &str| {
            bus(&["get-property", MACHINED, path, "org.freedesktop.machine1.Machine", name])
        };
        // It may end between the two questions.
        let (Ok(unit), Ok(leader)) = (property("Unit"), property("Leader")) else { continue };
        let unit = unit.as_str().unwrap_or_default();
        if !(unit.starts_with("machine-") && unit.ends_with(".scope")) {
            continue;
        }
        let leader = leader.as_u64().and_then(|pid| u32::try_from(pid).ok());
        let Some(leader) = leader.and_then(|pid| Process::open(pid).ok()) else { continue };
        // The pid is still the machine's when the process is in its scope now that it is held.
        if leader.is_in_unit(unit) {
            found.push(Machine { name: name.to_owned(), leader });
        }
    }
    Ok(found)
}

/// The allocation id at the end of `<task>-<allocation id>`.
fn alloc_of(machine: &str) -> Option<&str> {
    let (task, alloc) = machine.split_at_checked(machine.len().checked_sub(36)?)?;
    let named = task.strip_suffix('-').is_some_and(|task| !task.is_empty());
    (named && alloc.parse::<AllocId>().is_ok()).then_some(alloc)
}

impl Machine {
    /// Asks it to end, kills it when it does not, and its executor after it: that waits for orders
    /// of a plugin that is gone.
    fn end(&self) -> Result<(), String> {
        let executor = self.leader.parent().and_then(|nspawn| nspawn.parent());
        let executor = executor.filter(Process::is_executor);
        let gentle = if self.leader.comm() == "systemd" { HALT } else { TERMINATE };
        self.leader.signal(gentle)?;
        if !self.leader.ends_in_time() {
            let killed = output("machinectl", &["kill", "--signal=KILL", &self.name]);
            if !self.leader.ends_in_time() {
                killed?;
                return Err("does not end, though it was killed".to_owned());
            }
        }
        executor
            .map_or(Ok(()), |it| it.signal(KILL).map_err(|e| format!("ended; its executor: {e}")))
    }
}

/// A process, held by its descriptor.
#[derive(Debug)]
struct Process {
    pid: u32,
    fd: OwnedFd,
}

impl Process {
    fn open(pid: u32) -> Result<Self, String> {
        let fd = syscalls::open_process(pid).map_err(|e| format!("process {pid}: {e}"))?;
        Ok(Self { pid, fd })
    }

    fn signal(&self, signal: u8) -> Result<(), String> {
        match syscalls::signal_process(self.fd.as_fd(), signal) {
            // It has ended by itself.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other.map_err(|e| format!("signal {signal}: {e}")),
        }
    }

    fn ends_in_time(&self) -> bool {
        poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], PATIENCE_MS) == Ok(1)
    }

    fn read(&self, file: &str) -> String {
        let bytes = fs::read(format!("/proc/{}/{file}", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn comm(&self) -> String {
        self.read("comm").trim_end().to_owned()
    }

    fn is_in_unit(&self, unit: &str) -> bool {
        self.read("cgroup").split(['/', '\n']).any(|part| part == unit)
    }

    /// Its parent, if that is still the same once it is held.
    fn parent(&self) -> Option<Self> {
        let number = || {
            let status = self.read("status");
            status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
        };
        let pid = number().filter(|pid| *pid > 1)?;
        let parent = Self::open(pid).ok()?;
        (number() == Some(pid)).then_some(parent)
    }

    /// The older driver's executor: its own binary with the word `executor`.
    fn is_executor(&self) -> bool {
        self.read("cmdline").split('\0').nth(1) == Some("executor")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_task_and_an_allocation_are_the_older_drivers() {
        let alloc = "1e8b1c2d-1111-2222-3333-444455556601";
        assert_eq!(alloc_of(&format!("web-{alloc}")), Some(alloc));
        assert_eq!(alloc_of(&format!("web-two-{alloc}")), Some(alloc));
        for other in [
            alloc.to_owned(),
            format!("-{alloc}"),
            format!("web{alloc}"),
            "web".to_owned(),
            format!("é{}", &alloc[1..]),
        ] {
            assert_eq!(alloc_of(&other), None, "{other}");
        }
    }
}
