//! One descriptor of a command's streams: the driver's end of a pipe, or a terminal's master.
//!
//! It never blocks a thread: the other end is the task's, which may stop reading or writing at any
//! moment. `O_NONBLOCK` belongs to this end alone, because the two ends are two open files.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::termios::{LocalFlags, SpecialCharacterIndices, tcgetattr};
use proto::exec::TerminalSize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::startup::sys;

/// The descriptor.
#[derive(Debug)]
pub(super) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes a descriptor that can be waited for.
    pub(super) fn new(descriptor: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
        fcntl(&descriptor, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        sys::watch(descriptor).map(Self)
    }

    /// Reads what is there, or waits for it; 0 at the end. May be given up at any time.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |fd| Ok(nix::unistd::read(fd, buffer)?)).await
    }

    /// Reads what is there; `None` when nothing is.
    pub(super) fn read_now(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match nix::unistd::read(self.0.get_ref(), buffer) {
            Ok(length) => Ok(Some(length)),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Bytes that can be read now.
    pub(super) fn count_readable(&self) -> io::Result<usize> {
        sys::count_readable(self.0.get_ref().as_fd())
    }

    /// Writes all of it, as fast as the other end takes it.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(nix::unistd::write(fd, bytes)?);
            let written = self.0.async_io(Interest::WRITABLE, write).await?;
            bytes = bytes.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// Sets a terminal's size; the kernel sends SIGWINCH to what runs in it.
    pub(super) fn resize(&self, size: TerminalSize) -> io::Result<()> {
        sys::set_window_size(self.0.get_ref().as_fd(), size.rows, size.columns)
    }

    /// The character that means end of file to what reads the terminal, while the terminal edits
    /// lines; a program that reads single characters has no end of file (termios(3)).
    pub(super) fn end_of_file(&self) -> io::Result<Option<u8>> {
        // The master shows the settings of the terminal itself.
        let settings = tcgetattr(self.0.get_ref())?;
        let is_canonical = settings.local_flags.contains(LocalFlags::ICANON);
        let character = settings.control_chars.get(SpecialCharacterIndices::VEOF as usize);
        Ok(character.copied().filter(|c| is_canonical && *c != libc::_POSIX_VDISABLE))
    }
}
