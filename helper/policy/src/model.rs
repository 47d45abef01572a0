//! What a policy file says, as values. The defaults are strict.

use proto::capability::Capabilities;
use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::process::LimitName;

/// What the helper allows. Defaults are strict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where image names are looked up.
    pub images_store: Absolute,
    /// Folders below which images may lie.
    pub images_paths: Vec<ImagePath>,
    /// Folders that no image shows, unless an entry lies in one of them: the strict preset's.
    pub images_never: Vec<Absolute>,
    /// Folders in which Nomad keeps allocations.
    pub alloc_dirs: Vec<Absolute>,
    /// Folders in which Nomad mounts parts of allocations again.
    pub alloc_mounts: Vec<Absolute>,
    /// Uid of the Nomad agent.
    pub agent_uid: u32,
    /// Whether every task needs a user namespace.
    pub userns_require: bool,
    /// Images that may run without one all the same.
    pub userns_except: Vec<Absolute>,
    /// Folders that may be bound read-only.
    pub binds_read_only: Vec<Absolute>,
    /// Folders that may be bound, also writable.
    pub binds_read_write: Vec<Absolute>,
    /// Folders that are never bound: the operator's.
    pub binds_deny: Vec<Absolute>,
    /// Folders that are never bound: the strict preset's.
    pub binds_never: Vec<Absolute>,
    /// Nomad's data, of which only the allocation's own is bound: the strict preset's.
    pub nomad_data: Vec<Absolute>,
    /// What becomes of a writable bind whose source is not protected.
    pub binds_unprotected: Unprotected,
    /// Device nodes that tasks may have.
    pub devices_allow: Vec<DeviceRule>,
    /// Capabilities that tasks may have beyond systemd-nspawn's own set.
    pub caps_allow: Capabilities,
    /// Kinds of network that tasks may have.
    pub network_allow: Vec<String>,
    /// Folders with network namespaces that tasks may join.
    pub netns_paths: Vec<Absolute>,
    /// Tasks at once.
    pub max_tasks: usize,
    /// Most memory of one task, in bytes; a task without limit is refused then.
    pub memory: Option<u64>,
    /// Most processes of one task.
    pub tasks: Option<u64>,
    /// Most that a task may ask for of a process limit.
    pub ulimit: Vec<(LimitName, u64)>,
    /// System calls and groups that tasks may have beyond systemd-nspawn's list.
    pub syscalls_extra: Vec<String>,
    /// Patterns of kernel settings.
    pub sysctl_allow: Vec<String>,
    /// SELinux contexts.
    pub lsm_profiles: Vec<String>,
    /// Versions of systemd that run tasks in spite of a known hole.
    pub systemd_accept: Vec<String>,
}

/// A folder of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePath {
    /// The folder.
    pub path: Absolute,
    /// Whether tasks may change the images below it.
    pub writable: bool,
}

/// Device nodes by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Begins with /dev/.
    pub pattern: String,
    /// What may be done with them.
    pub access: DeviceAccess,
}

impl Policy {
    /// Whether the operator has accepted this version of systemd, known holes and all.
    #[must_use]
    pub fn accepts(&self, systemd: &str) -> bool {
        self.systemd_accept.iter().any(|accepted| accepted == systemd)
    }
}
