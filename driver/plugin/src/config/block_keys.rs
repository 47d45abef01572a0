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
        /// What is there. tar, raw, docker, oci, archive.
        r#type: DownloadType = "tar";
        /// Whether it is downloaded although it is there.
        force: bool = false;
        /// How it is checked. no, checksum, signature.
        verify: Verify = "no";
        /// Its digest, `sha256:` and 64 hexadecimal digits.
        checksum: Option<String>;
        /// Platform, as `os/arch` or `os/arch/variant`.
        platform: Option<String>;
        /// Credentials.
        auth: Block<DownloadAuth>;
        /// Time for the download in all; unset: the plugin's.
        timeout: Option<Period>;
        /// When the image may go. cache, task, always.
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
        /// What is waited for. started: the payload is executed. notify: it says READY=1
        /// (sd_notify(3)), booted or as PID 1. network, exec: not yet.
        mode: ReadyMode = "started";
        /// Command whose success means ready.
        command: Vec<String>, later;
        /// Time for it, 1s to 1h; then the start has failed and Nomad may try again.
        timeout: Period = "2m";
    }
}

keys! {
    /// A mount.
    pub(crate) struct MountKeys {
        /// What is mounted. bind: a file or folder of the host. tmpfs: memory. overlay: an overlay
        /// file system.
        r#type: MountType = "bind";
        /// The host's path, below the task's folder when relative; for an overlay the folders as in
        /// `overlay`, without the target; not for tmpfs.
        source: Option<String>;
        /// Absolute path inside.
        target: String, required;
        /// Whether nothing can be written.
        readonly: bool = false;
        /// Whether later mounts of the host below a bind's source show up inside. private,
        /// host-to-task; bidirectional is refused.
        propagation: Propagation = "private";
        /// Options, as behind the colon in `bind` or `tmpfs`.
        options: Vec<String>;
    }
}

keys! {
    /// A device node.
    pub(crate) struct DeviceKeys {
        /// The host's node.
        host_path: String, required;
        /// Where it is inside; unset: as on the host.
        container_path: Option<String>;
        /// What may be done with it: any of r (read), w (write), m (make such a node).
        permissions: String = "rw";
    }
}

keys! {
    /// A credential (systemd.exec(5)).
    pub(crate) struct CredentialKeys {
        /// Its name, at most 255 letters, digits and `._-@+`, no leading dot. All credentials of a
        /// task together hold at most 1 MiB.
        name: String, required;
        /// File that holds it, below the task's `secrets` or `local` folder. Exactly one of source
        /// and value.
        source: Option<String>;
        /// The content itself.
        value: Option<Hidden>;
        /// Whether it is encrypted with this host's key, under the name `nomad.` and its own:
        /// `systemd-creds encrypt --name=nomad.NAME`.
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
