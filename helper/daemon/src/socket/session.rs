//! One request to one answer.
//!
//! Trusts nothing in a request: order, epoch and bounds are checked here, what it asks for in
//! [`policy`]. Never acts for a connection that has not greeted.

use std::rc::Rc;
use std::time::Duration;

use proto::error::{Code, Refusal};
use proto::parts::{Assembly, Part};
use proto::task_spec::TaskSpec;
use proto::wire::{Answer, Hello, Request, Signal, Start, Verb, Welcome};
use proto::{codec, limits};
use tokio::time::Instant;

use crate::context::{Context, Held};
use crate::end::remove;
use crate::process;
use crate::start::conduct;
use crate::systemd::units::stop::Who;
use crate::tasks::status;
use policy::check_signal;

/// Longest wait of a greeting for the version of systemd, which a start reads again.
const VERSION_WAIT: Duration = Duration::from_secs(1);

/// What a connection remembers between requests.
pub(crate) struct Session {
    context: Rc<Context>,
    /// Process id of the peer; 0 where it cannot be seen.
    peer: i32,
    greeted: bool,
    assembly: Assembly,
    /// When the greeting must have come, or the specification that is being sent be complete.
    pub(crate) deadline: Option<Instant>,
    /// Bytes of this connection that count in the bound of all.
    held: Held,
}

impl Session {
    pub(crate) fn new(context: Rc<Context>, peer: i32) -> Self {
        let deadline = Some(Instant::now() + Duration::from_secs(limits::GREETING_TIMEOUT_S));
        let held = Held::new(&context);
        Self { context, peer, greeted: false, assembly: Assembly::default(), deadline, held }
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
            Verb::Signal(signal) => self.signal(signal),
            Verb::Kill(key) => {
                self.context.table.borrow().find(key, "find")?;
                remove::kill(&self.context, key, Who::All).await.map(|()| Answer::Killed)
            }
            Verb::Status(key) => status::of(&self.context, key).await.map(Answer::Status),
            Verb::List(after) => Ok(Answer::Page(self.context.table.borrow().page(after.as_ref()))),
            Verb::Remove(key) => remove::run(&self.context, key).await.map(|()| Answer::Removed),
            Verb::Exec(_) => Err(protocol("this helper executes no commands in tasks")),
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
        let assembly = std::mem::take(&mut self.assembly);
        let held = std::mem::replace(&mut self.held, Held::new(&self.context));
        self.deadline = None;
        let whole = assembly.finish(wanted.length).map_err(protocol)?;
        let spec: TaskSpec = codec::decode_whole(&whole).map_err(protocol)?;
        drop(whole);
        *task = spec.key.to_string();
        // The agent starts the plugin.
        let agent = process::parent_of(self.peer);
        conduct::run(&self.context, spec, held, agent).await.map(Answer::Started)
    }

    fn signal(&self, wanted: &Signal) -> Result<Answer, Refusal> {
        let signal = check_signal(wanted.signal).map_err(|denial| denial.refusal)?;
        let entry = self.context.table.borrow().find(&wanted.key, "find")?;
        // The command itself below a stub init, PID 1 otherwise: never systemd-nspawn.
        let target = entry.payload.or(entry.leader);
        let gone = |reason: String| Refusal::new(Code::Unknown, "signal", &wanted.key, reason);
        let target = target.ok_or_else(|| gone("the payload does not run yet".to_owned()))?;
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
