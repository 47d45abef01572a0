//! systemd-nspawn's own messages on their way to the daemon, which passes them on to the journal and
//! keeps what went wrong before the payload ran.
//!
//! systemd-nspawn takes no other place for them than the journal, the kernel's log and the payload's
//! standard error. So a socket of ours lies over the journal's, in this task's mount namespace alone,
//! on a file system that only root of the host enters. The payload has neither: its root is another
//! one, and systemd-nspawn closes the descriptor before it executes it.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::OFlag;

use super::stage::OwnPath;
use super::step::{At, Problem};
use kernel::layout::JOURNAL;
use kernel::syscalls;

/// Its name on the stage.
const SOCKET: &str = "messages";

/// Makes the socket. Call it in the host's network namespace: how many messages may wait in a socket
/// is decided by the one that it is made in, and systemd raises that for the host.
pub(super) fn receive() -> Result<OwnedFd, Problem> {
    let path = OwnPath::on_stage(SOCKET);
    path.bind_datagrams().map(OwnedFd::from).at(path)
}

/// Puts it in the journal's place.
pub(super) fn redirect() -> Result<(), Problem> {
    let handle = |path: OwnPath| path.open(OFlag::O_PATH).at(path);
    let own = handle(OwnPath::on_stage(SOCKET))?;
    let journal = handle(OwnPath::constant(JOURNAL))?;
    let clone = syscalls::clone_mount(own.as_fd(), false).at(JOURNAL)?;
    syscalls::attach_mount(clone.as_fd(), journal.as_fd()).at(JOURNAL)
}
