//! Kernel calls that make processes, hold them and send them signals.
//!
//! As in the file above: one call each with its arguments as types, and nothing is decided.
#![allow(unsafe_code, reason = "this is a file that exists for it")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::check;

/// Starts a child in a new user namespace that does nothing until it is killed, and returns its
/// pid. The caller must be single-threaded.
///
/// # Errors
/// The kernel's.
pub fn child_in_user_namespace() -> io::Result<libc::pid_t> {
    let flags = libc::c_long::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
    // WHY: fork and unshare in one step, so that no report from the child is needed.
    // SAFETY: the process has one thread and shares no memory with the child (no CLONE_VM); the
    // child calls only an async-signal-safe function and never returns.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    if pid == 0 {
        loop {
            // WHY: wait for the end without running anything of the parent's.
            // SAFETY: pause(2) takes nothing and touches no memory.
            unsafe { libc::pause() };
        }
    }
    libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Copies the process; `None` in the copy, its pid in the original (fork(2)). The caller must be
/// single-threaded.
///
/// # Errors
/// The kernel's.
pub fn fork() -> io::Result<Option<libc::pid_t>> {
    // WHY: a copy keeps what has been opened and decided; another program would have to be told.
    // SAFETY: with one thread no lock is held that the copy could wait for in vain.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok(libc::pid_t::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Copies the process into a cgroup, without a moment outside of it (clone3(2), Linux 5.7); `None`
/// in the copy. The caller must be single-threaded.
///
/// # Errors
/// The kernel's: EAGAIN where the cgroup may have no more processes.
pub fn fork_into(cgroup: BorrowedFd<'_>) -> io::Result<Option<libc::pid_t>> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArguments {
        flags: u64,
        none: [u64; 3],
        exit_signal: u64,
        no_memory: [u64; 5],
        cgroup: u64,
    }
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let arguments = CloneArguments {
        flags: INTO_CGROUP,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        cgroup: u64::from(cgroup.as_raw_fd().cast_unsigned()),
        ..CloneArguments::default()
    };
    const SIZE: usize = size_of::<CloneArguments>();
    // WHY: nix has no clone3. SAFETY: as for [`fork`]; `arguments` has the kernel's layout (struct
    // clone_args) and its size.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, SIZE) })?;
    Ok(libc::pid_t::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Copies the process as a child of its own parent (CLONE_PARENT, clone(2)); `None` in the copy.
/// The caller must be single-threaded.
///
/// # Errors
/// The kernel's.
pub fn fork_sibling() -> io::Result<Option<libc::pid_t>> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // WHY: the parent gets the exit status, whichever process has made the copy. Not clone3(2),
    // which more filters of system calls refuse. SAFETY: as for [`fork`].
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })?;
    Ok(libc::pid_t::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// Gives every signal its default action (signal(7)); what was ignored stays so over execve(2).
pub fn reset_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        // WHY: nix's way is unsafe as well. SIGKILL, SIGSTOP and those of the C library refuse.
        // SAFETY: the default action runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// A descriptor for a process (pidfd_open(2)).
///
/// # Errors
/// The kernel's: ESRCH when there is no such process.
pub fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal to the process of a descriptor (pidfd_send_signal(2)).
///
/// # Errors
/// The kernel's: ESRCH when the process has ended.
pub fn signal_process(process: BorrowedFd<'_>, signal: u8) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    let signal = libc::c_int::from(signal);
    // WHY: nix has no pidfd_send_signal.
    // SAFETY: a null info is allowed and means kill(2)'s.
    check(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0)
    })
    .map(drop)
}

/// The wait status of an ended process, though it was another's child and is reaped
/// (ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). `None`: not ended, or older kernel.
#[must_use]
pub fn exit_status(process: BorrowedFd<'_>) -> Option<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const INFO_EXIT: u64 = 1 << 3;
    const GET_INFO: libc::Ioctl = 0xC040_FF0B;
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // WHY: nix has no such ioctl.
    // SAFETY: the request encodes a size of 64 bytes, which is the size of `info` (struct
    // pidfd_info, first version); the kernel writes no more than that.
    let result = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, &raw mut info) };
    (result == 0 && info.mask & INFO_EXIT != 0).then_some(info.exit_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_is_seen_and_signalled_by_descriptor() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = open_process(child.id()).unwrap();
        assert_eq!(exit_status(process.as_fd()), None);
        signal_process(process.as_fd(), 9).unwrap();
        child.wait().unwrap();
        // Older kernels answer None; newer ones must tell the truth.
        assert!(matches!(exit_status(process.as_fd()), None | Some(9)));
        assert_eq!(
            signal_process(process.as_fd(), 9).unwrap_err().raw_os_error(),
            Some(libc::ESRCH)
        );
    }

    #[test]
    fn the_kernel_layouts_have_their_sizes() {
        assert_eq!(0xC040_FF0B_u64 >> 16 & 0x3fff, 64);
    }
}
