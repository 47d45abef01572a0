//! Requests with a specification, which is sent in parts: starts, and commands in running tasks.
//!
//! Neither is repeated once its last packet has been sent: the helper may have acted on it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use proto::codec::{self, CodecError};
use proto::error::Code;
use proto::exec::ExecSpec;
use proto::parts;
use proto::task_spec::TaskSpec;
use proto::wire::{Answer, Exec, Start, Task, Verb};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep};

use super::CallError;
use super::client::{Helper, Missed, PAUSE, PAUSE_MAX, READY_STARTS, STARTS};
use super::connection::{Connection, Down};

/// Time for the answer to a start beyond the helper's own limit.
const MARGIN: Duration = Duration::from_secs(15);

/// Why one try of a command has no session.
enum Unheard {
    /// The helper has refused it, or it cannot be sent at all.
    Answered(CallError),
    /// No answer.
    Missed(Missed),
}

impl From<CallError> for Unheard {
    fn from(error: CallError) -> Self {
        Self::Answered(error)
    }
}

impl From<Missed> for Unheard {
    fn from(missed: Missed) -> Self {
        Self::Missed(missed)
    }
}

impl Unheard {
    fn into_error(self) -> CallError {
        match self {
            Self::Answered(error) => error,
            Self::Missed(missed) => CallError::Unreachable(missed.down),
        }
    }
}

impl Helper {
    /// A place among the starts that run at once; when none is free, `queued` is called with their
    /// number, and the next one is waited for.
    pub(crate) async fn take_place(
        &self,
        spec: &TaskSpec,
        queued: impl FnOnce(usize),
    ) -> Option<SemaphorePermit<'_>> {
        let (share, most) =
            if spec.waits() { (&self.ready_starts, READY_STARTS) } else { (&self.starts, STARTS) };
        if let Ok(place) = share.try_acquire() {
            return Some(place);
        }
        queued(most);
        share.acquire().await.ok()
    }

    /// Starts a task, once, in a place of the caller's; `wanted` has the last word. When the
    /// connection breaks, the caller does not know how far the start got and must remove the task
    /// before it tries again.
    ///
    /// # Errors
    /// A refusal, no longer wanted, or the connection broke.
    pub(crate) async fn start(
        &self,
        spec: &TaskSpec,
        wanted: impl Fn() -> bool,
    ) -> Result<Task, CallError> {
        let whole = codec::encode_whole(spec).map_err(CallError::TooLarge)?;
        let (mut connection, length) =
            self.send_parts(&whole).await.map_err(Unheard::into_error)?;
        if !wanted() {
            return Err(CallError::Overtaken);
        }
        let began = Instant::now();
        let result = connection
            .call(Verb::Start(Start { length }), MARGIN + Duration::from_secs(spec.start_limit_s()))
            .await
            .map_err(CallError::Unreachable)?;
        self.figures.time_request("start", began.elapsed());
        match self.keep(connection, result) {
            Ok(Answer::Started(task)) => Ok(task),
            Ok(_) => Err(CallError::Unreachable(Down::Lost)),
            Err(refusal) => Err(CallError::Refused(refusal)),
        }
    }

    /// Executes a command in a running task; returns its session's socket. A helper that is away
    /// is waited for as long as `patience` lasts: scripts that check a service must not fail for a
    /// restart of it.
    ///
    /// # Errors
    /// A refusal, no helper in time, or it went away after it had been asked.
    pub(crate) async fn exec(
        &self,
        spec: &ExecSpec,
        patience: Duration,
    ) -> Result<OwnedFd, CallError> {
        let whole = codec::encode_whole(spec).map_err(CallError::TooLarge)?;
        let last_try = Instant::now() + patience;
        let mut pause = PAUSE;
        loop {
            let missed = match self.exec_once(&whole).await {
                Ok(session) => return Ok(session),
                // A helper process that has just come up has done nothing of it.
                Err(Unheard::Answered(CallError::Refused(r))) if r.code == Code::Epoch => {
                    Down::Lost.into()
                }
                Err(Unheard::Answered(error)) => return Err(error),
                Err(Unheard::Missed(missed)) => missed,
            };
            if missed.sent || Instant::now() + pause > last_try {
                return Err(CallError::Unreachable(missed.down));
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn exec_once(&self, whole: &[u8]) -> Result<OwnedFd, Unheard> {
        // Semaphores are never closed.
        let _permit = self.execs.acquire().await;
        let (mut connection, length) = self.send_parts(whole).await?;
        let began = Instant::now();
        let result = connection.call_exec(Exec { length }, self.reply()).await;
        let result = result.map_err(|down| Missed { down, sent: connection.has_sent() })?;
        self.figures.time_request("exec", began.elapsed());
        Ok(self.keep(connection, result).map_err(CallError::Refused)?)
    }

    /// Sends a whole specification but for the request that closes it; parts alone start nothing.
    async fn send_parts(&self, whole: &[u8]) -> Result<(Connection, u32), Unheard> {
        let too_long = || CallError::TooLarge(CodecError::TooLong);
        let parts = parts::split(whole).map_err(|_| too_long())?;
        let length = u32::try_from(whole.len()).map_err(|_| too_long())?;
        let mut parts = parts.into_iter().map(Verb::Part);
        let first = parts.next().ok_or_else(too_long)?;
        let unsent = |down: Down| Unheard::Missed(down.into());
        let (mut connection, mut result) =
            self.exchange(&first, self.reply()).await.map_err(|missed| unsent(missed.down))?;
        loop {
            match result {
                Ok(Answer::Taken) => {}
                Ok(_) => return Err(unsent(Down::Lost)),
                Err(refusal) => return Err(CallError::Refused(refusal).into()),
            }
            let Some(part) = parts.next() else { return Ok((connection, length)) };
            result = connection.call(part, self.reply()).await.map_err(unsent)?;
        }
    }
}
