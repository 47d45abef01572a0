//! One command, from its request to its exit code.
//!
//! Everything of it is one future: when it is dropped, or the receiver of the output is, the
//! session's socket closes and the root side ends the command.

use std::time::Duration;

use proto::exec::{ExecSpec, TerminalSize};
use proto::limits;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream as Messages, StreamExt as _};

use super::input::{Broken, Input, Sink, feed};
use super::output::{Output, Which, pump};
use super::report::{Reports, Streams, refused};
use super::script::Limits;
use crate::error::Failure;
use crate::helper_client::{CallError, Helper};
use crate::lifecycle::Driver;

/// Output that waits for its receiver, in messages.
const QUEUE: usize = 4;
/// What a terminal has until its user's is known.
const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };
/// The user's program sends its size right after the request, and some commands look only once.
const FIRST_SIZE: Duration = Duration::from_millis(20);
/// Time for the helper to come back.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limits of a command that somebody watches.
const WATCHED: Limits = Limits { setup: Duration::from_secs(20), run: None };

impl Driver {
    /// Executes a command for a user, whose input comes from `messages`. Returns at once; dropping
    /// the receiver hangs the command up.
    ///
    /// # Errors
    /// No such task, or words that cannot be executed. Later errors come as [`Output::Failed`].
    pub(crate) fn converse(
        &self,
        id: &str,
        words: &[String],
        is_terminal: bool,
        messages: impl Messages<Item = Result<Input, Broken>> + Unpin + Send + 'static,
    ) -> Result<mpsc::Receiver<Output>, Failure> {
        let mut spec = self.specify_command(id, words, is_terminal.then_some(SIZE))?;
        let helper = std::sync::Arc::clone(&self.helper);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut messages = messages;
        tokio::spawn(async move {
            let mut first = None;
            if is_terminal {
                first = timeout(FIRST_SIZE, messages.next()).await.ok().flatten();
                if let Some(Ok(Input { size: Some(size), .. })) = &first {
                    spec.terminal = Some(*size);
                }
            }
            let messages = tokio_stream::iter(first).chain(messages);
            run(&helper, &spec, WATCHED, messages, &sender).await;
        });
        Ok(receiver)
    }
}

/// Runs a command to its end, or until nobody wants its output any more.
pub(super) async fn run(
    helper: &Helper,
    spec: &ExecSpec,
    limits: Limits,
    messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    sender: &mpsc::Sender<Output>,
) {
    let result = tokio::select! {
        result = run_connected(helper, spec, limits, messages, sender) => result,
        () = sender.closed() => return,
    };
    let last = result.map_or_else(Output::Failed, Output::Exited);
    sender.send(last).await.ok();
}

async fn run_connected(
    helper: &Helper,
    spec: &ExecSpec,
    limits: Limits,
    messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    sender: &mpsc::Sender<Output>,
) -> Result<i32, Failure> {
    let began = Instant::now();
    let set_up = async {
        let socket = helper.exec(spec, PATIENCE).await.map_err(to_failure)?;
        let reports = Reports::new(socket)?;
        let streams = reports.receive_streams(spec.terminal.is_some()).await?;
        reports.receive_start().await?;
        Ok((reports, streams))
    };
    let (reports, streams) = timeout(limits.setup, set_up).await.unwrap_or_else(|_| {
        Err(Failure::permanent(format!(
            "exec: the command could not be executed within {} s; the node is too busy, or the \
             task is frozen",
            limits.setup.as_secs()
        )))
    })?;
    let _session = helper.figures.begin_session(began.elapsed());
    let work = connect(&reports, streams, messages, sender);
    match limits.run {
        None => work.await,
        Some(run) => timeout(run, work).await.unwrap_or_else(|_| {
            Err(Failure::permanent(format!(
                "exec: the command had not ended after {run:?} and was killed; raise the timeout"
            )))
        }),
    }
}

/// Connects the streams of a command that is being executed; returns its exit code when all that
/// it wrote has been passed on.
async fn connect(
    reports: &Reports,
    streams: Streams,
    messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    sender: &mpsc::Sender<Output>,
) -> Result<i32, Failure> {
    let exited = watch::Sender::new(false);
    let exit = async {
        let code = reports.receive_exit().await?;
        exited.send_replace(true);
        Ok(code)
    };
    let (stdin, outputs) = match streams {
        Streams::Terminal(master) => (None, (master, None)),
        Streams::Pipes { stdin, stdout, stderr } => (Some(stdin), (stdout, Some(stderr))),
    };
    let (stdout, stderr) = &outputs;
    let is_terminal = stderr.is_none();
    let sink = match is_terminal {
        true => Sink::Terminal { master: stdout, is_in_line: false },
        false => Sink::Pipe(stdin),
    };
    let pumps = async {
        let errors = async {
            if let Some(stderr) = stderr {
                pump(stderr, Which::Stderr, false, exited.subscribe(), sender).await;
            }
        };
        let output = pump(stdout, Which::Stdout, is_terminal, exited.subscribe(), sender);
        tokio::join!(output, errors);
        Ok(())
    };
    tokio::select! {
        both = async { tokio::try_join!(exit, pumps) } => both.map(|(code, ())| code),
        () = feed(messages, sink) => {
            Err(Failure::permanent("exec: the connection to Nomad broke; the command is killed"))
        }
    }
}

fn to_failure(error: CallError) -> Failure {
    match error {
        CallError::Refused(refusal) => refused(&refusal),
        CallError::TooLarge(_) => Failure::permanent(format!(
            "exec: the command and the task's environment may take {} KiB together; send long \
             texts by standard input",
            limits::SPEC_MAX / 1024
        )),
        error @ (CallError::Unreachable(_) | CallError::Overtaken) => {
            Failure::permanent(format!("exec: {error}"))
        }
    }
}
