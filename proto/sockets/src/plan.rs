//! What the helper sends to the launcher, and what the launcher reports.
//!
//! The plan comes from the helper, which is root as the launcher is; the launcher trusts its
//! content and checks its form. Every path in it was built by the helper from its policy.

use std::fmt;
use std::path::PathBuf;

use bincode::{Decode, Encode};

use crate::error::Refusal;
use crate::layer::ImageLayer;
use crate::link::{BridgePort, Link, Zone};
use crate::name::{AllocId, MachineName, TaskName};
use crate::parts::Part;
use crate::path::{Absolute, Component, Relative};
use crate::target::Target;
use crate::task_spec::files::{Bind, Credential, Device, Overlay, Tmpfs};
use crate::task_spec::network::{Attached, Container};
use crate::task_spec::{Isolation, Logs, Names, Payload, Process, Resources, RootFs, Variable};
use crate::unit_id::UnitId;

/// Exit status of a launcher that did not get as far as systemd-nspawn.
pub const LAUNCHER_FAILED: u8 = 78;

/// A message from the helper to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Order {
    /// A piece of the encoded [`Plan`].
    Part(Part),
    /// The plan is complete: prepare, then wait for [`Order::Go`].
    Prepare {
        /// Bytes of the encoded plan.
        length: u32,
    },
    /// Execute systemd-nspawn.
    Go,
}

/// A message from the launcher to the helper.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Report {
    /// The launcher runs.
    Begun {
        /// Its process id, which becomes systemd-nspawn's.
        pid: u32,
    },
    /// Everything is prepared; the launcher waits for [`Order::Go`].
    Prepared {
        /// Remarks for the journal and the task's events, e.g. what this kernel cannot do.
        notes: Vec<String>,
        /// Whether the payload is held back until [`Report::Connected`]. The pipe that comes with the
        /// message ends with the process that reports it.
        held_back: bool,
        /// Where the payload's system call filters come from.
        filters: FilterSource,
        /// Whether the cache lacks the set of these filters, which can be made.
        lacks_filters: bool,
    },
    /// A step failed; the launcher ends.
    Failed(Refusal),
    /// Nomad's log FIFOs are open; a writer of each comes with the message. Sent after
    /// [`Order::Go`], right before systemd-nspawn is executed.
    Streams,
    /// The network of a payload that was held back is complete, and the payload runs.
    Connected,
}

/// Where the payload's system call filters come from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FilterSource {
    /// systemd-nspawn makes them: the cache has none.
    Missing,
    /// It does because the policy has switched the cache off.
    Off,
    /// It does because the job's rules take system calls away that it needs itself.
    Rules,
    /// It does because starts with filters of the cache have not been tried with it.
    Untested {
        /// The version of systemd-nspawn, not of PID 1: their packages are two.
        version: u32,
    },
    /// It does because the launcher is under filters itself, as on a host that is a container:
    /// nobody can read filters there.
    Confined,
    /// The cache.
    Cache,
}

/// Everything that the launcher needs to make one task.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Plan {
    /// Names the directory of the upper layer.
    pub unit: UnitId,
    /// Machine name.
    pub machine: MachineName,
    /// Allocation, which becomes the machine id.
    pub alloc: AllocId,
    /// The user namespace.
    pub users: Option<Range>,
    /// The image.
    pub image: Place,
    /// Its layers, the lowest first, where it is of that kind.
    pub layers: Vec<ImageLayer>,
    /// What becomes of it.
    pub root: RootFs,
    /// What runs.
    pub payload: Payload,
    /// As whom and how it runs.
    pub process: Process,
    /// What confines it.
    pub isolation: Isolation,
    /// Whether system call filters of the cache may be used.
    pub cached_filters: bool,
    /// The network.
    pub network: PlannedNetwork,
    /// Name resolution and time zone.
    pub names: Names,
    /// Further files.
    pub files: PlannedFiles,
    /// The environment.
    pub environment: Vec<Variable>,
    /// The task's directories.
    pub task_dirs: TaskDirs,
    /// The log streams.
    pub logs: Logs,
    /// Signal for systemd-nspawn's `--kill-signal=`, used at host shutdown.
    pub kill_signal: u8,
    /// Limits that the payload sees, and how readily it is killed.
    pub resources: Resources,
    /// Bytes that the file system of a new upper layer must have free.
    pub min_free: u64,
    /// Process id of the Nomad agent: parent of the plugin that asked, unless that has outlived it.
    pub agent: Option<u32>,
}

impl Plan {
    /// Uid and gid of container root on the host.
    #[must_use]
    pub fn container_root(&self) -> u32 {
        self.users.map_or(0, |range| range.base)
    }
}

/// The ids of a task's user namespace: 0 to `width`-1 inside are `base` to `base`+`width`-1
/// outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Range {
    /// First uid and gid on the host; 0 for the identity.
    pub base: u32,
    /// Number of ids.
    pub width: u32,
}

impl Range {
    /// Whether an id of the host belongs to it.
    #[must_use]
    pub fn holds(&self, id: u32) -> bool {
        id.checked_sub(self.base).is_some_and(|inside| inside < self.width)
    }
}

/// What a task sees of the host's files, as the policy has placed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct PlannedFiles {
    /// Files and directories, in the order in which they are mounted.
    pub binds: Vec<Bind<Place>>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Overlay mounts.
    pub overlays: Vec<Overlay<Place>>,
    /// Paths that are hidden.
    pub inaccessible: Vec<Target>,
    /// Device nodes.
    pub devices: Vec<Device<Place>>,
    /// Credentials.
    pub credentials: Vec<Credential>,
    /// What becomes of a writable bind whose source is not protected.
    pub unprotected: Unprotected,
}

/// What becomes of a writable bind with an ID mapping whose source other local users can reach
/// (`binds.unprotected` of the policy): a set-uid file that the task leaves there would be theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Unprotected {
    /// It is refused.
    #[default]
    Refuse,
    /// It is given without ID mapping.
    Unmapped,
    /// It is given as the job asks; where it does not ask
    /// ([`Mapping::Automatic`](crate::task_spec::files::Mapping::Automatic)), without.
    AsAsked,
}

/// A file below a directory that the policy lists.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// The policy's directory.
    pub root: Absolute,
    /// The rest, walked beneath it without following any link.
    pub below: Relative,
}

impl Place {
    /// The whole path, for people and messages: what is opened is walked beneath the root.
    #[must_use]
    pub fn to_path(&self) -> PathBuf {
        let mut path = self.root.to_path();
        path.extend(self.below.components().iter().map(Component::as_str));
        path
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_path().display().fmt(f)
    }
}

/// The network as the launcher makes it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PlannedNetwork {
    /// A new namespace with loopback alone.
    Loopback,
    /// A new namespace with a link to the host.
    Private {
        /// The link.
        link: Link,
        /// Whether forwarding is switched on where the host has it off; it is refused otherwise.
        enable_forwarding: bool,
        /// Whose the network namespace is.
        owner: NetworkOwner,
    },
    /// The host's.
    Host,
    /// Nomad's, by the place of its file.
    Join(Place),
    /// A new namespace with an interface in a network of the operator's.
    Attached {
        /// What the job asks for.
        attached: Attached,
        /// Name of the host's end, where the interface has one.
        port: BridgePort,
        /// Whether forwarding, which published ports need, is switched on where the host has it
        /// off; it is refused otherwise.
        enable_forwarding: bool,
        /// Whose the network namespace is.
        owner: NetworkOwner,
    },
    /// A namespace that systemd-nspawn makes.
    Container {
        /// What the job asks for.
        container: Container,
        /// As for an attached one.
        enable_forwarding: bool,
    },
}

impl PlannedNetwork {
    /// The zone that the task is in.
    #[must_use]
    pub fn zone(&self) -> Option<&Zone> {
        match self {
            Self::Private { link, .. } => link.zone.as_ref(),
            Self::Loopback
            | Self::Host
            | Self::Join(_)
            | Self::Attached { .. }
            | Self::Container { .. } => None,
        }
    }
}

impl PlannedNetwork {
    /// Whether the network namespace belongs to the container's user namespace.
    #[must_use]
    pub fn belongs_to_container(&self) -> bool {
        matches!(
            self,
            Self::Private { owner: NetworkOwner::Container, .. }
                | Self::Attached { owner: NetworkOwner::Container, .. }
        )
    }
}

/// The user namespace that a task's network namespace belongs to: whose root may change its links,
/// addresses and packet filter (network_namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum NetworkOwner {
    /// The host's: container root has no power over it.
    Host,
    /// The container's, where the kernel can do it; else the host's, with a note.
    Container,
}

/// The task's directories below the allocation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TaskDirs {
    /// The allocation's directory.
    pub alloc_dir: Place,
    /// The task's name.
    pub task: TaskName,
    /// Uid of the Nomad agent: owner of the log FIFOs.
    pub agent_uid: u32,
}
