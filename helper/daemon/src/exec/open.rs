//! Opens one session: finds the task, and puts the driver's socket and a worker together.
//!
//! Carries no byte of the command and none of its exit: from here on driver and worker have a
//! socket of their own. Trusts the driver's specification as far as the policy has judged it.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proto::error::{Code, Refusal, printable};
use proto::exec::{ExecPlan, ExecSpec};
use proto::name::TaskKey;
use proto::step::Step;
use proto::unit_id::UnitId;

use crate::context::{Context, Held};
use crate::exec::workers::{self, Permit};
use crate::process::{Process, nspawn};
use crate::socket::audit::Peer;
use crate::start::payload_watch::{self, Processes};
use crate::systemd::units::read;
use kernel::hook;

/// The step that refusals name.
const STEP: &str = "execute";
/// Time for a task to arrive that is being started.
const ARRIVAL: Duration = Duration::from_secs(1);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);

/// Opens a session; returns the driver's end of its socket. `held`: what the specification counts
/// in the bound of all, until a worker has it.
pub(crate) async fn run(
    context: &Rc<Context>,
    spec: ExecSpec,
    held: Held,
    peer: Peer,
) -> Result<OwnedFd, Refusal> {
    let policy = context.policy();
    policy::check_exec(&spec, &policy).map_err(|denial| denial.refusal)?;
    let most = policy.exec.max_sessions.0;
    let task = spec.key.clone();
    let permit = Permit::take(context, UnitId::from(&task), most)
        .map_err(|reason| Refusal::new(Code::Busy, STEP, &task, reason))?;
    // As for a start: PID 1 makes the next worker's unit.
    context.exec_pace.wait().await;
    let payload = await_arrival(context, &task).await?;
    let record = context.table.borrow().find(&task, STEP)?.record;
    if !record.is_readable() {
        let reason = "was started by a later version of the helper: install that version again, or \
                      stop the task";
        return Err(Refusal::new(Code::Invalid, STEP, task, reason));
    }
    let cgroup = read::cgroup(&context.bus, record.unit()).await;
    let failed = |reason: String| Refusal::failed(STEP, &task, reason);
    let cgroup = cgroup.map_err(failed)?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| failed(e.to_string()))?;
    let payload = payload.fd().try_clone_to_owned().map_err(|e| failed(e.to_string()))?;
    let reach = workers::reach_of(record.users.is_some());
    let worker = hook::during(Step::SessionWorker, workers::take(context, reach)).await;
    let worker = worker.inspect_err(|_| workers::fill_pool(context, reach))?;
    let session = worker.id;
    let summary = Summary::of(&spec);
    let width = record.users.map_or(u32::MAX, |range| range.width);
    let plan = ExecPlan { session, unit: record.unit(), cgroup, width, spec };
    let fds = [&theirs, &payload];
    let opened = worker.open(permit, plan, &fds);
    let opened = hook::during(Step::SessionHandOver, opened).await;
    drop(held);
    workers::fill_pool(context, reach);
    opened?;
    summary.log(&task, session, peer);
    Ok(ours)
}

/// The payload's process, once it runs. Not systemd-nspawn's stub init: that has executed nothing
/// in the container, so the kernel protects it as a process of the host's (ptrace(2)).
async fn await_arrival(context: &Context, key: &TaskKey) -> Result<Process, Refusal> {
    let refuse = |code, reason: &str| Err(Refusal::new(code, STEP, key, reason));
    let begun = tokio::time::Instant::now();
    loop {
        let entry = context.table.borrow().find(key, STEP)?;
        let kind = entry.record.kind;
        let processes = Processes { leader: entry.leader, payload: entry.payload };
        match payload_watch::payload_process(kind, &processes) {
            Some(payload) if payload.has_ended() => {
                return refuse(Code::Unknown, "the task has ended");
            }
            Some(payload) if payload_watch::has_arrived(kind, nspawn(), &processes) => {
                return Ok(payload.clone());
            }
            None if !entry.starting => return refuse(Code::Unknown, "the task has ended"),
            _ => {}
        }
        if begun.elapsed() > ARRIVAL {
            return refuse(Code::Busy, "the task is being started; its command does not run yet");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the journal has of a command: what it is, and of the rest how much.
struct Summary {
    command: String,
    words: usize,
    variables: usize,
    user: String,
    terminal: bool,
}

impl Summary {
    fn of(spec: &ExecSpec) -> Self {
        Self {
            command: spec.words.first().map(|word| printable(word.reveal())).unwrap_or_default(),
            words: spec.words.len(),
            variables: spec.environment.len(),
            user: spec.user.as_ref().map_or("root".to_owned(), ToString::to_string),
            terminal: spec.terminal.is_some(),
        }
    }

    fn log(self, task: &TaskKey, session: proto::exec::SessionId, peer: Peer) {
        let Self { command, words, variables, user, terminal } = self;
        let Peer { uid, pid } = peer;
        tracing::info!(
            %task, %session, uid, pid, command, words, variables, user, terminal, "command executed"
        );
    }
}
