//! Requests and replies of the helper socket.
//!
//! Order on a connection: one [`Hello`] first, then one request at a time; the next request may be
//! sent when the reply to the last has come. A specification is sent as [`Part`]s, closed by
//! [`Start`] or [`Exec`]. Anything else closes the connection.

use std::net::IpAddr;

use bincode::{Decode, Encode};

use crate::error::Refusal;
use crate::name::{MachineName, TaskKey};
use crate::parts::Part;
use crate::plan::FilterSource;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Request {
    /// The epoch from the greeting; 0 in the greeting itself.
    pub epoch: u64,
    /// Chosen by the driver, echoed in the reply and written in the helper's journal line.
    pub id: u64,
    /// What is asked.
    pub verb: Verb,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Verb {
    /// Greeting, first and once.
    Hello(Hello),
    /// A piece of an encoded [`crate::task_spec::TaskSpec`] or [`crate::exec::ExecSpec`].
    Part(Part),
    /// Start the task whose specification has been sent.
    Start(Start),
    /// Send a signal to the payload.
    Signal(Signal),
    /// Kill every process of the task, at once.
    Kill(TaskKey),
    /// What is known of one task.
    Status(TaskKey),
    /// What tasks there are, in pages: those after this key; `None`: from the first.
    List(Option<TaskKey>),
    /// Take away everything of a task; kills it when it runs. Unknown tasks are fine.
    Remove(TaskKey),
    /// Execute the command whose specification has been sent.
    Exec(Exec),
}

impl Verb {
    /// The verb's name for log lines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Part(_) => "part",
            Self::Start(_) => "start",
            Self::Signal(_) => "signal",
            Self::Kill(_) => "kill",
            Self::Status(_) => "status",
            Self::List(_) => "list",
            Self::Remove(_) => "remove",
            Self::Exec(_) => "exec",
        }
    }

    /// The task it is about, where it names one.
    #[must_use]
    pub fn key(&self) -> Option<&TaskKey> {
        match self {
            Self::Hello(_) | Self::Part(_) | Self::Start(_) | Self::List(_) | Self::Exec(_) => None,
            Self::Signal(Signal { key, .. })
            | Self::Kill(key)
            | Self::Status(key)
            | Self::Remove(key) => Some(key),
        }
    }
}

/// Greeting: the protocol versions that the driver speaks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest version.
    pub oldest: u16,
    /// Newest version.
    pub newest: u16,
}

/// All parts are sent: start the task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Start {
    /// Bytes of the encoded specification.
    pub length: u32,
}

/// All parts of a [`crate::exec::ExecSpec`] are sent: execute the command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exec {
    /// Bytes of the encoded specification.
    pub length: u32,
}

/// Send a signal to the payload: init of a booted task, the command otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Signal {
    /// The task.
    pub key: TaskKey,
    /// Linux signal number, 1 to 64.
    pub signal: u8,
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Reply {
    /// The request's id.
    pub id: u64,
    /// The answer.
    pub result: Result<Answer, Refusal>,
}

/// The answer to a request that went well.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// To [`Hello`].
    Welcome(Welcome),
    /// To [`Part`]: taken.
    Taken,
    /// To [`Start`]: the payload runs, or has run and ended already.
    Started(Task),
    /// To [`Signal`]: sent.
    Signaled,
    /// To [`Verb::Kill`]: every process has got SIGKILL.
    Killed,
    /// To [`Verb::Status`].
    Status(Task),
    /// To [`Verb::List`].
    Page(Page),
    /// To [`Verb::Remove`]: nothing of the task is left.
    Removed,
    /// To [`Exec`]: a worker has been asked. The driver's end of the session's socket comes with the
    /// reply ([`crate::exec::SessionReport`]).
    Session,
}

/// The helper's greeting.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
    /// Feature bits; none are defined yet.
    pub features: u64,
    /// Random number of this helper process; every later request carries it.
    pub epoch: u64,
    /// Version of the helper, for people.
    pub helper: String,
    /// Version of the running systemd, 0 when it could not be read.
    pub systemd: u32,
    /// The same as systemd writes it, e.g. `257.13-1~deb13u1`; empty when it could not be read.
    pub systemd_text: String,
    /// Whether the policy accepts this very version whatever is known against it
    /// (`systemd.accept`).
    pub systemd_accepted: bool,
    /// Whether the host network may be used at all (`network.allow` of the policy).
    pub host_network: bool,
    /// Whether tasks without user namespace may run at all (`userns.require` of the policy).
    pub host_users: bool,
    /// Whether commands may be executed in tasks at all (`exec.allow` of the policy).
    pub exec: bool,
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Task {
    /// Which run of which task.
    pub key: TaskKey,
    /// Its unit.
    pub unit: String,
    /// Its machine name.
    pub machine: MachineName,
    /// First uid of its range; `None` without user namespace.
    pub uid_base: Option<u32>,
    /// Its addresses, where it has a network of its own: IPv4, then IPv6.
    pub addresses: Vec<IpAddr>,
    /// Process id of the container's PID 1, while it runs.
    pub leader: Option<u32>,
    /// Unix time of the start in milliseconds.
    pub started_ms: u64,
    /// Where it stands.
    pub state: State,
    /// Remarks of its start for the task's events, at most [`crate::limits::NOTES_MAX`]; they are
    /// forgotten when the helper ends.
    pub notes: Vec<String>,
    /// Where the system call filters of its start are from; `None` when another helper process has
    /// made it.
    pub filters: Option<FilterSource>,
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum State {
    /// A start is under way, and has got so far.
    Starting(Phase),
    /// The payload runs.
    Running,
    /// The payload has ended.
    Ended(Exit),
}

/// What a start is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Phase {
    /// The image and the root.
    #[default]
    Root,
    /// The network.
    Network,
    /// systemd-nspawn, until it executes the payload.
    Payload,
    /// An address from outside; the payload runs.
    Address,
    /// The payload's message that it is ready.
    Ready,
}

/// How a payload ended.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Exit {
    /// Exit code; 128 + n for death by signal n.
    pub code: i32,
    /// Signal that ended it; 0 for none.
    pub signal: i32,
    /// Whether the kernel killed it, or part of it, for want of memory.
    pub oom: bool,
    /// Most memory that the task has used, in bytes; 0 when unknown.
    pub memory_peak: u64,
    /// Its memory limit at the end, in bytes; 0 when unknown or without limit.
    pub memory_limit: u64,
    /// Unix time of the end in milliseconds; 0 when unknown.
    pub ended_ms: u64,
    /// Why the end is not known for certain, in words; empty when it is. Such an end is a failure.
    pub error: String,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// Keys in order, at most [`crate::limits::LIST_PAGE`].
    pub keys: Vec<TaskKey>,
    /// Whether there are more behind the last.
    pub more: bool,
}
