//! The only file of the driver with unsafe code: calls that have no safe wrapper.
//!
//! What changes the process runs in `main` before any thread exists, which is what makes it sound:
//! the environment, descriptors, signal dispositions and per-thread credentials are then nobody
//! else's. The rest asks something of one descriptor that its caller holds.
#![allow(unsafe_code, reason = "raw calls of the C library that nix and caps do not wrap")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Removes every variable from the environment, so that no value of the agent's environment can
/// steer a library or be read from a child.
pub(crate) fn clear_environment() {
    // SAFETY: no other thread exists yet, and no reference into the environment is held.
    unsafe { libc::clearenv() };
}

/// Closes every descriptor above standard error: the agent may have leaked some into us.
pub(crate) fn close_inherited_descriptors() {
    let (first, last, flags): (libc::c_uint, libc::c_uint, libc::c_int) = (3, libc::c_uint::MAX, 0);
    // SAFETY: nothing of this process owns a descriptor yet; numbers alone are passed.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// Ignores SIGINT: Ctrl-C in the agent's terminal reaches the whole process group.
pub(crate) fn ignore_interrupt() {
    // SAFETY: SIG_IGN is not a handler, so nothing can run in signal context.
    let _ = unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}

/// Keeps the allocator's arenas and its cache of freed memory small: the process serves a few
/// hundred small requests a second at most, and memory is what people see of it. Packet buffers
/// get mappings of their own, so that freeing them leaves no holes.
pub(crate) fn tune_allocator() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 32 * 1024),
        (libc::M_TRIM_THRESHOLD, 128 * 1024),
    ] {
        // SAFETY: a number is set before any other thread allocates.
        let _ = unsafe { libc::mallopt(parameter, value) };
    }
}

/// Drops every capability that the running kernel knows from the bounding set, also those newer
/// than this program.
///
/// # Errors
/// CAP_SETPCAP is missing.
pub(crate) fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..64 as libc::c_ulong {
        // SAFETY: numbers alone are passed.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        match held {
            1 => {
                // SAFETY: numbers alone are passed.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            0 => {}
            _ => break,
        }
    }
    Ok(())
}

/// First real-time signal that the C library leaves to programs (SIGRTMIN of signal(7)).
pub(crate) fn first_realtime_signal() -> u8 {
    u8::try_from(libc::SIGRTMIN()).unwrap_or(34)
}

/// Last real-time signal (SIGRTMAX of signal(7)).
pub(crate) fn last_realtime_signal() -> u8 {
    u8::try_from(libc::SIGRTMAX()).unwrap_or(64)
}

/// Has the runtime wait for a descriptor, which the result owns.
///
/// # Errors
/// It is not one that can be waited for (epoll_ctl(2)).
pub(crate) fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stands for one descriptor, which nothing replaces or closes before it.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// Sets the size of a terminal (TIOCSWINSZ of ioctl_tty(2)).
///
/// # Errors
/// The descriptor is no terminal.
pub(crate) fn set_window_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the call, which reads one `winsize`.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes that can be read from a pipe without waiting (FIONREAD of pipe(7)).
///
/// # Errors
/// The descriptor cannot be asked.
pub(crate) fn count_readable(pipe: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, which writes one `int`.
    match unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut count) } {
        0 => Ok(usize::try_from(count).unwrap_or_default()),
        _ => Err(io::Error::last_os_error()),
    }
}
