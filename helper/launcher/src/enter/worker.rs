//! `enter`: waits for one piece of work, does it, and ends.
//!
//! Standard input is the daemon's socket. Its end before the work has come ends the process: a
//! daemon that starts again has its own workers. From then on the daemon has no part in it.
//!
//! Trusts the daemon, which has checked the command's form and bounds.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::ExitCode;

use kernel::syscalls;
use nix::sys::prctl::set_dumpable;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::{cmsg_space, errno::Errno};
use proto::exec::{Work, WorkerReport};
use proto::parts::Assembly;
use proto::plan::{LAUNCHER_FAILED, Order};
use proto::{codec, limits};

use super::leaf::Leaf;
use super::seal;
use super::session::{self, Session};
use crate::daemon_link::Orders;
use crate::step::{At as _, Problem};

/// Descriptors that come with a message at most.
const DESCRIPTORS: usize = 2;

/// Runs `enter`.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("enter failed: {problem}");
            ExitCode::from(LAUNCHER_FAILED)
        }
    }
}

fn run() -> Result<(), Problem> {
    // Its copies go into containers: nobody there may look at them (ptrace(2), "access mode
    // checking").
    set_dumpable(false).at("own process")?;
    seal::check()?;
    let orders = Orders::take().at("helper socket")?;
    let pid = std::process::id();
    orders.send(&WorkerReport::Ready { pid }).at("helper socket")?;
    let Some((work, descriptors)) = receive(&orders)? else { return Ok(()) };
    match work {
        Work::Execute(plan) => {
            let [socket, payload] = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors)
                .map_err(|all| unexpected(format!("{} descriptors", all.len())))?;
            session::run(Session { plan, socket, payload }, orders);
            Ok(())
        }
        Work::Clear { cgroup, session } => Leaf::of(&cgroup, session).clear(),
    }
}

/// The work and its descriptors; `None` when the daemon has gone away before.
fn receive(orders: &Orders) -> Result<Option<(Work, Vec<OwnedFd>)>, Problem> {
    let mut assembly = Assembly::default();
    loop {
        let Some((order, descriptors)) = next(orders).at("helper socket")? else {
            return Ok(None);
        };
        match order {
            Order::Part(part) => assembly.take(&part).map_err(unexpected)?,
            Order::Prepare { length } => {
                let whole = assembly.finish(length).map_err(unexpected)?;
                let work = codec::decode_whole(&whole).map_err(unexpected)?;
                return Ok(Some((work, descriptors)));
            }
            Order::Go => return Err(unexpected("go")),
        }
    }
}

fn unexpected(what: impl std::fmt::Display) -> Problem {
    Problem::refused("work", format!("is not what a worker gets: {what}"))
}

fn next(orders: &Orders) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; limits::MESSAGE_MAX];
    let mut space = cmsg_space!([std::os::fd::RawFd; DESCRIPTORS]);
    let (length, descriptors) = loop {
        let mut into = [IoSliceMut::new(&mut buffer)];
        let socket = orders.socket().as_raw_fd();
        match recvmsg::<()>(socket, &mut into, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(None),
            received => {
                let received = received?;
                let rights = received.cmsgs()?.flat_map(|message| match message {
                    ControlMessageOwned::ScmRights(all) => all,
                    _ => Vec::new(),
                });
                // Each number is a descriptor that the kernel has just made for this process.
                break (received.bytes, rights.map(syscalls::take_passed_fd).collect());
            }
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let order = codec::decode(buffer.get(..length).unwrap_or_default());
    order.map(|order| Some((order, descriptors))).map_err(io::Error::other)
}
