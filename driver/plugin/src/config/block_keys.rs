//! Keys of the blocks inside a job's `config` block, and the words that keys may have as values.

use super::field::Hidden;
use super::nested::Block;
use super::plugin::LogDriver;
use super::table::keys;
use super::value::{Period, words};

words! {
    /// Which part of the root is in memory.
    VolatileWord { No = "no", Yes = "yes", State = "state", Overlay = "overlay" }
}

words! {
    /// Where an ephemeral root's changes are.
    EphemeralMode { Auto = "auto", Overlay = "overlay", Tmpfs = "tmpfs" }
}

words! {
    /// How long an ephemeral root's changes stay.
    Persist { None = "none", Alloc = "alloc" }
}

words! {
    /// How an image's owners become those of the task's range.
    OwnershipWord {
        Auto = "auto", Map = "map", Chown = "chown", Off = "off", Foreign = "foreign",
    }
}

words! {
    /// What is behind the payload's console.
    ConsoleWord {
        ReadOnly = "read-only", Interactive = "interactive", Passive = "passive", Pipe = "pipe",
        Autopipe = "autopipe",
    }
}

words! {
    /// Which owners the files of binds and volumes have inside.
    BindMapping {
        Auto = "auto", None = "none", Idmap = "idmap", Rootidmap = "rootidmap",
        Owneridmap = "owneridmap",
    }
}

words! {
    /// What becomes of /etc/localtime.
    TimezoneWord {
        Off = "off", Copy = "copy", Bind = "bind", Symlink = "symlink", Delete = "delete",
        Auto = "auto",
    }
}

words! {
    /// What becomes of /etc/resolv.conf.
    ResolvConf {
        Auto = "auto", Off = "off", Delete = "delete",
        CopyHost = "copy-host", CopyStatic = "copy-static", CopyUplink = "copy-uplink",
        CopyStub = "copy-stub", ReplaceHost = "replace-host", ReplaceStatic = "replace-static",
        ReplaceUplink = "replace-uplink", ReplaceStub = "replace-stub", BindHost = "bind-host",
        BindStatic = "bind-static", BindUplink = "bind-uplink", BindStub = "bind-stub",
    }
}

words! {
    /// When a task counts as started.
    ReadyMode { Started = "started", Notify = "notify", Network = "network", Exec = "exec" }
}

words! {
    /// Who gives the task its address.
    NetworkSetup { Helper = "helper", Container = "container", Auto = "auto" }
}

words! {
    /// Whether a start waits for an address.
    WaitForAddress { Auto = "auto", Require = "require", No = "no" }
}

words! {
    /// What is downloaded.
    DownloadType { Tar = "tar", Raw = "raw", Docker = "docker", Oci = "oci", Archive = "archive" }
}

words! {
    /// How a download is checked.
    Verify { No = "no", Checksum = "checksum", Signature = "signature" }
}

words! {
    /// When a downloaded image may go.
    Retain { Cache = "cache", Task = "task", Always = "always" }
}

words! {
    /// What a `mount` block mounts.
    MountType { Bind = "bind", Tmpfs = "tmpfs", Overlay = "overlay" }
}

words! {
    /// Which later mounts of the host show up inside.
    Propagation {
        Private = "private", HostToTask = "host-to-task", Bidirectional = "bidirectional",
    }
}

words! {
    /// Priority of a line (syslog(3)).
    Priority {
        Err = "err", Emerg = "emerg", Alert = "alert", Crit = "crit", Warning = "warning",
        Notice = "notice", Info = "info", Debug = "debug",
    }
}

keys! {
    /// An image to download.
    pub(crate) struct Download {
        /// Address of the file, or name of the image.
        url: String, required;
        /// What the address leads to. tar, raw, docker, oci, archive.
        r#type: DownloadType = "tar";
        /// Whether the image is downloaded even if it exists.
        force: bool = false;
        /// How it is checked. no, checksum, signature.
        verify: Verify = "no";
        /// Its digest, `sha256:` and 64 hexadecimal digits.
        checksum: Option<String>;
        /// Platform, as `os/arch` or `os/arch/variant`.
        platform: Option<String>;
        /// Credentials.
        auth: Block<DownloadAuth>;
        /// Time for the complete download; unset: the plugin's.
        timeout: Option<Period>;
        /// When the image may be removed. cache, task, always.
        retain: Retain = "cache";
    }
}

keys! {
    /// Credentials of a download.
    pub(crate) struct DownloadAuth {
        /// Name of the account.
        username: Option<String>;
        /// Its password.
        password: Hidden;
        /// Registry that they are for.
        server_address: Option<String>;
    }
}

keys! {
    /// When the task counts as started.
    pub(crate) struct ReadyKeys {
        /// What the start waits for. started: the payload is executed. notify: it sends READY=1
        /// (sd_notify(3)), booted or as PID 1. network, exec: not yet.
        mode: ReadyMode = "started";
        /// Command whose success means ready.
        command: Vec<String>, later;
        /// Time for it, 1s to 1h. After that the start has failed, and Nomad may try again.
        timeout: Period = "2m";
    }
}

keys! {
    /// A mount.
    pub(crate) struct MountKeys {
        /// What is mounted. bind: a file or directory of the host. tmpfs: memory. overlay: an
        /// overlay file system.
        r#type: MountType = "bind";
        /// Path on the host; a relative path is below the task's directory. For an overlay: the
        /// directories as in `overlay`, without the target. Not for tmpfs.
        source: Option<String>;
        /// Absolute path inside.
        target: String, required;
        /// Whether the mount is read-only.
        readonly: bool = false;
        /// Whether later mounts of the host below a bind's source appear inside. private,
        /// host-to-task; bidirectional is refused.
        propagation: Propagation = "private";
        /// Options, as after the colon in `bind` or `tmpfs`.
        options: Vec<String>;
    }
}

keys! {
    /// A device node.
    pub(crate) struct DeviceKeys {
        /// Path of the node on the host.
        host_path: String, required;
        /// Path inside; unset: as on the host.
        container_path: Option<String>;
        /// What the task may do with it: any of r (read), w (write), m (make such a node).
        permissions: String = "rw";
    }
}

keys! {
    /// A credential (systemd.exec(5)).
    pub(crate) struct CredentialKeys {
        /// Name, at most 255 letters, digits and `._-@+`, without a leading dot. All credentials of
        /// a task together contain at most 1 MiB.
        name: String, required;
        /// File that contains it, below the task's `secrets` or `local` directory. Exactly one of
        /// source and value.
        source: Option<String>;
        /// The content itself.
        value: Option<Hidden>;
        /// Whether it is encrypted with this host's key, under the name `nomad.` followed by its
        /// own: `systemd-creds encrypt --name=nomad.NAME`.
        encrypted: bool = false;
    }
}

keys! {
    /// Where output goes.
    pub(crate) struct LoggingKeys {
        /// Destination: nomad, journald, both, none; unset: the plugin's.
        driver: Option<LogDriver>;
        /// Whether a booted container's own journal becomes the task's log.
        journal: bool = false;
        /// Lines of that journal at or above this priority go to standard error. emerg, alert,
        /// crit, err, warning, notice, info, debug.
        priority: Priority = "err";
    }
}

impl Priority {
    /// The number in syslog(3).
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Emerg => 0,
            Self::Alert => 1,
            Self::Crit => 2,
            Self::Err => 3,
            Self::Warning => 4,
            Self::Notice => 5,
            Self::Info => 6,
            Self::Debug => 7,
        }
    }
}
