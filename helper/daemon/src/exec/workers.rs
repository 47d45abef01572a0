//! Workers of sessions, from their units to their ends. Each is used once; those that wait for a
//! session are in `pool.rs`.
//!
//! The first command of a kind of task makes the first worker, and the last task of that kind that
//! is removed takes the waiting ones along. One that waits ends with this process; one at work does
//! not.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proto::error::Refusal;
use proto::exec::{ExecPlan, SessionId, Work, WorkerReport};
use proto::plan::Order;
use proto::unit_id::UnitId;
use proto::{codec, limits, parts};
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::AncillaryMessageWriter;

use crate::context::Context;
use crate::exec::leftovers;
use crate::exec::pool::{PERIOD, Pool, Waits};
use crate::process::Process;
use crate::start::{filter_cache, launch};
use crate::systemd::units::names;
use crate::systemd::units::worker::{self, Reach};

/// Time for a worker to take its work. It reads as fast as it is sent.
const HAND_OVER: Duration = Duration::from_secs(5);
/// Before another look at a worker that could not be looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// All workers of this process, and those at work of earlier ones.
#[derive(Default)]
pub(crate) struct Workers {
    /// Those that wait, for each kind of task.
    pools: HashMap<Reach, Pool>,
    /// Workers that are being started for commands that found none waiting.
    urgent: usize,
    /// Sessions that go on, and their tasks. `None`: of an earlier process, and not found yet.
    busy: HashMap<SessionId, Option<UnitId>>,
    /// Tasks of those that are being opened.
    opening: Vec<UnitId>,
}

/// A worker that waits.
pub(crate) struct Worker {
    pub(crate) id: SessionId,
    socket: UnixSeqpacket,
    process: Process,
}

impl Workers {
    fn pool(&mut self, reach: Reach) -> &mut Pool {
        self.pools.entry(reach).or_default()
    }

    /// Whether this session goes on.
    pub(crate) fn is_busy(&self, session: SessionId) -> bool {
        self.busy.contains_key(&session)
    }

    /// Takes note of the task of a session, whose cgroup has been found there.
    pub(crate) fn place(&mut self, session: SessionId, unit: UnitId) {
        if let Some(task) = self.busy.get_mut(&session) {
            task.get_or_insert(unit);
        }
    }

    /// Sessions of one task, with those that are being opened; and of all.
    fn count(&self, unit: UnitId) -> (u64, u64) {
        let opening = self.opening.iter().copied().map(Some);
        let tasks: Vec<_> = self.busy.values().copied().chain(opening).collect();
        let own = tasks.iter().filter(|task| **task == Some(unit)).count();
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        (number(own), number(tasks.len()))
    }
}

/// Of a session that is being opened, among those that may be at once.
pub(crate) struct Permit(Rc<Context>, UnitId);

/// Sessions of one task, of so many that a host may have: its processes can make a session last,
/// and others' commands have to go on.
pub(crate) fn most_of_task(most: u64) -> u64 {
    (most / 2).max(1)
}

impl Permit {
    /// Takes one for a task.
    ///
    /// # Errors
    /// `most`, or the task's part of it, are taken.
    pub(crate) fn take(context: &Rc<Context>, unit: UnitId, most: u64) -> Result<Self, String> {
        let mut workers = context.workers.borrow_mut();
        let (own, all) = workers.count(unit);
        let rule = "end some, or have the operator raise max_sessions in [exec] of the policy file";
        if all >= most {
            return Err(format!("{all} sessions run on this host, which may have {most}: {rule}"));
        }
        if own >= most_of_task(most) {
            return Err(format!(
                "{own} sessions run in this task, and one task may have half of the {most} of \
                 the host: {rule}"
            ));
        }
        workers.opening.push(unit);
        drop(workers);
        Ok(Self(context.clone(), unit))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let opening = &mut self.0.workers.borrow_mut().opening;
        if let Some(own) = opening.iter().position(|unit| *unit == self.1) {
            opening.swap_remove(own);
        }
    }
}

/// The kind of worker for a task.
pub(crate) fn reach_of(has_users: bool) -> Reach {
    if has_users { Reach::UserNamespace } else { Reach::Host }
}

/// A worker that waits, or a new one.
pub(crate) async fn take(context: &Context, reach: Reach) -> Result<Worker, Refusal> {
    let waiting = context.workers.borrow_mut().pool(reach).take();
    if let Some(worker) = waiting {
        return Ok(worker);
    }
    let _urgent = Urgent::begin(context);
    start(context, reach).await
}

/// Counts one in `urgent` while it is started.
struct Urgent<'a>(&'a Context);

impl<'a> Urgent<'a> {
    fn begin(context: &'a Context) -> Self {
        context.workers.borrow_mut().urgent += 1;
        Self(context)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.workers.borrow_mut().urgent -= 1;
    }
}

/// Has those started that are missing in the pool, one after the other. Not before commands that
/// wait for their own: PID 1 starts one unit at a time.
pub(crate) fn fill_pool(context: &Rc<Context>, reach: Reach) {
    let most = usize::try_from(context.policy().exec.max_sessions.0).unwrap_or(usize::MAX);
    {
        let mut workers = context.workers.borrow_mut();
        if workers.urgent > 0 || !workers.pool(reach).begin_start(most) {
            return;
        }
    }
    let context = context.clone();
    tokio::task::spawn_local(async move {
        let started = start(&context, reach).await;
        let is_started = started.is_ok();
        match started {
            Ok(worker) => context.workers.borrow_mut().pool(reach).add(worker),
            // The next command tries it itself and reports it.
            Err(error) => {
                context.workers.borrow_mut().pool(reach).end_start();
                tracing::warn!(%error, "no worker waits for the next command");
            }
        }
        release_unneeded(&context);
        if is_started && is_needed(&context, reach) {
            fill_pool(&context, reach);
            shrink_later(&context, reach);
        }
    });
}

/// Lets those go, after a while, that no command has needed.
fn shrink_later(context: &Rc<Context>, reach: Reach) {
    if !context.workers.borrow_mut().pool(reach).begin_shrinking() {
        return;
    }
    let context = context.clone();
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(PERIOD).await;
            if context.workers.borrow_mut().pool(reach).shrink() {
                return;
            }
        }
    });
}

fn is_needed(context: &Context, reach: Reach) -> bool {
    if !context.policy().exec.allow {
        return false;
    }
    let table = context.table.borrow();
    table.records().any(|record| reach_of(record.users.is_some()) == reach)
}

/// Lets those go that no task can need.
pub(crate) fn release_unneeded(context: &Context) {
    for (reach, pool) in &mut context.workers.borrow_mut().pools {
        if !is_needed(context, *reach) {
            pool.clear();
        }
    }
}

async fn start(context: &Context, reach: Reach) -> Result<Worker, Refusal> {
    let id = SessionId(crate::context::random());
    let unit = names::worker(id);
    let failed = |reason: String| Refusal::failed("worker", &unit, reason);
    let (socket, theirs) = pair().map_err(|e| failed(e.to_string()))?;
    let job = context.bus.job_of(&unit).await;
    worker::start(&context.bus, id, reach, theirs).await.map_err(failed)?;
    let ready = async {
        match receive(&socket).await {
            Ok(Some(WorkerReport::Ready { pid })) => Ok(pid),
            Ok(_) => Err(failed("reports out of order".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    };
    let pid = launch::await_report(ready, job, &unit).await?;
    // It waits for its work, so the number is its own.
    let process = Process::open(pid).map_err(|e| failed(e.to_string()))?;
    Ok(Worker { id, socket, process })
}

fn pair() -> io::Result<(UnixSeqpacket, OwnedFd)> {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    // The worker reads blocking; the flag belongs to each end alone.
    fcntl(&ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((UnixSeqpacket::try_from(ours)?, theirs))
}

async fn receive(socket: &UnixSeqpacket) -> io::Result<Option<WorkerReport>> {
    let mut buffer = vec![0; limits::MESSAGE_MAX];
    let received = socket.recv(&mut buffer).await?;
    match buffer.get(..received.bytes_read()).unwrap_or_default() {
        [] => Ok(None),
        message => codec::decode(message).map(Some).map_err(io::Error::other),
    }
}

impl Waits for Worker {
    fn has_ended(&self) -> bool {
        self.process.has_ended()
    }
}

impl Worker {
    /// Gives it the work of a session, and follows it to its end. From before it has the work on
    /// the session counts: what it makes is no leftover. A worker that does not take it sees the
    /// end of its socket, and ends.
    pub(crate) async fn open(
        self,
        permit: Permit,
        plan: ExecPlan,
        fds: &[&OwnedFd],
    ) -> Result<(), Refusal> {
        let (id, cgroup, context) = (self.id, plan.cgroup.clone(), permit.0.clone());
        context.workers.borrow_mut().busy.insert(id, Some(plan.unit));
        // It counts as one that goes on now.
        drop(permit);
        if let Err(refusal) = self.send(&Work::Execute(plan), fds).await {
            context.workers.borrow_mut().busy.remove(&id);
            return Err(refusal);
        }
        tokio::task::spawn_local(async move {
            self.attend(&context).await;
            context.workers.borrow_mut().busy.remove(&id);
            leftovers::sweep_session(&context, &cgroup, id).await;
        });
        Ok(())
    }

    /// Hands it its work, and the descriptors that go with it.
    pub(crate) async fn send(&self, work: &Work, fds: &[&OwnedFd]) -> Result<(), Refusal> {
        let unit = names::worker(self.id);
        let sent = tokio::time::timeout(HAND_OVER, self.send_all(work, fds)).await;
        let sent = sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        sent.map_err(|error| Refusal::failed("worker", unit, error))
    }

    async fn send_all(&self, work: &Work, fds: &[&OwnedFd]) -> io::Result<()> {
        let whole = codec::encode_whole(work).map_err(io::Error::other)?;
        let length = u32::try_from(whole.len()).map_err(io::Error::other)?;
        for part in parts::split(&whole).map_err(io::Error::other)? {
            let bytes = codec::encode(&Order::Part(part)).map_err(io::Error::other)?;
            self.socket.send(&bytes).await?;
        }
        let last = codec::encode(&Order::Prepare { length }).map_err(io::Error::other)?;
        let mut room = [0; 64];
        let mut with = AncillaryMessageWriter::new(&mut room);
        with.add_fds(fds.iter().map(|fd| fd.as_fd())).map_err(io::Error::other)?;
        self.socket.send_with_ancillary(&last, &mut with).await.map(drop)
    }

    /// Waits for its end; has filters made that it misses.
    async fn attend(&self, context: &Rc<Context>) {
        loop {
            tokio::select! {
                _ = self.process.await_end() => return,
                report = receive(&self.socket) => match report {
                    Ok(Some(WorkerReport::Missing(words))) => {
                        filter_cache::fill_now(context, words);
                    }
                    // It has closed the socket, or reports what it should not: the end counts.
                    _ => return drop(self.process.await_end().await),
                },
            }
        }
    }

    /// Waits for the end of one that clears up.
    pub(crate) async fn await_end(&self) -> io::Result<()> {
        self.process.await_end().await
    }
}

/// Takes over those of an earlier process of the daemon: sessions go on, and those that waited for
/// it end by themselves.
pub(crate) fn adopt(context: &Rc<Context>, found: Vec<(SessionId, u32)>) {
    // No process: its unit is ending.
    for (id, pid) in found.into_iter().filter(|(_, pid)| *pid != 0) {
        context.workers.borrow_mut().busy.insert(id, None);
        let context = context.clone();
        tokio::task::spawn_local(async move {
            await_end(id, pid).await;
            let task = context.workers.borrow_mut().busy.remove(&id).flatten();
            match task {
                Some(unit) => leftovers::sweep_session_of(&context, unit, id).await,
                None => leftovers::sweep(&context).await,
            }
        });
    }
}

/// Waits for the end of the worker that had this pid. One that cannot be looked at counts as one
/// that goes on: its session would be taken for what it has left.
async fn await_end(id: SessionId, pid: u32) {
    loop {
        match Process::open(pid) {
            Ok(process) if process.is_in_unit(&names::worker(id)) => {
                if process.await_end().await.is_ok() {
                    return;
                }
            }
            // The pid is another's by now.
            Ok(_) => return,
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return,
            Err(error) => tracing::warn!(session = %id, %error, "worker cannot be watched"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}
