//! What the user sends: input, its end, and the size of the terminal.
//!
//! Nothing is read ahead: what the command does not take stays with the sender.

use std::time::Duration;

use proto::exec::TerminalSize;
use tokio::time::timeout;
use tokio_stream::{Stream as Messages, StreamExt as _};

use super::stream::Stream;

/// Nomad's programs give a sign of life every 10 s. When one is killed its agent stops passing them on,
/// but reports nothing before it cannot pass on the next output, which may never come
/// (driverPluginClient.ExecTaskStreamingRaw of Nomad).
const SILENCE: Duration = Duration::from_secs(60);

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

/// Passes everything on. Returns when the connection is broken, or silent after signs of life, and at
/// no other time: a command may go on for days after the end of its input.
pub(super) async fn feed(
    messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    sink: Sink<'_>,
) {
    feed_within(SILENCE, messages, sink).await;
}

async fn feed_within(
    silence: Duration,
    mut messages: impl Messages<Item = Result<Input, Broken>> + Unpin,
    mut sink: Sink<'_>,
) {
    let mut gives_signs = false;
    loop {
        let next = messages.next();
        let next = if gives_signs { timeout(silence, next).await } else { Ok(next.await) };
        let Ok(next) = next else { return };
        let Some(message) = next else { break };
        let Ok(input) = message else { return };
        gives_signs |= input == Input::default();
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    const SHORT: Duration = Duration::from_millis(40);

    /// Whether the command is hung up within ten times the silence.
    async fn hangs_up(messages: Vec<Input>, pause: Duration) -> bool {
        let (sender, receiver) = mpsc::channel(1);
        let feed = feed_within(SHORT, ReceiverStream::new(receiver), Sink::Pipe(None));
        let send = async {
            for message in messages {
                sender.send(Ok(message)).await.unwrap();
                tokio::time::sleep(pause).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = feed => true,
            () = send => unreachable!(),
            () = tokio::time::sleep(SHORT * 10) => false,
        }
    }

    #[tokio::test]
    async fn only_who_gave_signs_of_life_is_missed() {
        let typed = Input { data: b"x".to_vec(), ..Input::default() };
        assert!(hangs_up(vec![Input::default()], SHORT / 4).await);
        assert!(hangs_up(vec![typed.clone(), Input::default(), typed.clone()], SHORT / 4).await);
        // Of another program, which gives none.
        assert!(!hangs_up(vec![typed], SHORT / 4).await);
        assert!(!hangs_up(Vec::new(), SHORT).await);
        // Whoever goes on with them stays.
        assert!(!hangs_up(vec![Input::default(); 60], SHORT / 4).await);
    }
}
