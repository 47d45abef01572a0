//! A conversation with a command that is executed in a task, as Nomad's client holds it.
//!
//! The first message sets it up; the ones that follow are input, sizes and signs of life. The
//! client never ends its side, so only a message ends the input. It reads until the stream ends.

use std::pin::Pin;
use std::sync::Arc;

use nomad_proto::drivers::exec_task_streaming_request::Setup;
use nomad_proto::drivers::{
    ExecTaskStreamingIoOperation as Operation, ExecTaskStreamingRequest, ExecTaskStreamingResponse,
    ExitResult,
};
use proto::exec::TerminalSize;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Status, Streaming};

use crate::error::Failure;
use crate::exec::{Broken, Input, Output, Which};
use crate::lifecycle::Driver;
use crate::text::cut;

/// Longest error that reaches the user, in bytes; see [`shorten`].
const ERROR_MAX: usize = 90;
/// Where the rest of a longer one is.
const MORE: &str = "… (see alloc status)";

/// What is sent to the client.
pub(super) type Outputs =
    Pin<Box<dyn Stream<Item = Result<ExecTaskStreamingResponse, Status>> + Send>>;

/// Begins a conversation. It ends with the stream that is returned.
pub(super) async fn converse(
    driver: &Arc<Driver>,
    mut requests: Streaming<ExecTaskStreamingRequest>,
) -> Result<Outputs, Status> {
    let first = requests.message().await?.and_then(|first| first.setup);
    let Some(Setup { task_id, command, tty }) = first else {
        return Err(Failure::permanent("exec: the agent's first message sets nothing up").into());
    };
    let input = requests.map(|request| request.map(to_input).map_err(|_| Broken));
    let shorten = {
        let (driver, task_id) = (Arc::clone(driver), task_id.clone());
        move |failure| shorten(&driver, &task_id, failure)
    };
    let outputs = driver.converse(&task_id, &command, tty, input).map_err(&shorten)?;
    let responses = ReceiverStream::new(outputs).map(move |output| to_response(output, &shorten));
    Ok(Box::pin(responses))
}

/// The agent passes the error of a session on in the last frame of a WebSocket, which holds 123 bytes
/// (RFC 6455, 5.5), behind `rpc error: code = Unknown desc = `. Of a longer one the user sees nothing
/// but "unexpected EOF". So the rest of it is an event of the task.
fn shorten(driver: &Driver, task_id: &str, failure: Failure) -> Failure {
    let text = failure.to_string();
    if text.len() <= ERROR_MAX {
        return failure;
    }
    tracing::warn!(task = task_id, error = text.as_str(), "a command was not executed to its end");
    if let Ok(key) = task_id.parse() {
        driver.events.send_for(&key, &format!("Command: {text}"));
    }
    let marked = ERROR_MAX.saturating_sub(MORE.len());
    Failure::permanent(format!("{}{MORE}", cut(&text, marked)))
}

/// A command's exit code, with the signal that it may stand for.
pub(super) fn command_result(code: i32) -> ExitResult {
    let signal = code.checked_sub(128).filter(|signal| (1..=64).contains(signal));
    ExitResult { exit_code: code, signal: signal.unwrap_or_default(), oom_killed: false }
}

fn to_input(request: ExecTaskStreamingRequest) -> Input {
    let stdin = request.stdin.unwrap_or_default();
    // A terminal without lines or characters is not one that anybody sees.
    let size = request.tty_size.and_then(|size| {
        let extent = |number: i32| u16::try_from(number).ok().filter(|number| *number > 0);
        Some(TerminalSize { rows: extent(size.height)?, columns: extent(size.width)? })
    });
    Input { size, data: stdin.data, is_last: stdin.close }
}

fn to_response(
    output: Output,
    shorten: impl Fn(Failure) -> Failure,
) -> Result<ExecTaskStreamingResponse, Status> {
    let mut response = ExecTaskStreamingResponse::default();
    let (which, operation) = match output {
        Output::Data(which, data) => (which, Operation { data, close: false }),
        Output::End(which) => (which, Operation { data: Vec::new(), close: true }),
        Output::Exited(code) => {
            response.exited = true;
            response.result = Some(command_result(code));
            return Ok(response);
        }
        Output::Failed(failure) => return Err(shorten(failure).into()),
    };
    match which {
        Which::Stdout => response.stdout = Some(operation),
        Which::Stderr => response.stderr = Some(operation),
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nomad_proto::drivers::exec_task_streaming_request::TerminalSize as Size;

    #[test]
    fn messages_are_read_as_they_are_meant() {
        assert_eq!(to_input(ExecTaskStreamingRequest::default()), Input::default());
        let sized = |height, width| {
            let tty_size = Some(Size { height, width });
            to_input(ExecTaskStreamingRequest { tty_size, ..ExecTaskStreamingRequest::default() })
        };
        assert_eq!(sized(50, 40).size, Some(TerminalSize { rows: 50, columns: 40 }));
        for (height, width) in [(0, 80), (24, 0), (-1, 80), (24, 65_536)] {
            assert_eq!(sized(height, width).size, None);
        }
        let stdin = Some(Operation { data: b"x".to_vec(), close: true });
        let both = ExecTaskStreamingRequest { stdin, ..ExecTaskStreamingRequest::default() };
        assert_eq!(to_input(both), Input { size: None, data: b"x".to_vec(), is_last: true });
    }

    #[test]
    fn a_code_above_128_names_its_signal() {
        let result = |code| (command_result(code).exit_code, command_result(code).signal);
        assert_eq!(result(0), (0, 0));
        assert_eq!(result(128), (128, 0));
        assert_eq!(result(143), (143, 15));
        assert_eq!(result(255), (255, 0));
    }
}
