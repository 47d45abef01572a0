//! What a command writes, and when there is no more of it.
//!
//! A process that the command left behind may hold its streams open and write to them, so the end
//! is not the end of file: it is what was written when the command had ended. The receiver decides
//! how fast it goes; nothing is dropped.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::stream::Stream;
use crate::error::Failure;

/// Most bytes of one message.
const CHUNK: usize = 16 * 1024;
/// A terminal's output passes through a queue of the kernel, and may come after the news of the
/// command's end.
const SILENCE: Duration = Duration::from_millis(100);
/// More than a terminal's queues hold: what comes after that is of a process left behind.
const TERMINAL_REST: usize = 256 * 1024;

/// Which stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Standard output, or a terminal's.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What becomes of a command, in the order in which it is passed on. The last two are the end.
#[derive(Debug)]
pub(crate) enum Output {
    /// Bytes that it wrote.
    Data(Which, Vec<u8>),
    /// Nothing more comes from this stream.
    End(Which),
    /// Its exit code, 128 + n for death by signal n.
    Exited(i32),
    /// It was not executed, or nothing is known of its end.
    Failed(Failure),
}

/// Sends what one stream brings. `has_exited` becomes true when the command has ended.
pub(super) async fn pump(
    stream: &Stream,
    which: Which,
    is_terminal: bool,
    mut has_exited: watch::Receiver<bool>,
    sender: &mpsc::Sender<Output>,
) {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            // What was there before the end is counted there, not here.
            biased;
            _ = has_exited.wait_for(|exited| *exited) => break,
            read = stream.read(&mut buffer) => read,
        };
        if !pass_on(which, read.ok(), &buffer, sender).await {
            // End of file: of a terminal, EIO.
            sender.send(Output::End(which)).await.ok();
            return;
        }
    }
    if is_terminal {
        drain_terminal(stream, which, &mut buffer, sender).await;
    } else {
        drain_pipe(stream, which, &mut buffer, sender).await;
    }
    sender.send(Output::End(which)).await.ok();
}

/// Whatever is in the pipe when the command has ended, and nothing that comes later.
async fn drain_pipe(
    stream: &Stream,
    which: Which,
    buffer: &mut [u8],
    sender: &mpsc::Sender<Output>,
) {
    let mut left = stream.count_readable().unwrap_or_default();
    while left > 0 {
        let most = left.min(buffer.len());
        let Some(room) = buffer.get_mut(..most) else { return };
        let Ok(Some(length)) = stream.read_now(room) else { return };
        if !pass_on(which, Some(length), buffer, sender).await {
            return;
        }
        left = left.saturating_sub(length);
    }
}

async fn drain_terminal(
    stream: &Stream,
    which: Which,
    buffer: &mut [u8],
    sender: &mpsc::Sender<Output>,
) {
    let mut total = 0;
    while total < TERMINAL_REST {
        let Ok(Ok(length)) = timeout(SILENCE, stream.read(buffer)).await else { return };
        if !pass_on(which, Some(length), buffer, sender).await {
            return;
        }
        total += length;
    }
}

/// Whether there may be more: neither the stream nor its receiver has ended.
async fn pass_on(
    which: Which,
    length: Option<usize>,
    buffer: &[u8],
    sender: &mpsc::Sender<Output>,
) -> bool {
    match length.and_then(|length| buffer.get(..length)) {
        Some(bytes) if !bytes.is_empty() => {
            sender.send(Output::Data(which, bytes.to_vec())).await.is_ok()
        }
        _ => false,
    }
}
