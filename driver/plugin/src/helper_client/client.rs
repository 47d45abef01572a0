//! The client of the root helper: a few connections, made when they are needed.
//!
//! The helper serves one request at a time on a connection and [`proto::limits::CONNECTIONS_MAX`]
//! connections in all, and a start or removal blocks its connection as long as it takes. So each
//! kind of request has its own share, and stopping a task never waits for others' starts. Nothing of a
//! connection is assumed to outlive the helper: requests that may be repeated are repeated on a
//! fresh connection, a start is not, because the caller must undo it first.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::codec::CodecError;
use proto::error::{Code, Refusal};
use proto::name::{Instance, TaskKey};
use proto::wire::{Answer, Task, Verb, Welcome};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::connection::{Connection, Down};
use super::health::Health;
use super::monitor;
use crate::metrics::figures::Figures;

/// Connections for starts, for removals, for commands that are executed in tasks, and for what is
/// answered at once. One more watches the helper's life; the rest is left to a second plugin
/// process during a change of agents.
pub(super) const STARTS: usize = 10;
/// Starts that wait until a task says that it is ready: they may take an hour, and must not hold
/// up the others.
pub(super) const READY_STARTS: usize = 6;
/// A request takes milliseconds, or a second when its task is just being started.
const EXECS: usize = 3;
const REMOVALS: usize = 5;
const OTHERS: usize = 4;
/// Idle connections that are kept.
const IDLE: usize = 2;
/// First and longest pause between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Time for a reply until the operator's `helper_timeout` is known. A removal stops a unit; a
/// start has the helper's own limit.
const REPLY: Duration = Duration::from_secs(30);
const REMOVAL: Duration = Duration::from_secs(90);

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(crate) enum CallError {
    /// The helper refused the request.
    Refused(Refusal),
    /// No helper for as long as the caller was ready to wait.
    Unreachable(Down),
    /// The request is too large for the wire.
    TooLarge(CodecError),
    /// A later start of the same task has come; nothing was started.
    Overtaken,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&crate::error::describe(refusal)),
            Self::Unreachable(down) => down.fmt(f),
            Self::TooLarge(error) => write!(f, "too large for the helper: {error}"),
            Self::Overtaken => f.write_str("Nomad has asked for a later start of the same task"),
        }
    }
}

/// Why one try of a request has no answer.
#[derive(Debug)]
pub(super) struct Missed {
    pub(super) down: Down,
    /// Whether the helper may have acted on it.
    pub(super) sent: bool,
}

impl From<Down> for Missed {
    fn from(down: Down) -> Self {
        Self { down, sent: false }
    }
}

/// The client.
#[derive(Debug)]
pub(crate) struct Helper {
    path: watch::Sender<PathBuf>,
    reply: watch::Sender<Duration>,
    health: watch::Sender<Health>,
    pub(super) starts: Semaphore,
    pub(super) ready_starts: Semaphore,
    pub(super) execs: Semaphore,
    removals: Semaphore,
    others: Semaphore,
    idle: Mutex<Vec<Connection>>,
    /// What is counted of requests, starts and ends.
    pub(crate) figures: Figures,
}

impl Helper {
    /// A client of the helper at `path`; connects to nothing yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path: watch::Sender::new(path),
            reply: watch::Sender::new(REPLY),
            health: watch::Sender::new(Health::Unknown),
            starts: Semaphore::new(STARTS),
            ready_starts: Semaphore::new(READY_STARTS),
            execs: Semaphore::new(EXECS),
            removals: Semaphore::new(REMOVALS),
            others: Semaphore::new(OTHERS),
            idle: Mutex::new(Vec::new()),
            figures: Figures::default(),
        }
    }

    /// Changes the socket, and the time for a short request.
    pub(crate) fn set(&self, path: PathBuf, reply: Duration) {
        self.reply.send_replace(reply);
        self.path.send_if_modified(|old| {
            let changed = *old != path;
            *old = path;
            changed
        });
    }

    /// The helper's health and its changes.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// The greeting of the helper that is up; waits for the first answer as long as `patience`
    /// lasts, and not at all for a helper that is known to be away.
    pub(crate) async fn greeting(&self, patience: Duration) -> Option<Arc<Welcome>> {
        let mut health = self.health.subscribe();
        let known = health.wait_for(|health| *health != Health::Unknown);
        match timeout(patience, known).await {
            Ok(Ok(health)) => match &*health {
                Health::Up(welcome) => Some(Arc::clone(welcome)),
                Health::Down(_) | Health::Unknown => None,
            },
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Watches the helper's life for as long as the process lives.
    pub(crate) async fn monitor(&self) {
        monitor::run(&self.path, &self.health, &self.figures).await;
    }

    /// Asks something, and again for as long as `patience` lasts: a signal until it was sent, the
    /// rest until there is an answer. All of it together takes as long as `patience`, or as one
    /// answer may take when that is longer.
    ///
    /// # Errors
    /// A refusal, or no helper in time.
    pub(crate) async fn call(&self, verb: Verb, patience: Duration) -> Result<Answer, CallError> {
        let (share, limit) = match verb {
            Verb::Remove(_) => (&self.removals, REMOVAL),
            _ => (&self.others, self.reply()),
        };
        let now = Instant::now();
        let (last_try, deadline) = (now + patience, now + patience.max(limit));
        let mut pause = PAUSE;
        loop {
            let once = timeout_at(deadline, self.try_once(&verb, share, limit)).await;
            let missed = match once.unwrap_or(Err(Down::Silent.into())) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(refusal)) if refusal.code == Code::Epoch => Down::Lost.into(),
                Ok(Err(refusal)) => return Err(CallError::Refused(refusal)),
                Err(missed) => missed,
            };
            let done = missed.sent && matches!(verb, Verb::Signal(_));
            if done || Instant::now() + pause > last_try {
                return Err(CallError::Unreachable(missed.down));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    pub(super) fn reply(&self) -> Duration {
        *self.reply.borrow()
    }

    async fn try_once(
        &self,
        verb: &Verb,
        share: &Semaphore,
        limit: Duration,
    ) -> Result<Result<Answer, Refusal>, Missed> {
        // Semaphores are never closed.
        let _permit = share.acquire().await;
        let began = Instant::now();
        let (connection, result) = self.exchange(verb, limit).await?;
        self.figures.time_request(verb.name(), began.elapsed());
        Ok(self.keep(connection, result))
    }

    /// One request, on whichever connection takes it.
    pub(super) async fn exchange(
        &self,
        verb: &Verb,
        limit: Duration,
    ) -> Result<(Connection, Result<Answer, Refusal>), Missed> {
        let once_only = matches!(verb, Verb::Signal(_));
        while let Some(mut connection) = self.take_idle() {
            match connection.call(verb.clone(), limit).await {
                // Of a helper that has exited: that alone is not a failure.
                Err(Down::Lost) if !(once_only && connection.has_sent()) => {}
                result => return attach_connection(connection, result),
            }
        }
        let (mut connection, _) = self.open().await?;
        let result = connection.call(verb.clone(), limit).await;
        attach_connection(connection, result)
    }

    /// Runs of the same task that the helper has.
    ///
    /// # Errors
    /// A refusal, or no helper in time.
    pub(crate) async fn runs_of(
        &self,
        key: &TaskKey,
        patience: Duration,
    ) -> Result<Vec<TaskKey>, CallError> {
        // Keys come in the order of allocation, task and run.
        let mut after = TaskKey { instance: Instance(0), ..key.clone() };
        let mut runs = Vec::new();
        loop {
            let list = Verb::List(Some(after.clone()));
            let Answer::Page(page) = self.call(list, patience).await? else {
                return Err(CallError::Unreachable(Down::Lost));
            };
            let same = |k: &&TaskKey| k.alloc == key.alloc && k.task == key.task;
            runs.extend(page.keys.iter().filter(same).cloned());
            match page.keys.last() {
                Some(last) if page.more && same(&last) && *last != after => {
                    after = last.clone();
                }
                _ => return Ok(runs),
            }
        }
    }

    /// Takes everything of a task away.
    ///
    /// # Errors
    /// A refusal, or no helper in time.
    pub(crate) async fn remove(&self, key: &TaskKey, patience: Duration) -> Result<(), CallError> {
        let verb = Verb::Remove(key.clone());
        match self.call(verb, patience).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(refusal)) if refusal.code == Code::Unknown => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the helper knows of a task.
    ///
    /// # Errors
    /// A refusal, or no helper in time.
    pub(crate) async fn status(
        &self,
        key: &TaskKey,
        patience: Duration,
    ) -> Result<Task, CallError> {
        let verb = Verb::Status(key.clone());
        match self.call(verb, patience).await? {
            Answer::Status(task) => Ok(task),
            _ => Err(CallError::Unreachable(Down::Lost)),
        }
    }

    async fn open(&self) -> Result<(Connection, Welcome), Down> {
        let path = self.path.borrow().clone();
        Connection::open(&path).await
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    /// Keeps a connection for the next request, unless the helper is about to close it.
    pub(super) fn keep<T>(
        &self,
        connection: Connection,
        result: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.figures.count_refusal(refusal);
        }
        let usable = !matches!(&result, Err(r) if matches!(r.code, Code::Protocol | Code::Epoch));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if usable && idle.len() < IDLE {
            idle.push(connection);
        }
        result
    }
}

/// Joins a reply with its connection, or a failure with whether the request was sent.
fn attach_connection(
    connection: Connection,
    result: Result<Result<Answer, Refusal>, Down>,
) -> Result<(Connection, Result<Answer, Refusal>), Missed> {
    match result {
        Ok(result) => Ok((connection, result)),
        Err(down) => Err(Missed { down, sent: connection.has_sent() }),
    }
}
