//! The content of a policy file, as values: a struct for each of its sections.

use std::net::{Ipv4Addr, Ipv6Addr};

use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::task_spec::files::DeviceAccess;
use serde::Deserialize;

use super::addresses::{Forwarding, HostPorts, Ports, Prefix, Prefixes};
use super::values::{
    CgroupParent, Count, Free, ImageEntry, List, Memory, NetworkKind, OomScore, Preset, Processes,
    PropertyName, Set, SwapCeiling, Syscall, Text, Ulimits,
};

/// Declares [`Policy`] and its sections. A key without a default is an [`Option`].
macro_rules! sections {
    ($($(#[$about:meta])* $section:ident: $name:ident {
        $($(#[$doc:meta])* $key:ident: $type:ty,)*
    })*) => {
        /// What the helper allows.
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Policy {
            /// Which defaults hold.
            pub preset: Text<Preset>,
            $($(#[$about])* pub $section: $name,)*
            /// What follows from the keys.
            #[serde(skip)]
            pub derived: Derived,
        }
        $(
            $(#[$about])*
            #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct $name {
                $($(#[$doc])* pub $key: $type,)*
            }
        )*
    };
}

sections! {
    /// Images.
    images: Images {
        /// Where image names are looked up.
        store: Text<Absolute>,
        /// Directories below which images may lie.
        paths: Vec<ImagePath>,
    }
    /// The Nomad agent.
    nomad: Nomad {
        /// Directories in which it keeps allocations.
        alloc_dirs: List<Absolute>,
        /// Its uid.
        agent_uid: u32,
        /// Its cgroup, in which it keeps the CPUs that no task reserves.
        cgroup_parent: Text<CgroupParent>,
    }
    /// User namespaces.
    userns: Userns {
        /// Whether every task needs one.
        require: bool,
        /// Images that may run without one all the same.
        except: List<Absolute>,
    }
    /// Files and directories of the host.
    binds: Binds {
        /// What may be bound read-only.
        read_only: List<Absolute>,
        /// What may be bound, also writable.
        read_write: List<Absolute>,
        /// What is never bound.
        deny: List<Absolute>,
        /// What becomes of a writable bind whose source is not protected.
        unprotected: Text<Unprotected>,
    }
    /// Devices of the host.
    devices: Devices {
        /// Nodes that tasks may have.
        allow: List<DeviceRule>,
    }
    /// Capabilities.
    caps: Caps {
        /// What tasks may have beyond systemd-nspawn's own set.
        allow: Set,
    }
    /// Networks.
    network: Network {
        /// Kinds that tasks may have.
        allow: List<NetworkKind>,
        /// Directories with network namespaces that tasks may join.
        netns_paths: List<Absolute>,
        /// Patterns of names of zones that tasks may be in.
        zones: List<String>,
        /// Ports of the host that tasks may publish.
        ports: Vec<Ports>,
        /// IPv4 addresses of tasks with a network of their own. `None`: the daemon chooses.
        pool: Option<Text<Prefix<Ipv4Addr>>>,
        /// Their IPv6 addresses. `None`: the daemon chooses.
        pool_ipv6: Option<Text<Prefix<Ipv6Addr>>>,
        /// What happens where the host does not forward packets.
        forwarding: Text<Forwarding>,
        /// Whether the network of a booted task, and of a command with CAP_NET_ADMIN, belongs to its
        /// own user namespace, so that its root may change it.
        container_admin: bool,
        /// Addresses that such tasks do not reach.
        closed: Prefixes,
        /// Ports of the host itself that they reach.
        host_ports: HostPorts,
        /// Addresses that jobs may list as the only ones that their tasks reach; every task needs a
        /// list then. `None`: any, and none is needed.
        egress: Option<Prefixes>,
    }
    /// Ceilings.
    limits: Limits {
        /// Tasks at once.
        max_tasks: Count,
        /// Most memory of one task, in bytes; a task without limit is refused then.
        memory: Option<Memory>,
        /// Most processes of one task.
        tasks: Option<Processes>,
        /// Most of each process limit.
        ulimit: Ulimits,
        /// Most swap of one task, in bytes.
        swap: SwapCeiling,
        /// How little the kernel may be inclined to kill a task.
        oom_score_adj: OomScore,
        /// Bytes that the file system of upper layers must have free at a start.
        min_free: Free,
    }
    /// Properties of the unit.
    properties: Properties {
        /// Names of those that a job may set.
        allow: List<PropertyName>,
    }
    /// Commands in tasks that run.
    exec: Exec {
        /// Whether there are any.
        allow: bool,
        /// Sessions at once.
        max_sessions: Count,
    }
    /// System calls.
    syscalls: Syscalls {
        /// Calls and groups that tasks may have beyond systemd-nspawn's list.
        allow_extra: List<Syscall>,
    }
    /// System call filters.
    seccomp: Seccomp {
        /// Whether filters that systemd-nspawn has made once are used again.
        cache: bool,
    }
    /// Kernel settings.
    sysctl: Sysctl {
        /// Patterns of their names.
        allow: List<String>,
    }
    /// Security modules.
    lsm: Lsm {
        /// SELinux contexts.
        profiles: List<String>,
    }
    /// systemd.
    systemd: Systemd {
        /// Versions that run tasks in spite of a known hole.
        accept: List<String>,
        /// Patterns of slices that tasks may be in beside the helper's own.
        slices: List<String>,
    }
}

/// What follows from the keys of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Derived {
    /// Directories in which Nomad mounts parts of allocations again.
    pub alloc_mounts: Vec<Absolute>,
    /// Nomad's data, of which only the allocation's own is bound: the strict preset's.
    pub nomad_data: Vec<Absolute>,
    /// Directories that no image shows, unless an entry lies in one of them: the strict preset's.
    pub images_never: Vec<Absolute>,
    /// Directories that are never bound: the strict preset's.
    pub binds_never: Vec<Absolute>,
}

/// A directory of images.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "ImageEntry")]
pub struct ImagePath {
    /// The directory.
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
        self.systemd.accept.iter().any(|accepted| accepted == systemd)
    }
}
