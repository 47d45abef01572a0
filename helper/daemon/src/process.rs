//! Processes, held by descriptor so that a reused pid is never mistaken for one of ours.
//!
//! Trusts a pid only between two looks at its descriptor. Never signals by number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::{fs, io};

use tokio::net::unix::pipe;

use kernel::processes::{self, status_field as status};
use kernel::syscalls;

/// A process: its descriptor, and its pid for people and /proc.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pid: u32,
    fd: Rc<OwnedFd>,
}

impl Process {
    /// Opens a running process.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, fd: Rc::new(syscalls::open_process(pid)?) })
    }

    /// Takes a descriptor back from the store.
    pub(crate) fn from_stored(fd: OwnedFd) -> Self {
        Self { pid: pid_of(fd.as_fd()).unwrap_or(0), fd: Rc::new(fd) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn signal(&self, signal: u8) -> io::Result<()> {
        syscalls::signal_process(self.fd(), signal)
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut poll = [nix::poll::PollFd::new(self.fd(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO) == Ok(1)
    }

    /// Waits for its end.
    pub(crate) async fn await_end(&self) -> io::Result<()> {
        // A pidfd is not a pipe, but tokio only asks the kernel whether it can be read
        // (pidfd_open(2)), and this is its one safe way to watch a descriptor of any kind.
        let watch = pipe::Receiver::from_owned_fd_unchecked(self.fd.try_clone()?)?;
        watch.readable().await
    }

    /// Its wait status, once it has ended, where the kernel reports it.
    pub(crate) fn exit_status(&self) -> Option<i32> {
        syscalls::exit_status(self.fd())
    }

    /// Its children.
    pub(crate) fn children(&self) -> Vec<u32> {
        processes::children(self.pid)
    }

    /// Its parent, if that is still the same once it is held.
    pub(crate) fn parent(&self) -> Option<Self> {
        let number = || status(self.pid, "PPid:")?.parse().ok();
        let pid = number().filter(|pid| *pid > 1)?;
        let parent = Self::open(pid).ok()?;
        (number() == Some(pid)).then_some(parent)
    }

    /// How many system call filters it is under.
    pub(crate) fn filters(&self) -> Option<u32> {
        status(self.pid, "Seccomp_filters:")?.parse().ok()
    }

    /// Whether it is in a unit's cgroup.
    pub(crate) fn is_in_unit(&self, unit: &str) -> bool {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.pid)).unwrap_or_default();
        text.lines().any(|line| unit_of(line) == Some(unit))
    }

    /// The same process under another number, as after its end.
    #[cfg(test)]
    pub(crate) fn with_reused_pid(self, pid: u32) -> Self {
        Self { pid, ..self }
    }

    /// Whether it executes the given file.
    pub(crate) fn executes(&self, binary: Identity) -> io::Result<bool> {
        let exe = fs::metadata(format!("/proc/{}/exe", self.pid));
        exe.map(|meta| Identity::of(&meta) == binary)
    }

    /// Its short name.
    pub(crate) fn comm(&self) -> String {
        let text = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        text.trim_end().to_owned()
    }
}

/// Process id of a process's parent; `None` where that is PID 1, or cannot be seen.
pub(crate) fn parent_of(pid: i32) -> Option<u32> {
    let process = Process::open(u32::try_from(pid).ok()?).ok()?;
    process.parent().map(|parent| parent.pid)
}

/// A file by device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// The systemd-nspawn binary as it is now: an upgrade replaces the file.
pub(crate) fn nspawn() -> Option<Identity> {
    let path = kernel::layout::nspawn_binary()?;
    fs::metadata(path).map(|meta| Identity::of(&meta)).ok()
}

impl Identity {
    fn of(meta: &fs::Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }
}

/// The unit of a line of /proc/PID/cgroup: what stands right below the slices. Below a unit its
/// payload makes what names it likes.
fn unit_of(line: &str) -> Option<&str> {
    let is_slice = |part: &&str| part.ends_with(".slice");
    line.split('/').skip_while(|part| !is_slice(part)).find(|part| !is_slice(part))
}

fn pid_of(fd: BorrowedFd<'_>) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")).and_then(|pid| pid.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_bytes_its_name_has() {
        use std::os::unix::ffi::OsStrExt;
        let directory = std::env::temp_dir().join(format!("nspawn-name-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let program = directory.join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
        fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        let parent = Process::open(child.id()).unwrap().parent();
        let namespaces = status(child.id(), "NSpid:");
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(parent.map(|parent| parent.pid), Some(std::process::id()));
        assert!(namespaces.is_some_and(|ids| ids.ends_with(&child.id().to_string())));
    }

    #[test]
    fn s10_a_payload_cannot_name_itself_another_unit() {
        let task = Some("nomad-nspawn-a.service");
        for (line, expected) in [
            ("0::/machine.slice/machine-nspawn.slice/nomad-nspawn-a.service/supervisor", task),
            ("0::/machine.slice/machine-nspawn.slice/nomad-nspawn-a.service", task),
            // Below another manager that has not unshared its cgroups.
            ("0::/outer/machine.slice/machine-nspawn.slice/nomad-nspawn-a.service/payload", task),
            ("1:name=systemd:/machine.slice/machine-old.scope/payload", Some("machine-old.scope")),
            (
                "0::/machine.slice/machine-nspawn.slice/nomad-nspawn-a.service/payload/\
                 machine.slice/machine-nspawn.slice/nomad-nspawn-b.service",
                task,
            ),
            ("0::/init.scope", None),
            ("0::/", None),
        ] {
            assert_eq!(unit_of(line), expected, "{line}");
        }
    }
}
