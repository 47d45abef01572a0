//! What confines the payload's process, as the kernel shows it: a command that is executed
//! beside it gets the same.
//!
//! Trusts the kernel, and a pid only while its descriptor is of a process that lives: everything is
//! read first and the descriptor is asked then.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::resource::{RLIM_INFINITY, Resource, rlim_t};
use proto::capability::Capabilities;

use crate::stage::OwnPath;
use crate::step::{At as _, Problem};

/// Namespaces of a process, and how setns(2) names them.
const NAMESPACES: [(&str, CloneFlags); 7] = [
    ("user", CloneFlags::CLONE_NEWUSER),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
];

/// Names in /proc/PID/limits (fs/proc/base.c).
const LIMITS: [(&str, Resource); 16] = [
    ("Max cpu time", Resource::RLIMIT_CPU),
    ("Max file size", Resource::RLIMIT_FSIZE),
    ("Max data size", Resource::RLIMIT_DATA),
    ("Max stack size", Resource::RLIMIT_STACK),
    ("Max core file size", Resource::RLIMIT_CORE),
    ("Max resident set", Resource::RLIMIT_RSS),
    ("Max processes", Resource::RLIMIT_NPROC),
    ("Max open files", Resource::RLIMIT_NOFILE),
    ("Max locked memory", Resource::RLIMIT_MEMLOCK),
    ("Max address space", Resource::RLIMIT_AS),
    ("Max file locks", Resource::RLIMIT_LOCKS),
    ("Max pending signals", Resource::RLIMIT_SIGPENDING),
    ("Max msgqueue size", Resource::RLIMIT_MSGQUEUE),
    ("Max nice priority", Resource::RLIMIT_NICE),
    ("Max realtime priority", Resource::RLIMIT_RTPRIO),
    ("Max realtime timeout", Resource::RLIMIT_RTTIME),
];

/// A limit of a process: soft, then hard.
pub(super) type Limit = (Resource, rlim_t, rlim_t);

/// What was read.
pub(super) struct Payload {
    pub(super) process: OwnedFd,
    /// Namespaces that are not the host's.
    pub(super) namespaces: CloneFlags,
    pub(super) bounding: Capabilities,
    pub(super) inheritable: Capabilities,
    pub(super) no_new_privileges: bool,
    /// System call filters that it is under.
    pub(super) filters: usize,
    pub(super) limits: Vec<Limit>,
    /// Its value for the kernel's choice of a victim, where it differs from that of this process.
    pub(super) oom_score: Option<String>,
    /// Its label of a security module as the file attr/exec takes it, where it differs from that of
    /// this process.
    pub(super) label: Option<String>,
}

impl Payload {
    /// Reads everything of the process of a descriptor.
    pub(super) fn read(process: OwnedFd) -> Result<Self, Problem> {
        let info = OwnPath::descriptor_info(&process);
        let info = text(&info)?;
        let gone = || Problem::refused("the task", "has ended");
        let pid: u32 = field(&info, "Pid:").and_then(|pid| pid.parse().ok()).ok_or_else(gone)?;
        let of = |name| OwnPath::of_process(pid, name);
        let own = |name| OwnPath::of_process(std::process::id(), name);
        let read = || {
            let status = text(&of("status"))?;
            let set = |key| {
                let mask = field(&status, key).and_then(|set| u64::from_str_radix(set, 16).ok());
                mask.map(Capabilities::of_mask).ok_or_else(|| unknown(key))
            };
            let number = |key| {
                let number = field(&status, key).and_then(|number| number.parse::<usize>().ok());
                number.ok_or_else(|| unknown(key))
            };
            let other = |name| -> Result<Option<String>, Problem> {
                let theirs = text(&of(name))?;
                Ok((theirs != text(&own(name))?).then_some(theirs))
            };
            let mut namespaces = CloneFlags::empty();
            for (name, flag) in NAMESPACES {
                if id(&of("ns").join(name))? != id(&own("ns").join(name))? {
                    namespaces |= flag;
                }
            }
            let theirs = label(&of("attr/current"))?;
            Ok(Self {
                namespaces,
                bounding: set("CapBnd:")?,
                inheritable: set("CapInh:")?,
                no_new_privileges: number("NoNewPrivs:")? != 0,
                filters: number("Seccomp_filters:")?,
                limits: limits(&text(&of("limits"))?)?,
                oom_score: other("oom_score_adj")?,
                label: (theirs != label(&own("attr/current"))?)
                    .then(|| executed(theirs.as_deref().unwrap_or_default())),
                process: process.try_clone().at("the task")?,
            })
        };
        let found = read();
        // Until now no other process can have got the pid.
        if has_ended(process.as_fd()) { Err(gone()) } else { found }
    }
}

/// Whether the process of a descriptor has ended.
pub(super) fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut ended = [PollFd::new(process, PollFlags::POLLIN)];
    poll(&mut ended, PollTimeout::ZERO) != Ok(0)
}

fn text(path: &OwnPath) -> Result<String, Problem> {
    path.read().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).at(path)
}

/// A process's label. `None`: the kernel has no security module with labels (EINVAL), or none at
/// all (proc_pid_attr(5)). Any other error is one: a command without its label could do too much.
fn label(path: &OwnPath) -> Result<Option<String>, Problem> {
    match path.read() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => Ok(None),
        read => Ok(Some(String::from_utf8_lossy(&read.at(path)?).into_owned())),
    }
}

/// A label as a process takes it for its next execve(2). AppArmor shows `name (mode)` or
/// `unconfined`, and takes `exec name`; SELinux and Smack take what they show.
fn executed(label: &str) -> String {
    let label = label.trim_end_matches(['\0', '\n']);
    match label.rsplit_once(" (") {
        Some((name, mode)) if mode.ends_with(')') => format!("exec {name}"),
        _ if label == "unconfined" => format!("exec {label}"),
        _ => label.to_owned(),
    }
}

/// What tells namespaces apart (namespaces(7)).
fn id(path: &OwnPath) -> Result<(u64, u64), Problem> {
    use std::os::unix::fs::MetadataExt as _;
    path.metadata().map(|meta| (meta.dev(), meta.ino())).at(path)
}

fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

fn unknown(what: &str) -> Problem {
    Problem::refused("the payload's process", format!("the kernel does not show its {what}"))
}

fn limits(text: &str) -> Result<Vec<Limit>, Problem> {
    let value = |word: &str| match word {
        "unlimited" => Some(RLIM_INFINITY),
        number => number.parse().ok(),
    };
    let find = |(name, resource): (&str, Resource)| {
        let mut words = field(text, name)?.split_whitespace();
        Some((resource, value(words.next()?)?, value(words.next()?)?))
    };
    LIMITS.into_iter().map(|it| find(it).ok_or_else(|| unknown(it.0))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::getrlimit;

    #[test]
    fn every_limit_is_read_as_the_kernel_has_it() {
        let text = OwnPath::constant("/proc/self/limits").read().unwrap();
        let text = String::from_utf8(text).unwrap();
        let read = limits(&text).unwrap();
        assert_eq!(read.len(), LIMITS.len());
        for (resource, soft, hard) in read {
            assert_eq!(getrlimit(resource).unwrap(), (soft, hard), "{resource:?}");
        }
        assert!(limits(&text.replace("Max processes", "Most processes")).is_err());
    }

    #[test]
    fn labels_are_taken_as_each_module_shows_them() {
        for (shown, taken) in [
            ("unconfined\n", "exec unconfined"),
            ("docker-default (enforce)\n", "exec docker-default"),
            ("a b (c) (complain)\n", "exec a b (c)"),
            ("system_u:system_r:container_t:s0:c1,c2\0", "system_u:system_r:container_t:s0:c1,c2"),
            ("_", "_"),
        ] {
            assert_eq!(executed(shown), taken);
        }
        let path = OwnPath::constant("/proc/self/no-such-file");
        assert_eq!(label(&path).unwrap(), None);
        // A directory cannot be read, and that is no module's answer.
        assert!(label(&OwnPath::constant("/proc/self")).is_err());
    }

    #[test]
    fn a_process_that_has_ended_is_not_read() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = kernel::syscalls::open_process(child.id()).unwrap();
        let payload = Payload::read(process.try_clone().unwrap()).unwrap();
        assert_eq!(payload.namespaces, CloneFlags::empty());
        assert_eq!(payload.oom_score, None);
        child.kill().unwrap();
        child.wait().unwrap();
        let problem = Payload::read(process).err().unwrap();
        assert!(problem.to_string().contains("ended"), "{problem}");
    }
}
