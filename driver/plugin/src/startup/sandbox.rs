//! What even a compromised plugin cannot ask of the kernel: Landlock for files, network
//! and signals, a seccomp filter for calls that it has no use for.
//!
//! Set on the one thread there is, so every later thread has it. Best effort: the plugin serves
//! where the kernel has less of it, and the node's attribute `driver.nspawn.sandbox` says what is
//! in force. No check relies on it: the helper treats the plugin as hostile either way.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Newest part of Landlock that is asked for (Linux 6.12); older kernels give what they have.
const NEWEST: ABI = ABI::V6;

/// Directories that are read: name service, cgroups and processes, the files of systemd-resolved
/// (which may start later than the plugin: so the directories around them), zones.
const READ: [&str; 6] =
    ["/etc", "/proc", "/sys", "/run/systemd", "/usr/lib/systemd", "/usr/share/zoneinfo"];

/// Links out of /etc whose files tasks may get: what writes these (NetworkManager, resolvconf) puts
/// new ones in their place, so their directories are read.
const LINKS: [&str; 2] = ["/etc/resolv.conf", "/etc/localtime"];

/// Calls that end in EPERM. New programs, other processes, namespaces and mounts, keys, and the
/// corners of the kernel in which its bugs were found.
const DENIED: [libc::c_long; 36] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_kexec_load,
    libc::SYS_personality,
];

/// Requests of ioctl(2) that are let through: the size and settings of a terminal in a task, the
/// bytes in a pipe, and what the standard library does to its descriptors. A terminal's others
/// could type into it (TIOCSTI) or change what it is.
#[allow(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    reason = "C libraries differ in the type; the kernel takes 32 bits"
)]
const REQUESTS: [u64; 6] = [
    libc::TIOCSWINSZ as u64,
    libc::TCGETS as u64,
    // How newer C libraries ask for the same.
    libc::TCGETS2 as u64,
    libc::FIONREAD as u64,
    libc::FIONBIO as u64,
    libc::FIOCLEX as u64,
];

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    landlock: &'static str,
    seccomp: Result<(), String>,
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seccomp = if self.seccomp.is_ok() { "seccomp" } else { "no seccomp" };
        write!(f, "{}, {seccomp}", self.landlock)
    }
}

impl Sandbox {
    #[cfg(test)]
    pub(crate) const FULL: Self = Self { landlock: "landlock", seccomp: Ok(()) };

    /// Confines the calling thread and all that it starts. `directory` is the socket's.
    pub(crate) fn enter(directory: &Path) -> Self {
        let landlock = restrict(directory).unwrap_or("no landlock");
        Self { landlock, seccomp: filter() }
    }

    /// Why a part is missing, for the log.
    pub(crate) fn missing(&self) -> Option<String> {
        match &self.seccomp {
            Err(error) => Some(format!("{}; no seccomp: {error}", self.landlock)),
            Ok(()) if self.landlock != "landlock" => Some(self.landlock.to_owned()),
            Ok(()) => None,
        }
    }
}

/// Nothing is executed, nothing written but the socket, no TCP connection, no abstract socket, no
/// signal to anybody else (landlock(7)).
fn restrict(directory: &Path) -> Result<&'static str, landlock::RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let socket = read | AccessFs::MakeSock | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        // Not BindTcp: the metrics endpoint's socket, made before, is bound when the operator's
        // address is known. No other can be made (`filter`), and it reaches loopback only.
        .handle_access(AccessNet::ConnectTcp)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let target = |link: &&str| Some(std::fs::canonicalize(link).ok()?.parent()?.to_owned());
    let targets: Vec<_> = LINKS.iter().filter_map(target).filter(|it| it != "/").collect();
    let places = READ.iter().map(Path::new).chain(targets.iter().map(PathBuf::as_path));
    let places = places.map(|place| (place, read));
    // The directory itself is removed from the one above it.
    let above = directory.parent().map(|above| (above, BitFlags::from(AccessFs::RemoveDir)));
    for (place, access) in places.chain([(directory, socket)]).chain(above) {
        // What is not there need not be allowed.
        if let Ok(place) = PathFd::new(place) {
            rules = rules.add_rule(PathBeneath::new(place, access))?;
        }
    }
    let status = rules.restrict_self()?;
    Ok(match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => "landlock",
        (RulesetStatus::PartiallyEnforced, _) => "landlock in part",
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => "landlock not enabled",
        (RulesetStatus::NotEnforced, _) => "no landlock",
    })
}

fn filter() -> Result<(), String> {
    let condition = |argument, operator, value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
            .map_err(|e| e.to_string())
    };
    let rule = |conditions| SeccompRule::new(conditions).map_err(|e| e.to_string());
    let argument = |operator, value| rule(vec![condition(0, operator, value)?]);
    let mut denied: BTreeMap<_, Vec<_>> = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    denied.insert(libc::SYS_socket, vec![argument(SeccompCmpOp::Ne, unix)?]);
    let users = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
    denied.insert(libc::SYS_clone, vec![argument(SeccompCmpOp::MaskedEq(users), users)?]);
    // Other than all of these.
    let others = REQUESTS.iter().map(|it| condition(1, SeccompCmpOp::Ne, *it));
    denied.insert(libc::SYS_ioctl, vec![rule(others.collect::<Result<_, _>>()?)?]);
    install(denied, libc::EPERM)?;
    // Its flags lie in memory, where no filter sees them: without it, the C library takes clone(2).
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<(), String> {
    let architecture = std::env::consts::ARCH.try_into().map_err(|e| format!("{e}"))?;
    let action = SeccompAction::Errno(error.unsigned_abs());
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)
        .and_then(TryInto::try_into)
        .map_err(|e| e.to_string())?;
    seccompiler::apply_filter(&program).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::startup::sys;
    use nix::fcntl::OFlag;
    use std::fs::{self, File};
    use std::io::ErrorKind::PermissionDenied;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    /// Each row works before and fails afterwards, in the thread that is confined.
    #[test]
    fn what_a_plugin_has_no_use_for_is_refused() {
        let base = std::env::temp_dir().join(format!("nspawn-sandbox-{}", std::process::id()));
        let directory = base.join("socket");
        fs::create_dir_all(&directory).unwrap();
        let (file, own) = (base.join("file"), directory.clone());
        let open = || nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        let (terminal, masters) = (open(), [open()]);
        let attempts = move || {
            use nix::sched::{CloneFlags, unshare};
            let denied = |error: std::io::Error| error.kind() == PermissionDenied;
            [
                ("write", File::create(&file).map(drop).is_err_and(denied)),
                ("write beside the socket", File::create(own.join("x")).is_err_and(denied)),
                ("read", fs::read("/usr/bin/env").is_err_and(denied)),
                ("execute", Command::new("/bin/true").status().is_err_and(denied)),
                ("TCP", TcpListener::bind("127.0.0.1:0").is_err_and(denied)),
                ("UDP", UdpSocket::bind("127.0.0.1:0").is_err_and(denied)),
                ("namespace", unshare(CloneFlags::CLONE_NEWUTS).is_err()),
                ("ioctl", nix::pty::ptsname_r(&terminal).is_err()),
            ]
        };
        let confined = std::thread::spawn(move || {
            let before = attempts();
            let sandbox = Sandbox::enter(&directory);
            let after = attempts();
            // What it does all day.
            let socket = directory.join("plugin.sock");
            drop(UnixListener::bind(&socket).unwrap());
            fs::remove_file(&socket).unwrap();
            fs::read("/proc/self/status").unwrap();
            fs::read_dir("/sys").unwrap();
            fs::read("/etc/passwd").unwrap();
            for file in LINKS {
                assert!(!fs::read(file).is_err_and(|e| e.kind() == PermissionDenied), "{file}");
            }
            std::thread::spawn(|| ()).join().unwrap();
            for master in masters {
                sys::set_window_size(master.as_fd(), 50, 40).unwrap();
                nix::sys::termios::tcgetattr(&master).unwrap();
                sys::count_readable(master.as_fd()).unwrap();
            }
            (sandbox, before, after)
        });
        let (sandbox, before, after) = confined.join().unwrap();
        fs::remove_dir_all(&base).unwrap();
        assert_eq!(sandbox.seccomp, Ok(()));
        for ((what, denied_before), (_, denied)) in before.into_iter().zip(after) {
            // Only root may make a namespace before.
            assert!(!denied_before || what == "namespace", "{what} before");
            let seccomps = matches!(what, "execute" | "TCP" | "UDP" | "namespace" | "ioctl");
            assert!(denied || (!seccomps && sandbox != Sandbox::FULL), "{what}: {sandbox}");
        }
        assert_eq!(sandbox.missing().is_none(), sandbox == Sandbox::FULL);
    }
}
