//! The cgroup that systemd-nspawn moves the payload to, frozen until its network is complete.
//!
//! systemd-nspawn makes it below the unit's own, or takes the one that is there
//! (create_subcgroup() of nspawn-cgroup.c): when the payload's namespaces exist, and before it mounts
//! anything for it. A process that enters a frozen cgroup does not come back from the kernel.
//!
//! Trusts the kernel alone: pids of a cgroup, which only root moves processes to at that time. Never
//! writes to a cgroup outside of the unit.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::stage::{OwnPath, SUPERVISOR};
use crate::step::{At, Problem};
use kernel::layout::PAYLOAD;
use kernel::syscalls;

/// The cgroups of payload and supervisor, below the unit's.
pub(super) struct PayloadCgroup {
    payload: OwnPath,
    supervisor: OwnPath,
}

/// Where the kernel has no cgroup that can be frozen for the unit.
pub(super) fn is_missing() -> bool {
    // Every cgroup of version 2 but the topmost has the file (Linux 5.2, cgroup-v2.rst).
    let freezer = OwnPath::unit_cgroup().ok().flatten().map(|unit| unit.join("cgroup.freeze"));
    freezer.is_none_or(|file| file.metadata().is_err())
}

impl PayloadCgroup {
    /// Makes both, the payload's frozen.
    pub(super) fn make() -> Result<Self, Problem> {
        let unit = OwnPath::unit_cgroup().and_then(|unit| unit.ok_or(Errno::ENODEV.into()));
        let unit = unit.at("cgroup of the unit")?;
        let own = Self { payload: unit.join(PAYLOAD), supervisor: unit.join(SUPERVISOR) };
        own.payload.make_dir(0o755)?;
        own.set_frozen("1")?;
        own.supervisor.make_dirs(0o755)?;
        Ok(own)
    }

    fn set_frozen(&self, value: &str) -> Result<(), Problem> {
        let file = self.payload.join("cgroup.freeze");
        file.write(value).at(file)
    }

    /// Lets the payload run.
    pub(super) fn thaw(&self) -> Result<(), Problem> {
        self.set_frozen("0")
    }

    /// Moves the calling process out of the unit's own cgroup, which must be empty before
    /// controllers can be enabled below it: systemd-nspawn tries that once, and goes on without.
    pub(super) fn enter_supervisor(&self) -> io::Result<()> {
        self.supervisor.join("cgroup.procs").write("0")
    }

    /// Waits until the payload is in it; `None` when systemd-nspawn, `main`, has ended.
    pub(super) fn await_payload(&self, main: &OwnedFd) -> Result<Option<u32>, Problem> {
        let object = self.payload.join("cgroup.events");
        let events = File::from(object.open(OFlag::O_RDONLY).at(&object)?);
        loop {
            let mut text = [0; 256];
            let length = events.read_at(&mut text, 0).at(&object)?;
            let has = |line: &[u8]| text.get(..length).is_some_and(|text| has_line(text, line));
            if has(b"populated 1") && has(b"frozen 1") {
                return self.find_process().map(Some);
            }
            // The kernel reports a change as a priority event (cgroup-v2.rst, "cgroup.events").
            let mut either = [
                PollFd::new(events.as_fd(), PollFlags::POLLPRI),
                PollFd::new(main.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut either, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => {
                    result.at(&object)?;
                    let [_, ended] = either.map(|it| it.any().unwrap_or(false));
                    if ended {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn find_process(&self) -> Result<u32, Problem> {
        let object = self.payload.join("cgroup.procs");
        let text = object.read().at(&object)?;
        match String::from_utf8_lossy(&text).lines().collect::<Vec<_>>()[..] {
            [pid] => pid.parse().map_err(|_| Problem::refused(&object, "holds no process id")),
            ref all => {
                let reason = format!(
                    "{} processes are in it, the payload's first one was expected alone; this \
                     version of systemd-nspawn may be too new",
                    all.len()
                );
                Err(Problem::refused(object, reason))
            }
        }
    }

    /// The network namespace of the payload's process, made sure to be the container's own.
    pub(super) fn open_namespace(&self, pid: u32) -> Result<OwnedFd, Problem> {
        let path = OwnPath::of_process(pid, "ns/net");
        let namespace = path.open(OFlag::O_RDONLY).at(&path)?;
        let owner = syscalls::owning_user_namespace(namespace.as_fd()).at(&path)?;
        let users = id(&OwnPath::of_process(pid, "ns/user"))?;
        let is_own = id(&OwnPath::of_handle(&owner))? == users
            && users != id(&OwnPath::constant("/proc/self/ns/user"))?
            && id(&OwnPath::of_handle(&namespace))? != id(&OwnPath::constant("/proc/self/ns/net"))?;
        // Only a number has been known so far, and another process may have got it meanwhile.
        if self.find_process()? != pid {
            return Err(Problem::refused(path, "its process has ended"));
        }
        if is_own {
            return Ok(namespace);
        }
        let reason = "does not belong to a user namespace of the container, as this version of \
                      systemd-nspawn makes it; container_admin = false in [network] of the policy \
                      file does without";
        Err(Problem::refused(path, reason))
    }
}

/// What tells namespaces apart (namespaces(7)).
fn id(path: &OwnPath) -> Result<(u64, u64), Problem> {
    path.metadata().map(|meta| (meta.dev(), meta.ino())).at(path)
}

fn has_line(text: &[u8], wanted: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| line == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_whole() {
        assert!(has_line(b"populated 1\nfrozen 0\n", b"populated 1"));
        assert!(!has_line(b"populated 10\nfrozen 0\n", b"populated 1"));
    }
}
