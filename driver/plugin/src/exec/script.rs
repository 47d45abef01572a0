//! A command without input, with a time limit and the end of its output: script checks, change
//! scripts of templates, and `ready.mode = "exec"`.
//!
//! The time counts from execve(2): a check must not fail because the node was slow to set it up.

use std::time::Duration;

use tokio::sync::mpsc;

use super::output::{Output, Which};
use super::session::run;
use crate::error::Failure;
use crate::lifecycle::Driver;

/// Bytes of output that are kept: as Nomad's own drivers.
const TAIL: usize = 4096;
/// Time until the command is executed.
const SETUP: Duration = Duration::from_secs(5);

/// How long a command may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Until it is executed.
    pub(crate) setup: Duration,
    /// From there; `None`: as long as it likes.
    pub(crate) run: Option<Duration>,
}

impl Limits {
    /// Those of a script; no time at all means no limit.
    pub(crate) fn of_script(run: Duration) -> Self {
        Self { setup: SETUP, run: (!run.is_zero()).then_some(run) }
    }
}

/// A command that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Its exit code, 128 + n for death by signal n.
    pub(crate) code: i32,
    /// The end of both its streams, in the order in which it was read: Nomad shows nothing else.
    pub(crate) output: Vec<u8>,
    /// The end of standard error alone.
    pub(crate) errors: Vec<u8>,
}

impl Driver {
    /// Executes a command and waits for its end. Giving up the wait kills it.
    ///
    /// # Errors
    /// It could not be executed, or did not end in time.
    pub(crate) async fn run_script(
        &self,
        id: &str,
        words: &[String],
        limits: Limits,
    ) -> Result<Finished, Failure> {
        let spec = self.specify_command(id, words, None)?;
        let (sender, receiver) = mpsc::channel(1);
        let no_input = tokio_stream::empty();
        let work = async move { run(&self.helper, &spec, limits, no_input, &sender).await };
        let ((), finished) = tokio::join!(work, collect(receiver));
        finished
    }
}

async fn collect(mut outputs: mpsc::Receiver<Output>) -> Result<Finished, Failure> {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    while let Some(next) = outputs.recv().await {
        match next {
            Output::Data(which, bytes) => {
                if which == Which::Stderr {
                    keep_end(&mut errors, &bytes);
                }
                keep_end(&mut output, &bytes);
            }
            Output::End(_) => {}
            Output::Exited(code) => return Ok(Finished { code, output, errors }),
            Output::Failed(failure) if output.is_empty() => return Err(failure),
            Output::Failed(failure) => {
                let end = last_line(&output);
                return Err(Failure::permanent(format!("{failure}; its output ends with: {end}")));
            }
        }
    }
    Err(Failure::permanent("exec: the driver hit a bug; see the agent's log"))
}

/// Adds to a text of which only the end is wanted.
fn keep_end(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(bytes);
    let over = text.len().saturating_sub(TAIL);
    text.drain(..over);
}

/// The last line of an output that is not empty, for people.
pub(crate) fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    proto::error::printable(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut text = Vec::new();
        keep_end(&mut text, b"ab");
        assert_eq!(text, b"ab");
        keep_end(&mut text, &[b'x'; TAIL - 1]);
        assert_eq!((text.len(), text[0]), (TAIL, b'b'));
        keep_end(&mut text, &[b'y'; TAIL * 3]);
        assert_eq!(text, [b'y'; TAIL]);
        assert_eq!(last_line(b"one\ntwo\x1b[0m\n\n"), "two [0m");
        assert_eq!(last_line(b"\n"), "");
    }
}
