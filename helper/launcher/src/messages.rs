//! systemd-nspawn's own messages on their way to the daemon, which passes them on to the journal and
//! keeps what went wrong before the payload ran.
//!
//! systemd-nspawn takes no other place for them than the journal, the kernel's log and the payload's
//! standard error. So a socket of ours lies over the journal's, in this task's mount namespace alone,
//! on a file system that only root of the host enters. The payload has neither: its root is another
//! one, and systemd-nspawn closes the descriptor before it executes it.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::fcntl::{OFlag, open as open_path};
use nix::sys::stat::Mode;

use super::STAGE;
use super::step::{At, Problem};
use kernel::layout::JOURNAL;
use kernel::syscalls;

/// Makes the socket. Call it in the host's network namespace: how many messages may wait in a socket
/// is decided by the one that it is made in, and systemd raises that for the host.
pub(super) fn receive() -> Result<OwnedFd, Problem> {
    let path = Path::new(STAGE).join("messages");
    UnixDatagram::bind(&path).map(OwnedFd::from).at(path.display())
}

/// Puts it in the journal's place.
pub(super) fn redirect() -> Result<(), Problem> {
    let handle = |path: &Path| {
        open_path(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).at(path.display())
    };
    let own = handle(&Path::new(STAGE).join("messages"))?;
    let journal = handle(Path::new(JOURNAL))?;
    let clone = syscalls::clone_mount(own.as_fd(), false).at(JOURNAL)?;
    syscalls::attach_mount(clone.as_fd(), journal.as_fd()).at(JOURNAL)
}
