//! One request to one answer.
//!
//! Trusts nothing in a request: order, epoch and bounds are checked here, what it asks for in
//! [`policy`]. Never acts for a connection that has not greeted.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::exec::ExecSpec;
use proto::parts::{Assembly, Part};
use proto::task_spec::TaskSpec;
use proto::unit_id::UnitId;
use proto::wire::{Answer, Exec, Hello, Request, Signal, Start, Verb, Welcome};
use proto::{codec, limits};
use tokio::time::Instant;

use crate::context::{Context, Held};
use crate::end::remove;
use crate::exec::open;
use crate::process;
use crate::socket::audit::Peer;
use crate::start::conduct;
use crate::systemd::units::freeze;
use crate::systemd::units::stop::Who;
use crate::tasks::status;
use policy::check_signal;

/// Longest wait of a greeting for the version of systemd, which a start reads again.
const VERSION_WAIT: Duration = Duration::from_secs(1);

/// Time for PID 1 to freeze a task; its own bound is a minute and more.
const FREEZE: Duration = Duration::from_secs(5);

/// What a connection remembers between requests.
pub(crate) struct Session {
    context: Rc<Context>,
    peer: Peer,
    greeted: bool,
    assembly: Assembly,
    /// When the greeting must have come, or the specification that is being sent be complete.
    pub(crate) deadline: Option<Instant>,
    /// Bytes of this connection that count in the bound of all.
    held: Held,
    /// Goes with the answer to the last request.
    pub(crate) descriptor: Option<OwnedFd>,
}

impl Session {
    pub(crate) fn new(context: Rc<Context>, peer: Peer) -> Self {
        let deadline = Some(Instant::now() + Duration::from_secs(limits::GREETING_TIMEOUT_S));
        let held = Held::new(&context);
        let assembly = Assembly::default();
        Self { context, peer, greeted: false, assembly, deadline, held, descriptor: None }
    }

    /// Answers one request; with the answer, the task that it was about.
    pub(crate) async fn answer(&mut self, request: &Request) -> (Result<Answer, Refusal>, String) {
        let mut task = request.verb.key().map(ToString::to_string).unwrap_or_default();
        let result = match self.admit(request) {
            Ok(()) => self.dispatch(&request.verb, &mut task).await,
            Err(refusal) => Err(refusal),
        };
        (result, task)
    }

    /// Checks order and epoch.
    fn admit(&self, request: &Request) -> Result<(), Refusal> {
        let greeting = matches!(request.verb, Verb::Hello(_));
        if greeting == self.greeted {
            return Err(protocol("hello must come first, and once"));
        }
        let parts_go_on = matches!(request.verb, Verb::Part(_) | Verb::Start(_) | Verb::Exec(_));
        if !self.assembly.is_empty() && !parts_go_on {
            return Err(protocol("a specification was begun: only parts and start may follow"));
        }
        let epoch = if greeting { 0 } else { self.context.epoch };
        if request.epoch != epoch {
            let reason = "the helper was restarted: greet it again";
            return Err(Refusal::new(Code::Epoch, "decode", "epoch", reason));
        }
        Ok(())
    }

    async fn dispatch(&mut self, verb: &Verb, task: &mut String) -> Result<Answer, Refusal> {
        match verb {
            Verb::Hello(hello) => self.hello(hello).await,
            Verb::Part(part) => self.part(part),
            Verb::Start(start) => self.start(start, task).await,
            Verb::Signal(signal) => self.signal(signal).await,
            Verb::Kill(key) => {
                self.context.table.borrow().find(key, "find")?;
                remove::kill(&self.context, key, Who::All).await.map(|()| Answer::Killed)
            }
            Verb::Status(key) => status::of(&self.context, key).await.map(Answer::Status),
            Verb::List(after) => Ok(Answer::Page(self.context.table.borrow().page(after.as_ref()))),
            Verb::Remove(key) => remove::run(&self.context, key).await.map(|()| Answer::Removed),
            Verb::Exec(exec) => self.exec(exec, task).await,
        }
    }

    async fn hello(&mut self, hello: &Hello) -> Result<Answer, Refusal> {
        let version = hello.newest.min(limits::PROTOCOL_NEWEST);
        if version < hello.oldest.max(limits::PROTOCOL_OLDEST) {
            let (oldest, newest) = (limits::PROTOCOL_OLDEST, limits::PROTOCOL_NEWEST);
            return Err(protocol(format!(
                "this helper speaks versions {oldest} to {newest}, the driver {} to {}: \
                 install driver and helper of one release",
                hello.oldest, hello.newest
            )));
        }
        self.greeted = true;
        self.deadline = None;
        let policy = self.context.policy();
        // A bus that hangs must not make the helper look dead: the last answer counts then.
        drop(tokio::time::timeout(VERSION_WAIT, self.context.systemd()).await);
        let systemd = self.context.last_systemd.borrow().clone();
        Ok(Answer::Welcome(Welcome {
            version,
            features: 0,
            epoch: self.context.epoch,
            helper: env!("CARGO_PKG_VERSION").to_owned(),
            systemd: proto::systemd::major(&systemd),
            systemd_accepted: policy.accepts(&systemd),
            systemd_text: systemd,
            host_network: policy.network.allow.iter().any(|kind| kind.0 == "host"),
            host_users: !policy.userns.require,
            exec: policy.exec.allow,
        }))
    }

    fn part(&mut self, part: &Part) -> Result<Answer, Refusal> {
        if !self.held.fits(part.bytes.len()) {
            let reason = "too many starts are being sent at once";
            return Err(Refusal::new(Code::Busy, "decode", "part", reason));
        }
        self.assembly.take(part).map_err(protocol)?;
        self.held.add(part.bytes.len());
        // From the first part on: a byte now and then must not keep it open.
        let limit = Duration::from_secs(limits::ASSEMBLY_TIMEOUT_S);
        self.deadline.get_or_insert_with(|| Instant::now() + limit);
        Ok(Answer::Taken)
    }

    async fn start(&mut self, wanted: &Start, task: &mut String) -> Result<Answer, Refusal> {
        let (spec, held): (TaskSpec, Held) = self.take_whole(wanted.length)?;
        *task = spec.key.to_string();
        // The agent starts the plugin.
        let agent = process::parent_of(self.peer.pid);
        conduct::run(&self.context, spec, held, agent).await.map(Answer::Started)
    }

    async fn exec(&mut self, wanted: &Exec, task: &mut String) -> Result<Answer, Refusal> {
        let (spec, held): (ExecSpec, Held) = self.take_whole(wanted.length)?;
        *task = spec.key.to_string();
        if usize::try_from(wanted.length).is_ok_and(|length| length > limits::EXEC_MAX) {
            let reason = format!(
                "words and environment may take {} bytes together, and take {}: shorten them",
                limits::EXEC_MAX,
                wanted.length
            );
            return Err(Refusal::new(Code::Invalid, "decode", spec.key, reason));
        }
        self.descriptor = Some(open::run(&self.context, spec, held, self.peer).await?);
        Ok(Answer::Session)
    }

    /// The specification whose parts have come, and what it counts in the bound of all.
    fn take_whole<T: codec::Decode<()>>(&mut self, length: u32) -> Result<(T, Held), Refusal> {
        let assembly = std::mem::take(&mut self.assembly);
        let held = std::mem::replace(&mut self.held, Held::new(&self.context));
        self.deadline = None;
        let whole = assembly.finish(length).map_err(protocol)?;
        Ok((codec::decode_whole(&whole).map_err(protocol)?, held))
    }

    async fn signal(&self, wanted: &Signal) -> Result<Answer, Refusal> {
        let signal = check_signal(wanted.signal).map_err(|denial| denial.refusal)?;
        let entry = self.context.table.borrow().find(&wanted.key, "find")?;
        // The command itself below a stub init, PID 1 otherwise: never systemd-nspawn.
        let target = entry.payload.or(entry.leader);
        let gone = |reason: String| Refusal::new(Code::Unknown, "signal", &wanted.key, reason);
        let target = target.ok_or_else(|| gone("the payload does not run yet".to_owned()))?;
        // Of the whole task, which would go on but for its first process otherwise.
        let (bus, unit) = (&self.context.bus, UnitId::from(&wanted.key));
        let is_done = match i32::from(signal) {
            libc::SIGSTOP if !target.has_ended() => {
                self.context.pace.wait().await;
                let frozen = tokio::time::timeout(FREEZE, freeze::freeze(bus, unit)).await;
                let late = "its processes were not frozen within 5 s, as those in a system call \
                            that nothing interrupts: SIGCONT takes the request back";
                frozen.unwrap_or_else(|_| Err(late.to_owned()))
            }
            libc::SIGCONT => {
                self.context.pace.wait().await;
                freeze::thaw(bus, unit).await
            }
            _ => Ok(false),
        };
        if is_done.map_err(|e| Refusal::failed("signal", &wanted.key, e))? {
            return Ok(Answer::Signaled);
        }
        target.signal(signal).map_err(|e| match e.raw_os_error() {
            Some(libc::ESRCH) => gone("the payload has ended".to_owned()),
            _ => Refusal::failed("signal", &wanted.key, e),
        })?;
        Ok(Answer::Signaled)
    }
}

fn protocol(reason: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Protocol, "decode", "", reason)
}
