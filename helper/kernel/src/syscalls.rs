//! The only file with `unsafe`: kernel calls that nix does not have.
//!
//! Each function is one call with its arguments as types; none decides anything. Errors are the
//! kernel's. No pointer outlives its call.
#![allow(unsafe_code, reason = "this is the file that exists for it")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Attributes for [`set_mount_attributes`] (mount_setattr(2)).
pub const READ_ONLY: u64 = 0x0000_0001;
/// Set-uid bits and file capabilities have no effect.
pub const NO_SUID: u64 = 0x0000_0002;
/// Device nodes cannot be opened.
pub const NO_DEV: u64 = 0x0000_0004;
/// Files cannot be executed.
pub const NO_EXEC: u64 = 0x0000_0008;
const ATTR_IDMAP: u64 = 0x0010_0000;

const EMPTY: &CStr = c"";

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A write lock on the whole of a file, from its start.
#[allow(clippy::cast_possible_truncation, reason = "small constants of the kernel")]
const WHOLE_FILE: libc::flock = libc::flock {
    l_type: libc::F_WRLCK as libc::c_short,
    l_whence: libc::SEEK_SET as libc::c_short,
    l_start: 0,
    l_len: 0,
    l_pid: 0,
};

/// Locks a file as systemd-nspawn does: exclusively, by open file description, without waiting.
///
/// # Errors
/// `WouldBlock` while somebody else holds it.
pub fn lock_whole(file: impl AsFd) -> io::Result<()> {
    Ok(fcntl(file, FcntlArg::F_OFD_SETLK(&WHOLE_FILE)).map(drop)?)
}

/// Takes over a descriptor that systemd passed (sd_listen_fds(3)).
///
/// Call once for each number, before anything else opens or closes descriptors.
#[must_use]
pub fn take_passed_fd(fd: RawFd) -> OwnedFd {
    // WHY: passed descriptors come as numbers.
    // SAFETY: the caller takes each number once, at the start of the process, when nothing else
    // can own it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A detached copy of the mount at `at`; with all mounts below it when `recursive` (open_tree(2)).
///
/// # Errors
/// The kernel's.
pub fn clone_mount(at: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(open_tree(at, EMPTY, flags | OpenTreeFlags::AT_EMPTY_PATH)?)
}

/// Attaches a detached mount on the object of `to` (move_mount(2)).
///
/// # Errors
/// The kernel's.
pub fn attach_mount(mount: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let both = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, EMPTY, to, EMPTY, both)?)
}

/// Sets attributes of a mount and of all below it, and their ID mapping when a user namespace is
/// given (mount_setattr(2)). All of them are changed or none.
///
/// # Errors
/// The kernel's: EINVAL where the file system cannot be ID-mapped.
pub fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: u64,
    users: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let namespace = users.map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned()));
    let attr = MountAttr {
        set: attributes | if users.is_some() { ATTR_IDMAP } else { 0 },
        clear: 0,
        propagation: 0,
        user_namespace: namespace,
    };
    // WHY: nix has no mount_setattr.
    // SAFETY: `attr` has the kernel's layout (struct mount_attr), its size is passed, and it lives
    // through the call, which only reads it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    })
    .map(drop)
}

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

/// The user namespace that a namespace belongs to (ioctl NS_GET_USERNS, ioctl_ns(2)).
///
/// # Errors
/// The kernel's: EPERM when it is outside of the caller's own.
pub fn owning_user_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const GET_USERNS: libc::Ioctl = 0xB701;
    // WHY: nix has no such ioctl.
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USERNS) };
    check(fd.into())?;
    // WHY: the result comes as a number.
    // SAFETY: it is a new descriptor, which nobody else has yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The library with which systemd-nspawn installs system call filters; from version 258 on it loads
/// it with dlopen(3) and does without when that fails (is_seccomp_available() of seccomp-util.c).
pub const LIBSECCOMP: &CStr = c"libseccomp.so.2";

/// Whether the dynamic loader finds and takes a library (dlopen(3)). It stays loaded.
#[must_use]
pub fn can_load(library: &CStr) -> bool {
    // WHY: the loader alone has the list of its directories.
    // SAFETY: the name ends with NUL. The library's constructors run, as they do in each program
    // that is linked to it.
    !unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }.is_null()
}

/// One instruction of a system call filter (struct sock_filter, linux/filter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to skip when a comparison holds.
    pub jump_true: u8,
    /// And when it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Instructions of the longest filter that the kernel takes (BPF_MAXINSNS, linux/bpf_common.h).
pub const FILTER_MAX: usize = 4096;

/// The system call filter number `index` of a process that this one traces and that has stopped; 0
/// is the oldest (PTRACE_SECCOMP_GET_FILTER, ptrace(2)). `None`: it has no more.
///
/// # Errors
/// The kernel's: EACCES where the caller is under a filter itself, EIO without
/// CONFIG_CHECKPOINT_RESTORE.
pub fn traced_filter(pid: libc::pid_t, index: usize) -> io::Result<Option<Vec<Instruction>>> {
    const GET_FILTER: libc::c_uint = 0x420c;
    let none = Instruction { code: 0, jump_true: 0, jump_false: 0, operand: 0 };
    let mut filter = vec![none; FILTER_MAX];
    // WHY: nix has no such request.
    // SAFETY: the kernel writes one filter, of at most FILTER_MAX instructions, each of the layout of
    // Instruction; `filter` has room for that many and lives through the call.
    match check(unsafe { libc::ptrace(GET_FILTER, pid, index, filter.as_mut_ptr()) }) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        count => {
            filter.truncate(usize::try_from(count?).unwrap_or_default());
            Ok(Some(filter))
        }
    }
}

/// Puts the process under one more system call filter (seccomp(2)).
///
/// # Errors
/// The kernel's: EINVAL for what is no filter.
pub fn install_filter(filter: &[Instruction]) -> io::Result<()> {
    #[repr(C)]
    struct Program {
        length: libc::c_ushort,
        instructions: *const Instruction,
    }
    let length = filter.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = Program { length, instructions: filter.as_ptr() };
    let none: libc::c_ulong = 0;
    // WHY: nix has no seccomp.
    // SAFETY: `program` has the kernel's layout (struct sock_fprog) and names as many instructions as
    // `filter` has; both live through the call, which only reads them.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, none, &raw const program)
    })
    .map(drop)
}

/// Gives the process a session keyring of its own, which is empty (keyctl_join_session_keyring(3)).
///
/// # Errors
/// The kernel's: EDQUOT where root has too many keys.
pub fn join_new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous: *const libc::c_char = std::ptr::null();
    // WHY: nix has no keyctl.
    // SAFETY: a null name asks for an anonymous keyring; nothing is written.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) }).map(drop)
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

/// The number of a loop device that nobody uses now (ioctl LOOP_CTL_GET_FREE, loop(4)).
///
/// # Errors
/// The kernel's.
pub fn free_loop(control: BorrowedFd<'_>) -> io::Result<libc::c_long> {
    const GET_FREE: libc::Ioctl = 0x4C82;
    // WHY: nix has no such ioctl.
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(control.as_raw_fd(), GET_FREE) }.into())
}

/// Gives a loop device its file; it loses it with its last use (ioctl LOOP_CONFIGURE, loop(4),
/// Linux 5.8). It can be written when both descriptors can.
///
/// # Errors
/// The kernel's: EBUSY when somebody else was faster.
pub fn configure_loop(device: BorrowedFd<'_>, file: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct LoopConfig {
        file: u32,
        block_size: u32,
        ids_and_offsets: [u64; 5],
        numbers: [u32; 3],
        flags: u32,
        names_and_keys: [u64; 20],
        reserved: [u64; 10],
    }
    const { assert!(size_of::<LoopConfig>() == 304) };
    const AUTOCLEAR: u32 = 4;
    const CONFIGURE: libc::Ioctl = 0x4C0A;
    let file = file.as_raw_fd().cast_unsigned();
    let config = LoopConfig { file, flags: AUTOCLEAR, ..LoopConfig::default() };
    // WHY: nix has no such ioctl.
    // SAFETY: `config` has the kernel's layout and size (struct loop_config), which only reads it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), CONFIGURE, &raw const config) }.into()).map(drop)
}

/// Brings the loopback interface of the current network namespace up (netdevice(7)).
///
/// # Errors
/// The kernel's.
pub fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // WHY: an all-zero request to fill in.
    // SAFETY: ifreq is plain integers and byte arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)
        .map_err(|_| io::ErrorKind::InvalidData)?;
    // WHY: nix has no SIOCSIFFLAGS.
    // SAFETY: the name ends with NUL, the kernel only reads `request`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result.into()).map(drop)
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
    fn a_namespace_names_its_owner() {
        use std::os::unix::fs::MetadataExt;
        let id =
            |file: std::fs::File| file.metadata().map(|meta| (meta.dev(), meta.ino())).unwrap();
        let open = |path: &str| std::fs::File::open(path).unwrap();
        let owner = owning_user_namespace(open("/proc/self/ns/net").as_fd()).unwrap();
        assert_eq!(id(owner.into()), id(open("/proc/self/ns/user")));
        assert!(owning_user_namespace(open("/proc/self/status").as_fd()).is_err());
    }

    #[test]
    fn the_kernel_layouts_have_their_sizes() {
        assert_eq!(0xC040_FF0B_u64 >> 16 & 0x3fff, 64);
    }
}
