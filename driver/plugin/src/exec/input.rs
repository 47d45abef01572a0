//! What the user sends: input, its end, and the size of the terminal.
//!
//! Nothing is read ahead: what the command does not take stays with the sender.

use proto::exec::TerminalSize;
use tokio_stream::{Stream as Messages, StreamExt as _};

use super::stream::Stream;

/// One message. One without anything is a sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Input {
    /// The terminal's new size.
    pub(crate) size: Option<TerminalSize>,
    /// Bytes for standard input.
    pub(crate) data: Vec<u8>,
    /// Whether nothing comes after these bytes.
    pub(crate) is_last: bool,
}

/// The user's connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// Where input goes.
#[derive(Debug)]
pub(super) enum Sink<'a> {
    /// A pipe, closed at the end of input; `None`: it is closed already.
    Pipe(Option<Stream>),
    /// A terminal.
    Terminal {
        /// Its master; closing it would hang the command up.
        master: &'a Stream,
        /// Whether the user is in the middle of a line.
        is_in_line: bool,
    },
}

/// Passes everything on. Returns when the connection is broken and at no other time: a command may
/// go on for days after the end of its input.
pub(super) async fn feed(
    mut messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    mut sink: Sink<'_>,
) {
    while let Some(message) = messages.next().await {
        let Ok(input) = message else { return };
        sink.take(input).await;
    }
    sink.close().await;
    std::future::pending().await
}

impl Sink<'_> {
    async fn take(&mut self, input: Input) {
        if let (Self::Terminal { master, .. }, Some(size)) = (&*self, input.size) {
            // It is gone when its command is, whose end is reported on its own.
            master.resize(size).ok();
        }
        if !input.data.is_empty() {
            self.write(&input.data).await;
        }
        if input.is_last {
            self.close().await;
        }
    }

    async fn write(&mut self, data: &[u8]) {
        match self {
            Self::Pipe(pipe) => {
                if let Some(stream) = pipe
                    && stream.write_all(data).await.is_err()
                {
                    // The command reads no more. That is its own affair, as in `yes | head`.
                    *pipe = None;
                }
            }
            Self::Terminal { master, is_in_line } => {
                master.write_all(data).await.ok();
                *is_in_line = data.last().is_some_and(|last| !matches!(last, b'\n' | b'\r'));
            }
        }
    }

    async fn close(&mut self) {
        match self {
            Self::Pipe(pipe) => *pipe = None,
            Self::Terminal { master, is_in_line } => {
                let Ok(Some(end)) = master.end_of_file() else { return };
                // In the middle of a line, the first only hands over what has been typed of it.
                let characters = [end, end];
                let count = if *is_in_line { 2 } else { 1 };
                master.write_all(characters.get(..count).unwrap_or_default()).await.ok();
                *is_in_line = false;
            }
        }
    }
}
