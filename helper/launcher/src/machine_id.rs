//! The machine id of an overlay root: the allocation id (machine-id(5)).
//!
//! systemd takes an id from /var/lib/dbus/machine-id before the one that systemd-nspawn passes, so
//! the file itself must hold it, and a copy of the image's for D-Bus must go.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use proto::name::AllocId;

use super::open::{self, Mounts};
use super::stage::OwnPath;
use super::step::{At, Problem};

const NAME: &str = "machine-id";

/// Writes the id into the mounted overlay.
pub(super) fn write(alloc: AllocId, uid_base: Option<u32>) -> Result<(), Problem> {
    let handle = OwnPath::root().open_dir()?;
    if let Ok(dbus) =
        open::beneath(handle.as_fd(), Path::new("var/lib/dbus"), open::HANDLE, Mounts::Stay)
    {
        remove_regular(dbus.as_fd()).at("/var/lib/dbus/machine-id")?;
    }
    // An image without a plain /etc has no use for the file.
    let Ok(etc) = open::beneath(handle.as_fd(), Path::new("etc"), open::HANDLE, Mounts::Stay)
    else {
        return Ok(());
    };
    match unlinkat(&etc, NAME, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(Errno::EISDIR) => {
            let reason = "is a directory in the image: it must be a file or missing";
            return Err(Problem::refused("/etc/machine-id", reason));
        }
        Err(e) => return Err(e).at("/etc/machine-id"),
    }
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(&etc, NAME, flags, Mode::from_bits_truncate(0o444)).at("/etc/machine-id")?;
    let mut file = std::fs::File::from(file);
    writeln!(file, "{}", alloc.simple()).at("/etc/machine-id")?;
    std::os::unix::fs::fchown(&file, uid_base, uid_base).at("/etc/machine-id")
}

fn remove_regular(directory: BorrowedFd<'_>) -> std::io::Result<()> {
    let Ok(file) = open::beneath(directory, Path::new(NAME), OFlag::O_PATH, Mounts::Stay) else {
        return Ok(());
    };
    let meta = open::metadata(&file)?;
    if meta.is_file() && meta.size() > 0 {
        unlinkat(directory, NAME, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}
