//! What the driver asks the helper to start: one task, in components, enums and numbers.
//!
//! There is no systemd-nspawn option and no unit property in it; a path is a list of components. Every
//! value is judged by the helper's policy; nothing is taken because the driver said so.
//!
//! | module | idea |
//! |---|---|
//! | [`process`] | as whom and how the payload runs, and what confines it |
//! | [`files`] | binds, file systems in memory, overlays, devices, credentials |
//! | [`resolver`] | name resolution and time zone |
//! | [`output`] | log streams and journal fields |

pub mod files;
pub mod output;
pub mod process;
pub mod resolver;

use bincode::{Decode, Encode};

pub use files::Files;
pub use output::{Label, Logs};
pub use process::{Isolation, Process};
pub use resolver::Names;

use crate::name::{ImageName, TaskKey, VariableName};
use crate::path::Absolute;
use crate::secret::Secret;
use crate::target::Target;

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
    pub root: RootFs,
    /// What runs in it.
    pub payload: Payload,
    /// As whom and how it runs.
    pub process: Process,
    /// What confines it.
    pub isolation: Isolation,
    /// The task's user namespace.
    pub users: Users,
    /// The task's network.
    pub network: Network,
    /// Name resolution and time zone.
    pub names: Names,
    /// Further files.
    pub files: Files,
    /// The task's environment, complete.
    pub environment: Vec<Variable>,
    /// Where the two output streams go.
    pub logs: Logs,
    /// Journal fields of the task.
    pub labels: Vec<Label>,
    /// Signal that asks the payload to end, as a Linux signal number; `None`: the start mode's own.
    pub stop_signal: Option<u8>,
    /// Time between that signal and the kill at host shutdown, in milliseconds.
    pub kill_timeout_ms: u64,
    /// Limits of the unit.
    pub resources: Resources,
}

impl TaskSpec {
    /// A task of which nothing else is asked: an ephemeral root, the image's shell, a user
    /// namespace, loopback alone, Nomad's FIFOs.
    #[must_use]
    pub fn new(key: TaskKey, alloc_dir: Absolute, image: Image) -> Self {
        Self {
            key,
            alloc_dir,
            image,
            root: RootFs::tree(Root::Ephemeral(Layer::Disk)),
            payload: Payload::Command { words: Vec::new() },
            process: Process::default(),
            isolation: Isolation::default(),
            users: Users::Pick,
            network: Network::Loopback,
            names: Names::default(),
            files: Files::default(),
            environment: Vec::new(),
            logs: Logs::Fifos,
            labels: Vec::new(),
            stop_signal: None,
            kill_timeout_ms: 5_000,
            resources: Resources::default(),
        }
    }

    /// Time that the helper gives the start, in seconds, before it undoes it.
    #[must_use]
    pub fn start_limit_s(&self) -> u64 {
        let ready = self.process.ready.limit_s().map_or(0, u64::from);
        crate::limits::START_TIMEOUT_S.saturating_add(ready)
    }
}

/// Where the image is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Image {
    /// A folder, or a disk image `NAME.raw`, in the image store (`images.store` of the policy).
    Named(ImageName),
    /// The same, or this path where the image store has nothing of that name.
    NamedOr(ImageName, Absolute),
    /// By its absolute path.
    Path(Absolute),
}

/// What becomes of the image.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RootFs {
    /// What kind of file the image is.
    pub kind: ImageKind,
    /// How it is used.
    pub mode: Root,
    /// How its owners become those of the task's range.
    pub ownership: Ownership,
    /// Another folder of the image as root.
    pub pivot: Option<Pivot>,
}

impl RootFs {
    /// A folder, with its owners mapped, used in this way.
    #[must_use]
    pub fn tree(mode: Root) -> Self {
        Self { kind: ImageKind::Tree, mode, ownership: Ownership::Map, pivot: None }
    }
}

/// What kind of file an image is. The launcher refuses an image of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ImageKind {
    /// A folder.
    Tree,
    /// A file or block device with a file system and no partition table.
    Disk,
}

/// How an image is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Root {
    /// The image itself, writable: changes stay.
    Plain,
    /// The image, read-only; missing mount points are provided.
    ReadOnly,
    /// An overlay over the read-only image.
    Ephemeral(Layer),
    /// systemd-nspawn's `--volatile=` (file-hierarchy(7)).
    Volatile(Volatile),
}

impl Root {
    /// Whether the task changes the image itself.
    #[must_use]
    pub fn writes_image(self) -> bool {
        self == Self::Plain
    }
}

/// Where the changes of an ephemeral root are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Layer {
    /// On disk; they go with the task's run.
    Disk,
    /// In memory; they go with the task's run.
    Memory,
    /// On disk, kept from run to run of the allocation's task (`persist = "alloc"`).
    Kept,
}

/// Which part of the root is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Volatile {
    /// Everything but /usr, which is read-only.
    Yes,
    /// /var; the rest is read-only.
    State,
    /// Changes, as with [`Layer::Memory`].
    Overlay,
}

/// How the image's owners become those of the task's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Ownership {
    /// By an ID-mapped mount: nothing on disk changes.
    Map,
    /// Rewritten on disk, before the start.
    Chown,
    /// Not at all: the image's owners are in the range already.
    Off,
}

/// Another folder of the image as root (systemd-nspawn(1), `--pivot-root=`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pivot {
    /// The folder that becomes the root. Nothing is mounted there: it is opened within the image.
    pub new: Absolute,
    /// Where the old root is mounted then; `None`: nowhere.
    pub old: Option<Target>,
}

/// The task's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Users {
    /// A range of the helper's choice, of [`crate::limits::RANGE_WIDTH`] ids.
    Pick,
    /// This range.
    Fixed {
        /// First uid and gid on the host.
        base: u32,
        /// Number of ids, 1 to [`crate::limits::RANGE_WIDTH`].
        width: u32,
    },
    /// A namespace whose ids are the host's.
    Identity,
    /// None: container root is host root.
    Host,
}

impl Users {
    /// Whether container root is another user than host root.
    #[must_use]
    pub fn isolates(self) -> bool {
        matches!(self, Self::Pick | Self::Fixed { .. })
    }
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
