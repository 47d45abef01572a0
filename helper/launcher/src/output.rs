//! The task's output streams: Nomad's two log FIFOs, opened so that nobody can redirect them, or
//! the host's journal, or pipes to the unit that carries the output to both.
//!
//! The log directory is writable by the payload (it is /alloc/logs inside). So each FIFO is opened
//! beneath it without following links, through an ID-mapped clone (the payload may then re-open
//! /dev/stdout), and its type, owner and link count are checked before it is used. Opened for
//! reading and writing: that never blocks, and no writer gets SIGPIPE while Nomad's log collector
//! is replaced.
//!
//! Opened last of all: the collector stops reading for good when the last writer goes, and a
//! launcher that ends before "go" may be followed by another one for the same collector.

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use proto::plan::{Plan, Report, TaskDirs};
use proto::target::Target;
use proto::task_spec::Logs;
use proto::unit_id::UnitId;

use super::daemon_link::Orders;
use super::open::{self, Mounts};
use super::prepared::{Extras, MountPoint, MountTarget};
use super::stage::OwnPath;
use super::step::{At, Problem};
use kernel::syscalls;

/// Where systemd-journald takes streams (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/stdout";
/// Where systemd-journald forwards to when told to (journald.conf(5), `ForwardToSyslog=`).
const SYSLOG: &str = "/run/systemd/journal/syslog";
/// Priorities of the two streams in the journal (syslog(3)): info and err.
const PRIORITIES: [u8; 2] = [6, 3];
/// Names of the two streams.
pub(super) const NAMES: [&str; 2] = ["stdout", "stderr"];

/// The payload's standard output and standard error.
pub(super) enum Streams {
    /// Checked handles that are still to be opened.
    Handles([OwnedFd; 2]),
    /// Ready to be written to.
    Opened([OwnedFd; 2]),
}

impl Streams {
    /// Opens the checked objects themselves: the links name the descriptors, not the paths. The
    /// daemon gets a writer of each, which keeps what nobody has read yet beyond our end.
    pub(super) fn open(self, orders: Option<&Orders>) -> Result<[OwnedFd; 2], Problem> {
        let handles = match self {
            Self::Opened(streams) => return Ok(streams),
            Self::Handles(handles) => handles,
        };
        let open = |access: OFlag| {
            let [stdout, stderr] = handles.each_ref().map(|handle| {
                OwnPath::of_handle(handle).open(access | OFlag::O_NOCTTY).at("log stream")
            });
            Ok([stdout?, stderr?])
        };
        let streams = open(OFlag::O_RDWR)?;
        let writers = open(OFlag::O_WRONLY)?;
        if let Some(Err(error)) = orders.map(|orders| {
            let fds = writers.each_ref().map(AsFd::as_fd);
            orders.report_with(&Report::Streams, &fds)
        }) {
            eprintln!("output that nobody reads is lost with the task: helper socket: {error}");
        }
        Ok(streams)
    }
}

/// Finds and checks both streams of the payload.
pub(super) fn find(
    plan: &Plan,
    users: Option<BorrowedFd<'_>>,
    extras: &mut Extras,
) -> Result<Streams, Problem> {
    if matches!(plan.logs, Logs::Container { .. }) {
        for directory in ["/run/systemd", "/run/systemd/journal"] {
            extras.runtime_directory(directory);
        }
        let target = Target::parse(SYSLOG).map_err(|e| Problem::refused(SYSLOG, e))?;
        extras.bind(pipe(plan.unit, "syslog"), &MountTarget::Free(target));
        extras.words.push("systemd.journald.forward_to_syslog=1".to_owned());
    }
    let streams = match plan.logs {
        Logs::Fifos => return find_fifos(plan, users),
        Logs::Discard => [null()?, null()?],
        Logs::Journal => journal(plan)?,
        Logs::Both | Logs::Container { .. } => {
            let [stdout, stderr] = NAMES.map(|stream| make_pipe(plan, stream));
            [stdout?, stderr?]
        }
    };
    Ok(Streams::Opened(streams))
}

/// Finds and checks Nomad's FIFOs.
pub(super) fn find_fifos(plan: &Plan, users: Option<BorrowedFd<'_>>) -> Result<Streams, Problem> {
    let dirs = &plan.task_dirs;
    let alloc_dir = open::place(&dirs.alloc_dir, open::HANDLE).at(&dirs.alloc_dir)?;
    let mut directory =
        open::beneath(alloc_dir.as_fd(), Path::new("alloc/logs"), open::HANDLE, Mounts::Stay)
            .at(format!("{}/alloc/logs", dirs.alloc_dir))?;
    let mut owner = dirs.agent_uid;
    if users.is_some() {
        let clone = syscalls::clone_mount(directory.as_fd(), false).at("log directory")?;
        let attributes = syscalls::NO_DEV | syscalls::NO_SUID;
        match syscalls::set_mount_attributes(clone.as_fd(), attributes, users) {
            Ok(()) => {
                // Attached, though nobody looks there: giving up a detached mount waits for RCU.
                OwnPath::on_stage("logs").attach(clone.as_fd(), MountPoint::Directory)?;
                directory = clone;
                owner = owner.saturating_add(plan.container_root());
            }
            // No mapping on this file system: the payload can use the streams, not open them again.
            Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => {}
            Err(e) => return Err(e).at("log directory"),
        }
    }
    let [stdout, stderr] = NAMES.map(|stream| find_fifo(directory.as_fd(), dirs, stream, owner));
    Ok(Streams::Handles([stdout?, stderr?]))
}

/// Both streams as lines of the host's journal.
pub(super) fn journal(plan: &Plan) -> Result<[OwnedFd; 2], Problem> {
    let connect = |priority: u8| -> io::Result<OwnedFd> {
        let mut stream = OwnPath::constant(JOURNAL).connect()?;
        stream.shutdown(Shutdown::Read)?;
        // Identifier, unit, priority, then no: priorities in lines, syslog, kernel log, console.
        let unit = format!("nomad-nspawn-{}.service", plan.unit);
        write!(stream, "{}\n{unit}\n{priority}\n0\n0\n0\n0\n", plan.machine)?;
        Ok(stream.into())
    };
    let [stdout, stderr] = PRIORITIES.map(|priority| connect(priority).at(JOURNAL));
    Ok([stdout?, stderr?])
}

/// Where the payload's stream is handed to the unit that carries it on; the directory is root's
/// alone.
pub(super) fn pipe(unit: UnitId, stream: &str) -> OwnPath {
    OwnPath::of_unit(unit).join(stream)
}

/// Makes a pipe with a name: no descriptor has to be passed from unit to unit. Opened for reading
/// and writing as Nomad's FIFOs are; its owner is container root, who may so re-open it.
fn make_pipe(plan: &Plan, stream: &str) -> Result<OwnedFd, Problem> {
    OwnPath::of_unit(plan.unit).make_dirs(0o700)?;
    let path = pipe(plan.unit, stream);
    match path.make_fifo() {
        // The name is this run's, and the directory is root's.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(e) => return Err(e).at(path),
    }
    path.set_owner(Some(plan.container_root())).at(&path)?;
    path.open(OFlag::O_RDWR | OFlag::O_NOFOLLOW).at(path)
}

/// The null device, for reading and writing.
pub(super) fn null() -> Result<OwnedFd, Problem> {
    OwnPath::constant("/dev/null").open(OFlag::O_RDWR).at("/dev/null")
}

fn find_fifo(
    directory: BorrowedFd<'_>,
    dirs: &TaskDirs,
    stream: &str,
    owner: u32,
) -> Result<OwnedFd, Problem> {
    let name = format!(".{}.{stream}.fifo", dirs.task);
    let handle =
        open::beneath(directory, Path::new(&name), OFlag::O_PATH, Mounts::Stay).at(&name)?;
    let meta = open::metadata(&handle).at(&name)?;
    if !meta.file_type().is_fifo() || meta.uid() != owner || meta.nlink() != 1 {
        let reason = "is not the FIFO that the Nomad agent made (type, owner or link count \
                      differ): something in the allocation replaced it, or agent_uid in the \
                      policy file is not the agent's uid";
        return Err(Problem::refused(name, reason));
    }
    Ok(handle)
}
