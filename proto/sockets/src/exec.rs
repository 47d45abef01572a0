//! Commands that are executed in a task that runs.
//!
//! ```text
//! driver ──Part…, Exec──▶ daemon      the specification of one command
//!        ◀──Session──────             with the driver's end of a new socket: the session
//! driver ◀──SessionReport── worker    streams, start, end; the daemon has no part in it
//! ```
//!
//! The driver sends nothing on a session's socket: closing it hangs the command up. The streams
//! are descriptors, made inside the container, that come with [`SessionReport::Streams`].

use bincode::{Decode, Encode};

use crate::error::Refusal;
use crate::name::TaskKey;
use crate::secret::Secret;
use crate::target::Target;
use crate::task_spec::Variable;
use crate::task_spec::process::User;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExecSpec {
    /// The task.
    pub key: TaskKey,
    /// The argument vector, at least one word. A first word without `/` is looked up in the `PATH` of
    /// [`Self::environment`].
    pub words: Vec<Secret>,
    /// The environment, complete.
    pub environment: Vec<Variable>,
    /// The directory that it starts in; `None`: the root.
    pub directory: Option<Target>,
    /// As whom it runs; `None`: container root.
    pub user: Option<User>,
    /// A terminal of this size; `None`: three pipes.
    pub terminal: Option<TerminalSize>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A message of the worker that executes the command, in this order: [`Self::Streams`], then
/// [`Self::Started`], then [`Self::Exited`]; [`Self::Failed`] may take the place of each and is the last.
/// The socket's end without [`Self::Exited`] means that the worker was killed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SessionReport {
    /// The driver's ends of the streams come with it: the terminal's master, or the write end of
    /// standard input and the read ends of standard output and standard error.
    Streams,
    /// execve(2) has succeeded.
    Started,
    /// The command has ended. Processes that it left behind may hold the streams open.
    Exited {
        /// Exit code, 0 to 255; 128 + n for death by signal n.
        code: i32,
    },
    /// The command was not executed.
    Failed(Refusal),
}
