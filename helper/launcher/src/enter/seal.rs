//! The worker's own view of the host's files: read-only, and without anybody's.
//!
//! Its programs stay as they are also for what runs in a task without user namespace and finds a
//! way to them by /proc/PID/exe: a mount that is read-only here is so for whoever comes through it.
//! ProtectSystem=strict makes the same, but systemd reads the host's table of mounts again for each
//! place, and remounts one by one. Nomad adds mounts with each task: with 500 of them that took four
//! fifths of the host's time while commands ran.
//!
//! Trusts the host's mount table. Never changes it: all happens in its own mount namespace. Never
//! takes work while its program can be written through it.

use std::convert::Infallible;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

use crate::stage::OwnPath;
use crate::step::{At as _, Problem};
use kernel::{hook, syscalls};
use proto::plan::LAUNCHER_FAILED;

/// What a session writes to: scores and labels of its own copies, and the task's cgroups.
const WRITABLE: [&str; 2] = ["/proc", "/sys/fs/cgroup"];
/// What belongs to users and other programs, as by ProtectHome=yes and PrivateTmp=yes.
const HIDDEN: [&str; 5] = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// The second word of the worker itself.
pub(crate) const SEALED: &str = "sealed";

/// Runs `enter`: seals, then executes the worker.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(never) => match never {},
        Err(problem) => {
            eprintln!("enter failed: {problem}");
            ExitCode::from(LAUNCHER_FAILED)
        }
    }
}

fn run() -> Result<Infallible, Problem> {
    seal()?;
    // What runs, and the libraries that it has mapped, lie on the host's own mounts still. So it is
    // executed again, by its path: through /proc/self/exe it would be the same mount.
    let program = own_program().read_link().at("own program")?;
    Err(Command::new(&program).args(["enter", SEALED]).exec()).at(program.display())
}

fn own_program() -> OwnPath {
    OwnPath::constant("/proc/self/exe")
}

/// Checks that the program of this process cannot be written through it, whoever has started it.
pub(super) fn check() -> Result<(), Problem> {
    match own_program().is_read_only().at("own program")? {
        true => Ok(()),
        false => Err(Problem::refused("own program", "is not on a read-only mount")),
    }
}

/// Enters a mount namespace in which the host's files are read-only.
fn seal() -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWNS).at("mount namespace")?;
    // The copies are peers of the host's mounts: without this the covers below would appear there.
    // What the host unmounts still goes here too, so a worker that waits keeps no task's secrets.
    let all = OwnPath::constant("/");
    all.set_propagation(MsFlags::MS_SLAVE).at("/ as slave")?;
    let mut writable = Vec::new();
    let hooks = hook::DIRECTORY.filter(|place| OwnPath::constant(place).metadata().is_ok());
    for place in WRITABLE.into_iter().chain(hooks) {
        let path = OwnPath::constant(place);
        let target = path.open(OFlag::O_PATH | OFlag::O_DIRECTORY).at(&path)?;
        writable.push((syscalls::clone_mount(target.as_fd(), false).at(&path)?, path));
    }
    // One call for all mounts, however many the host has. None is in use in a new namespace, so
    // none is busy.
    let root = all.open(OFlag::O_PATH | OFlag::O_DIRECTORY).at(&all)?;
    syscalls::set_mount_attributes(root.as_fd(), syscalls::READ_ONLY, None).at("/ read-only")?;
    for (mount, path) in writable {
        let target = path.open(OFlag::O_PATH | OFlag::O_DIRECTORY).at(&path)?;
        syscalls::attach_mount(mount.as_fd(), target.as_fd()).at(&path)?;
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    for place in HIDDEN {
        let path = OwnPath::constant(place);
        match path.mount("tmpfs", flags, "mode=0000,size=4k,nr_inodes=2") {
            // The host has no such directory.
            Err(nix::errno::Errno::ENOENT) => {}
            covered => covered.at(&path)?,
        }
    }
    Ok(())
}
