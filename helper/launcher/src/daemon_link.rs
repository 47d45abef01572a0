//! The launcher's end of the socket to the daemon: plan in, reports out.
//!
//! The socket is standard input. End of file before "go" means that the daemon is gone: the
//! launcher ends, and nothing has been started.

use std::fmt::Display;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::socket::{ControlMessage, MsgFlags, recv, sendmsg};
use proto::codec::Encode;
use proto::error::Refusal;
use proto::parts::Assembly;
use proto::plan::{LAUNCHER_FAILED, Order, Plan, Report};
use proto::step::Step;
use proto::{codec, limits};

use super::step::{At, Problem, Steps};

/// Runs a verb that the daemon gives a plan; a failure is told to the daemon and in the journal.
pub(super) fn serve<T>(
    verb: &str,
    run: impl FnOnce(&Orders, Plan, &mut Steps) -> Result<T, Refusal>,
) -> ExitCode {
    let orders = match Orders::take() {
        Ok(orders) => orders,
        Err(error) => {
            eprintln!("{verb}: standard input is not the helper's socket: {error}");
            return ExitCode::from(LAUNCHER_FAILED);
        }
    };
    let mut steps = Steps::new();
    let read = |steps: &mut Steps| {
        let pid = std::process::id();
        steps.run(Step::ReadPlan, || orders.report(&Report::Begun { pid }).at("helper socket"))?;
        steps.run(Step::ReadPlan, || orders.plan())
    };
    let Err(refusal) = read(&mut steps).and_then(|plan| run(&orders, plan, &mut steps)) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{verb} failed: {refusal}");
    if let Err(error) = orders.report(&Report::Failed(refusal)) {
        eprintln!("{verb}: cannot report to the helper: {error}");
    }
    ExitCode::from(LAUNCHER_FAILED)
}

/// The socket to the daemon.
pub(super) struct Orders(OwnedFd);

impl Orders {
    /// Takes a copy of standard input that the payload will not inherit.
    pub(super) fn take() -> io::Result<Self> {
        // Duplicated above the standard streams, and closed by execve (F_DUPFD_CLOEXEC).
        io::stdin().as_fd().try_clone_to_owned().map(Self)
    }

    fn next(&self) -> Result<Order, Problem> {
        let mut buffer = vec![0; limits::MESSAGE_MAX];
        let told = |reason: &dyn Display| Problem::refused("helper socket", reason);
        let length = loop {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(told(&e)),
                Ok(0) => return Err(told(&"the helper has gone away")),
                Ok(length) => break length,
            }
        };
        codec::decode(buffer.get(..length).unwrap_or_default()).map_err(|e| told(&e))
    }

    /// Collects the plan.
    pub(super) fn plan(&self) -> Result<Plan, Problem> {
        let mut assembly = Assembly::default();
        let length = loop {
            match self.next()? {
                Order::Part(part) => {
                    assembly.take(&part).map_err(|e| Problem::refused("plan", e))?;
                }
                Order::Prepare { length } => break length,
                Order::Go => return Err(Problem::refused("plan", "go before the plan")),
            }
        };
        let whole = assembly.finish(length).map_err(|e| Problem::refused("plan", e))?;
        codec::decode_whole(&whole).map_err(|e| Problem::refused("plan", e))
    }

    /// Waits for "go".
    pub(super) fn wait_for_go(&self) -> Result<(), Problem> {
        match self.next()? {
            Order::Go => Ok(()),
            _ => Err(Problem::refused("helper socket", "expected go")),
        }
    }

    /// Sends a report. A daemon that is gone cannot take it; its next process reads the unit.
    pub(super) fn report(&self, report: &Report) -> io::Result<()> {
        self.report_with(report, &[])
    }

    /// The same with descriptors.
    pub(super) fn report_with(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_with(report, fds)
    }

    /// Sends any message.
    pub(super) fn send(&self, message: &impl Encode) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// The socket itself.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn send_with(&self, message: &impl Encode, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = codec::encode(message).map_err(io::Error::other)?;
        let text = [IoSlice::new(&bytes)];
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let with = if fds.is_empty() { &[] } else { rights.as_slice() };
        sendmsg::<()>(self.0.as_raw_fd(), &text, with, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}
