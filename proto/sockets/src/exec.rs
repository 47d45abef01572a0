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

use std::fmt;

use bincode::{Decode, Encode};

use crate::error::Refusal;
use crate::name::TaskKey;
use crate::path::Absolute;
use crate::secret::Secret;
use crate::task_spec::Variable;
use crate::task_spec::process::User;
use crate::unit_id::UnitId;

/// Where a command is looked up whose environment has no PATH: that of systemd-nspawn's payloads.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExecSpec {
    /// The task.
    pub key: TaskKey,
    /// The argument vector, at least one word. A first word without `/` is looked up in the `PATH`
    /// of [`Self::environment`].
    pub words: Vec<Secret>,
    /// The environment, complete.
    pub environment: Vec<Variable>,
    /// The directory that it starts in; `None`: the root.
    pub directory: Option<Absolute>,
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
/// [`Self::Started`], then [`Self::Exited`]; [`Self::Failed`] may take the place of each and is the
/// last. The socket's end without [`Self::Exited`] means that the worker was killed.
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
    /// The command was not executed; or it has ended and its exit code cannot be had.
    Failed(Refusal),
}

/// Names one session and the worker that has it: chosen at random by the daemon. Spelled as 16
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl SessionId {
    /// Reads the one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(u64::from_str_radix(text, 16).ok()?);
        (id.to_string() == text).then_some(id)
    }

    /// Name of the cgroup of the session's processes, below that of the task's payload.
    #[must_use]
    pub fn leaf(self) -> String {
        format!("nomad-exec-{self}.scope")
    }

    /// The session of such a cgroup.
    #[must_use]
    pub fn parse_leaf(name: &str) -> Option<Self> {
        Self::parse(name.strip_prefix("nomad-exec-")?.strip_suffix(".scope")?)
    }
}

/// What a worker is to do, once: sent by the daemon in [`crate::plan::Order::Part`]s, closed by
/// [`crate::plan::Order::Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Work {
    /// Execute a command. The worker's end of the session's socket comes with the last message, and
    /// a pidfd of the payload's process.
    Execute(ExecPlan),
    /// Kill what the session of another worker has left, and remove its cgroup.
    Clear {
        /// As in [`ExecPlan`].
        cgroup: Absolute,
        /// The session.
        session: SessionId,
    },
}

/// One command, as a worker executes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ExecPlan {
    /// The session.
    pub session: SessionId,
    /// The task.
    pub unit: UnitId,
    /// The cgroup of its unit, as PID 1 has it: a path below the root of the cgroup tree.
    pub cgroup: Absolute,
    /// Ids of the task: 0 to `width`-1.
    pub width: u32,
    /// The command.
    pub spec: ExecSpec,
}

/// A message from a worker to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum WorkerReport {
    /// It waits for its work.
    Ready {
        /// Its process id.
        pid: u32,
    },
    /// The cache has no system call filters of the task. With these words the launcher's verb
    /// `filters` makes them; the worker waits.
    Missing(Vec<String>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_spelling() {
        let id = SessionId(0xc0ffee);
        assert_eq!(id.leaf(), "nomad-exec-0000000000c0ffee.scope");
        assert_eq!(SessionId::parse_leaf(&id.leaf()), Some(id));
        for bad in ["", "c0ffee", "0000000000C0FFEE", "+000000000c0ffee", "00000000000000001"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
        assert_eq!(SessionId::parse_leaf("init.scope"), None);
    }
}
