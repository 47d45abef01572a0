//! Kernel calls that nix does not have; those about processes are in `processes`. These two files alone
//! have `unsafe`.
//!
//! Each function is one call with its arguments as types; none decides anything. Errors are the
//! kernel's. No pointer outlives its call.
#![allow(unsafe_code, reason = "this is a file that exists for it")]

mod processes;

pub use processes::{
    child_in_user_namespace, exit_status, fork, fork_into, fork_sibling, open_process,
    reset_signals, signal_process,
};

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, fcntl};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

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

/// Mounts the file system of a block device, read-only and attached nowhere (fsopen(2)).
///
/// # Errors
/// The kernel's: ENODEV where it has no such file system.
pub fn mount_detached(device: BorrowedFd<'_>, kind: &str) -> io::Result<OwnedFd> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The device itself, whatever lies at its own path now.
    fsconfig_set_string(context.as_fd(), "source", crate::open::link(device))?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
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
    // WHY: nix has no such request. SAFETY: the kernel writes one filter, of at most FILTER_MAX
    // instructions, each of the layout of Instruction; `filter` has room for that many and lives
    // through the call.
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
    // WHY: nix has no seccomp. SAFETY: `program` has the kernel's layout (struct sock_fprog) and
    // names as many instructions as `filter` has; both live through the call, which only reads
    // them.
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

/// What a loop device says of itself (struct loop_info64, linux/loop.h).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct LoopStatus {
    /// Device number and inode of its file; device number of the file, where that is a device.
    pub file: [u64; 3],
    /// Where in the file it begins and how long it is at most, 0 for no limit, in bytes.
    pub part: [u64; 2],
    numbers: [u32; 3],
    /// Its flags.
    pub flags: u32,
    names_and_keys: [u64; 22],
}

/// [`LoopStatus::flags`] of a device that cannot be written and that goes with its last use
/// (LO_FLAGS_READ_ONLY and LO_FLAGS_AUTOCLEAR).
pub const LOOP_SHARED: u32 = 1 | 4;

/// What file a loop device has (ioctl LOOP_GET_STATUS64, loop(4)).
///
/// # Errors
/// The kernel's: ENXIO when it has none.
pub fn loop_status(device: BorrowedFd<'_>) -> io::Result<LoopStatus> {
    const { assert!(size_of::<LoopStatus>() == 232) };
    const GET_STATUS: libc::Ioctl = 0x4C05;
    let mut status = LoopStatus::default();
    // WHY: nix has no such ioctl.
    // SAFETY: `status` has the kernel's layout and size (struct loop_info64), which only writes it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), GET_STATUS, &raw mut status) }.into())?;
    Ok(status)
}

/// Takes and gives back a lease that the kernel grants only while nobody else has the file open for
/// writing (F_SETLEASE, fcntl(2)). `file`: open for reading alone.
///
/// # Errors
/// `WouldBlock` when somebody has.
pub fn check_no_writer(file: BorrowedFd<'_>) -> io::Result<()> {
    for lease in [libc::F_RDLCK, libc::F_UNLCK] {
        // WHY: nix has no leases.
        // SAFETY: the call takes numbers alone.
        check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) }.into())?;
    }
    Ok(())
}

/// How many programs of the kernel look at the packets of a cgroup's sockets, outgoing or incoming
/// ones (bpf(2)). Programs of cgroups above are not counted.
///
/// # Errors
/// The kernel's: EINVAL without CONFIG_CGROUP_BPF.
pub fn packet_programs(cgroup: BorrowedFd<'_>, outgoing: bool) -> io::Result<u32> {
    const PROG_QUERY: libc::c_int = 16;
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        // Newer kernels have further fields here, and write to one of them.
        rest: [u32; 25],
    }
    let mut query = Query {
        target: cgroup.as_raw_fd().cast_unsigned(),
        // BPF_CGROUP_INET_INGRESS and BPF_CGROUP_INET_EGRESS.
        attach_type: u32::from(outgoing),
        query_flags: 0,
        attach_flags: 0,
        ids: 0,
        count: 0,
        rest: [0; 25],
    };
    // WHY: nix has no bpf.
    // SAFETY: `query` begins as the kernel's union bpf_attr for this command, is zero beyond, lives
    // through the call, and its size is passed. With `ids` 0 and `count` 0 the kernel writes numbers
    // into it alone.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) })?;
    Ok(query.count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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
}
