//! Keys of the blocks inside a job's `config` block.

use super::field::Hidden;
use super::nested::Block;
use super::table::keys;
use super::value::Period;
use super::words::{
    DownloadType, LogDriver, MountType, Priority, Propagation, ReadyMode, Retain, Verify,
};

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
        /// (sd_notify(3)), booted or as PID 1. network: it has an address that is neither loopback
        /// nor link-local; not with `private_network`. exec: `command` succeeds in it.
        mode: ReadyMode = "started";
        /// Command that is executed in the task, with its environment, directory and user, again
        /// and again until it ends with exit code 0.
        command: Vec<String>;
        /// Time between the first two tries of `command`, 1s to 10m. Each further pause is half
        /// as long again, up to 10s.
        interval: Period = "1s";
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
