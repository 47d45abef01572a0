//! What the driver asks the helper to start: one task, in components, enums and numbers.
//!
//! There is no free path, no systemd-nspawn option and no unit property in it. Every value is
//! judged by the helper's policy; nothing is taken because the driver said so.

use bincode::{Decode, Encode};

use crate::name::{ImageName, TaskKey, VariableName};
use crate::path::Absolute;
use crate::secret::Secret;

/// One task to start.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TaskSpec {
    /// Which run of which task.
    pub key: TaskKey,
    /// The allocation's folder as Nomad names it; its last component must be the allocation id.
    pub alloc_dir: Absolute,
    /// The image.
    pub image: Image,
    /// What becomes of the image.
    pub root: Root,
    /// What runs in it.
    pub payload: Payload,
    /// Whether the task gets a user namespace of its own.
    pub user_namespace: bool,
    /// The task's network.
    pub network: Network,
    /// The task's environment, complete.
    pub environment: Vec<Variable>,
    /// Whether Nomad collects the two output streams.
    pub logs: Logs,
    /// Signal that asks the payload to end, as a Linux signal number; `None`: the start mode's own.
    pub stop_signal: Option<u8>,
    /// Time between that signal and the kill at host shutdown, in milliseconds.
    pub kill_timeout_ms: u64,
    /// Limits of the unit.
    pub resources: Resources,
}

/// Where the image is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Image {
    /// A folder of this name in the image store (`images.store` of the policy).
    Named(ImageName),
    /// A folder by its absolute path.
    Path(Absolute),
}

/// What becomes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Root {
    /// The image itself, writable: changes stay.
    Plain,
    /// A fresh overlay over the read-only image: changes go with the task.
    Ephemeral,
}

/// What runs as the payload.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// The image's init, with these further arguments.
    Boot {
        /// Arguments of init.
        arguments: Vec<Secret>,
    },
    /// A command as PID 1 of the container; empty: the image's shell.
    Command {
        /// The argument vector.
        words: Vec<Secret>,
    },
    /// A command as PID 2 below systemd-nspawn's stub init; empty: the image's shell.
    ProcessTwo {
        /// The argument vector.
        words: Vec<Secret>,
    },
}

/// The task's network.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Network {
    /// A new network namespace with the loopback interface alone.
    Loopback,
    /// The host's network.
    Host,
    /// A network namespace that Nomad made, by its file.
    Join(Absolute),
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Variable {
    /// Its name.
    pub name: VariableName,
    /// Its value: any text without NUL.
    pub value: Secret,
}

/// Which of Nomad's log FIFOs exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Logs {
    /// Both: the streams go to `.<task>.stdout.fifo` and `.<task>.stderr.fifo` in the log folder.
    Fifos,
    /// None (`logs { disabled = true }`): the streams go to the null device.
    Discard,
}

/// Limits of the unit. `None`: no limit of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Resources {
    /// MemoryMax= in bytes.
    pub memory_max: Option<u64>,
    /// MemoryLow= in bytes.
    pub memory_low: Option<u64>,
    /// CPUWeight=, 1 to 10,000.
    pub cpu_weight: Option<u64>,
    /// TasksMax=.
    pub tasks_max: Option<u64>,
}
