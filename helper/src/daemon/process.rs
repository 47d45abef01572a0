//! Processes, held by descriptor so that a reused pid is never mistaken for one of ours.
//!
//! Trusts a pid only between two looks at its descriptor. Never signals by number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::{fs, io};

use crate::sys;

/// A process: its descriptor, and its pid for people and /proc.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pid: u32,
    fd: Rc<OwnedFd>,
}

impl Process {
    /// Opens a running process.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, fd: Rc::new(sys::open_process(pid)?) })
    }

    /// Takes a descriptor back from the store.
    pub(super) fn from_stored(fd: OwnedFd) -> Self {
        Self { pid: pid_of(fd.as_fd()).unwrap_or(0), fd: Rc::new(fd) }
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn signal(&self, signal: u8) -> io::Result<()> {
        sys::signal_process(self.fd(), signal)
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        let mut poll = [nix::poll::PollFd::new(self.fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO) == Ok(1)
    }

    /// Waits for its end.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let watch = sys::watch_readable(self.fd.try_clone()?)?;
        watch.readable().await.map(drop)
    }

    /// Its wait status, once it has ended, where the kernel tells.
    pub(super) fn exit_status(&self) -> Option<i32> {
        sys::exit_status(self.fd())
    }

    /// Its children.
    pub(super) fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Whether it is in a unit's cgroup.
    pub(super) fn is_in_unit(&self, unit: &str) -> bool {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        text.split(['/', '\n']).any(|part| part == unit)
    }

    /// Whether it executes the given file.
    pub(super) fn executes(&self, binary: Identity) -> io::Result<bool> {
        let exe = fs::metadata(format!("/proc/{}/exe", self.pid));
        exe.map(|meta| Identity::of(&meta) == binary)
    }

    /// Its short name.
    pub(super) fn comm(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        text.trim_end().to_owned()
    }
}

/// A file by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// The systemd-nspawn binary as it is now: an upgrade replaces the file.
pub(super) fn nspawn() -> Option<Identity> {
    let path = crate::task::nspawn_binary()?;
    fs::metadata(path).map(|meta| Identity::of(&meta)).ok()
}

impl Identity {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// Whether a process is PID 1 of a pid namespace below ours.
pub(super) fn is_namespace_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    ids.len() == 2 && ids.last() == Some(&"1")
}

fn pid_of(fd: BorrowedFd<'_>) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok())
}
