//! One session from outside of the task: the worker stays root of the host in the host's
//! namespaces, starts the copy of itself that goes in, reports to the driver, and ends with the
//! command.
//!
//! The session ends in one of three ways: the command ends, the driver closes its end of the socket
//! (then everything of it is killed), or the worker is killed (then the command is, by the kernel,
//! and the daemon has the rest killed). It never waits for the task without a limit but for the
//! command's end: a process of the task may trace the command, or hold up whoever enters it.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::process::exit;
use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel::{hook, syscalls};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, sendmsg, socketpair,
};
use nix::unistd::Pid;
use proto::error::Refusal;
use proto::exec::{ExecPlan, SessionReport};
use proto::step::Step;
use proto::{codec, limits};

use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::command::{self, Command};
use super::filters;
use super::inside::{self, Entrant};
use super::leaf::Leaf;
use super::payload::Payload;
use crate::daemon_link::Orders;
use crate::step::{At as _, Problem};

/// The step that a session's refusals name.
const STEP: &str = "execute";
/// Time from the first system call inside to execve(2): milliseconds are usual. A task that is
/// frozen, or that has put a file system of its own in the way, holds it up.
const SETUP: Duration = Duration::from_secs(5);
/// Time for a command to end after SIGHUP.
const HANG_UP: Duration = Duration::from_secs(2);
/// Time for the kernel to give a child back that has ended: it does at once, unless another process
/// traces that child, or a file system keeps it in the kernel.
const REAP: Duration = Duration::from_secs(2);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// What the daemon has given this worker.
pub(super) struct Session {
    pub(super) plan: ExecPlan,
    /// Its end of the socket to the driver.
    pub(super) socket: OwnedFd,
    /// Pidfd of the payload's process.
    pub(super) payload: OwnedFd,
}

/// What the copy inside reports: the pid of the command's process, or why there is none.
type Setup = Result<i32, Refusal>;

/// Runs a session to its end.
pub(super) fn run(session: Session, orders: Orders) {
    let Session { plan, socket, payload } = session;
    let (id, leaf) = (plan.session, Leaf::of(&plan.cgroup, plan.session));
    let begun = match prepare(plan, payload, &orders, &leaf) {
        Ok(Prepared { entrant, cgroup, setup: (ours, theirs) }) => {
            match syscalls::fork_into(cgroup.as_fd()) {
                Ok(None) => {
                    // Nobody inside may find them. Without the worker's end in it, the copy sees
                    // that the worker has ended.
                    drop((cgroup, ours, orders));
                    go_in(entrant, socket, &theirs)
                }
                Ok(Some(copy)) => {
                    drop(theirs);
                    follow(copy, &ours, &socket, &leaf)
                }
                Err(error) => {
                    clear(&leaf);
                    let what =
                        "process in the task's cgroup (its limit of processes may be reached)";
                    Err(error).at(what)
                }
            }
        }
        Err(problem) => Err(problem),
    };
    match begun {
        Ok(running) => conclude(&running, &socket, &leaf),
        Err(problem) => {
            let refusal = problem.into_refusal(STEP);
            // More people read the journal than the command's words are for.
            let is_secret = refusal.object == command::OBJECT;
            let reason = if is_secret { "the driver has the reason" } else { &refusal.reason };
            eprintln!("session {id}: {}: {reason}", refusal.object);
            report(&socket, &SessionReport::Failed(refusal));
        }
    }
}

/// All that a copy needs.
struct Prepared {
    entrant: Entrant,
    /// The session's cgroup.
    cgroup: OwnedFd,
    /// On which the copy reports: the worker's end, and its own.
    setup: (OwnedFd, OwnedFd),
}

fn prepare(
    plan: ExecPlan,
    payload: OwnedFd,
    orders: &Orders,
    leaf: &Leaf,
) -> Result<Prepared, Problem> {
    let command = Command::new(&plan.spec)?;
    let payload = Payload::read(payload)?;
    let found = hook::run(Step::SessionFilters, || filters::find(plan.unit, &payload, orders))?;
    let setup = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let setup = setup.at("socket pair")?;
    let cgroup = hook::run(Step::SessionCgroup, || leaf.make())?;
    Ok(Prepared { entrant: Entrant { plan, payload, found, command }, cgroup, setup })
}

/// The copy.
fn go_in(entrant: Entrant, driver: OwnedFd, setup: &OwnedFd) -> ! {
    let entered = inside::enter(entrant, driver, setup);
    let is_in = entered.is_ok();
    tell(setup, &entered.map_err(|problem| problem.into_refusal(STEP)));
    exit(i32::from(!is_in))
}

/// The worker, until the command runs; leaves nothing behind where it does not.
fn follow(copy: i32, setup: &OwnedFd, driver: &OwnedFd, leaf: &Leaf) -> Result<Running, Problem> {
    let copy = syscalls::open_process(copy.cast_unsigned());
    let result = hook::run(Step::SessionStart, || {
        drop_rights().and_then(|()| await_command(setup, driver.as_fd()))
    });
    if result.is_err() {
        clear(leaf);
    }
    // One that a file system of the task's keeps in the kernel ends when that lets it go.
    match copy {
        Ok(copy) => drop(reap(&copy)),
        Err(error) => eprintln!("the process inside: {error}"),
    }
    result
}

/// The worker, while the command runs.
fn conclude(running: &Running, driver: &OwnedFd, leaf: &Leaf) {
    report(driver, &SessionReport::Started);
    match running.wait(driver) {
        End::Exit(code) => report(driver, &SessionReport::Exited { code }),
        End::Kept => {
            let reason = "has ended, but a process of the task traces it and keeps its exit code \
                          (ptrace(2)): end the tracer";
            let problem = Problem::held(command::OBJECT, reason);
            report(driver, &SessionReport::Failed(problem.into_refusal(STEP)));
        }
        End::HangUp => return running.hang_up(leaf),
    }
    hook::run(Step::SessionEnd, || leaf.finish());
}

/// What is left to do needs two capabilities: to kill processes of others, and to remove a
/// directory of theirs. A session may be long.
fn drop_rights() -> Result<(), Problem> {
    let CapabilitySets { permitted, .. } = capabilities(None).at("own capabilities")?;
    let left = permitted & (CapabilitySet::KILL | CapabilitySet::DAC_OVERRIDE);
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable })
        .at("own capabilities")
}

fn clear(leaf: &Leaf) {
    if let Err(problem) = leaf.clear() {
        eprintln!("{problem}");
    }
}

/// A command that runs.
struct Running {
    pid: Pid,
    process: OwnedFd,
}

/// How the wait for a command has ended.
enum End {
    /// By its exit.
    Exit(i32),
    /// By its exit, whose code a tracer keeps.
    Kept,
    /// The driver is gone.
    HangUp,
}

/// Reads reports until the socket ends: execve(2) closes the last copy of the other end.
fn await_command(setup: &OwnedFd, driver: BorrowedFd<'_>) -> Result<Running, Problem> {
    let deadline = Instant::now() + SETUP;
    let mut pid = None;
    loop {
        let [ready, hung_up] = wait_for([(setup.as_fd(), true), (driver, false)], Some(deadline))?;
        if hung_up {
            return Err(Problem::held("driver", "has closed the session before it began"));
        }
        if !ready {
            let reason = "did not begin within 5 s: the task is frozen, or holds up who enters it";
            return Err(Problem::held("command", reason));
        }
        let mut buffer = vec![0; limits::MESSAGE_MAX];
        let length = match recv(setup.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            received => received.at("the process inside")?,
        };
        if length == 0 {
            break;
        }
        match codec::decode::<Setup>(buffer.get(..length).unwrap_or_default()) {
            Ok(Ok(number)) => pid = Some(number),
            Ok(Err(refusal)) => return Err(Problem::repeated(refusal)),
            Err(error) => return Err(Problem::refused("the process inside", error)),
        }
    }
    let killed = || {
        let reason = "was killed; the limits of the task, its end or a signal can be the reason";
        Problem::held("the process that enters the task", reason)
    };
    let pid = pid.ok_or_else(killed)?;
    let process = syscalls::open_process(pid.cast_unsigned()).at("process of the command")?;
    // The report may be a forged one where a task has no user namespace, and the number is sent
    // signals: it has to be a child's. Only the worker takes children away, so it stays that.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::PidFd(process.as_fd()), look).at("process of the command")?;
    Ok(Running { pid: Pid::from_raw(pid), process })
}

impl Running {
    /// Waits for the command's end or the driver's.
    fn wait(&self, driver: &OwnedFd) -> End {
        let [ended, _] = wait_for([(self.process.as_fd(), true), (driver.as_fd(), false)], None)
            .unwrap_or_default();
        match ended.then(|| reap(&self.process)) {
            Some(Some(code)) => End::Exit(code),
            Some(None) => End::Kept,
            None => End::HangUp,
        }
    }

    /// The end of a session whose driver is gone: the command may end by itself, and nothing
    /// outlives it.
    fn hang_up(&self, leaf: &Leaf) {
        // Stopped processes get it as well.
        for signal in [Signal::SIGHUP, Signal::SIGCONT] {
            killpg(self.pid, signal).ok();
        }
        let deadline = Some(Instant::now() + HANG_UP);
        drop(wait_for([(self.process.as_fd(), true)], deadline));
        // Container root may have moved it out of the leaf.
        if let Err(error) = syscalls::signal_process(self.process.as_fd(), Signal::SIGKILL as u8)
            && error.raw_os_error() != Some(Errno::ESRCH as i32)
        {
            eprintln!("command not killed: {error}");
        }
        clear(leaf);
        reap(&self.process);
    }
}

/// Waits until one of them can be read (`true`), or has hung up; all `false` when the time is over.
fn wait_for<const N: usize>(
    all: [(BorrowedFd<'_>, bool); N],
    deadline: Option<Instant>,
) -> Result<[bool; N], Problem> {
    loop {
        let mut polled = all.map(|(fd, reads)| {
            PollFd::new(fd, if reads { PollFlags::POLLIN } else { PollFlags::empty() })
        });
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = left.map_or(PollTimeout::NONE, |left| {
            // A rest of a millisecond is waited for as well.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, limit) {
            Err(Errno::EINTR) => {}
            result => {
                result.at("poll")?;
                return Ok(polled.map(|it| it.any().unwrap_or(true)));
            }
        }
    }
}

/// Takes a child away that has ended, or ends now: its exit code. `None`: the kernel does not give
/// it back in time.
fn reap(child: &OwnedFd) -> Option<i32> {
    let deadline = Instant::now() + REAP;
    loop {
        match waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return status.exit_status().or(signal);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
            Ok(None) if Instant::now() > deadline => return None,
            Ok(None) => sleep(LOOK),
        }
    }
}

/// To the driver. One that is gone is noticed where the socket is watched.
fn report(driver: &OwnedFd, report: &SessionReport) {
    let sent = codec::encode(report).map_err(io::Error::other).and_then(|bytes| {
        let text = [IoSlice::new(&bytes)];
        Ok(sendmsg::<()>(driver.as_raw_fd(), &text, &[], MsgFlags::MSG_NOSIGNAL, None)?)
    });
    if let Err(error) = sent {
        eprintln!("not reported to the driver: {error}");
    }
}

/// To the worker, which is asked for nothing more.
fn tell(setup: &OwnedFd, result: &Setup) {
    if let Ok(bytes) = codec::encode(result) {
        send(setup.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL).ok();
    }
}
