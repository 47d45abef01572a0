//! What a task sees of the host's files, beyond its image and its own directories.

use std::fmt;

use bincode::{Decode, Encode};

use crate::limits;
use crate::name::{Checked, is_made_of, require, text_name};
use crate::path::{Absolute, Relative};
use crate::secret::Secret;
use crate::target::Target;

fn check_credential(text: &str) -> Checked {
    require((1..=limits::COMPONENT_MAX).contains(&text.len()), "1 to 255 bytes")?;
    require(!text.starts_with('.'), "no leading dot")?;
    require(is_made_of(text, "._-@+"), "letters, digits and ._-@+ only")
}

text_name!(
    /// Name of a credential: a file name (systemd.exec(5), credentials).
    CredentialName, "credential name", check_credential
);

/// Everything that is mounted or made in the container beside the image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Files {
    /// Files and directories of the host, in the order in which they are mounted.
    pub binds: Vec<Bind>,
    /// File systems in memory.
    pub tmpfs: Vec<Tmpfs>,
    /// Overlay mounts.
    pub overlays: Vec<Overlay>,
    /// Paths that are hidden; they must exist. Each is mounted over, as systemd-nspawn does it.
    pub inaccessible: Vec<Target>,
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Credentials for PID 1 of the container (systemd.exec(5)).
    pub credentials: Vec<Credential>,
}

/// A file or directory of the host inside the container. Its source is what the job says, or the
/// policy's [`Place`](crate::plan::Place) for it; so it is with overlays and devices.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Bind<S = Source> {
    /// Where it is.
    pub source: S,
    /// Where it is mounted inside.
    pub target: Target,
    /// Whether nothing can be written through it.
    pub read_only: bool,
    /// Whether mounts below the source come along.
    pub recursive: bool,
    /// Which owners its files have inside.
    pub mapping: Mapping,
    /// Whether mounts that the host makes below the source later show up inside
    /// (Nomad's propagation mode `host-to-task`).
    pub propagated: bool,
}

impl<S> Bind<S> {
    /// The same bind from another source.
    pub fn placed<T>(&self, source: T) -> Bind<T> {
        Bind {
            source,
            target: self.target.clone(),
            read_only: self.read_only,
            recursive: self.recursive,
            mapping: self.mapping,
            propagated: self.propagated,
        }
    }
}

/// Where a bind begins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Source {
    /// Anywhere on the host, as far as the policy lists it.
    Host(Absolute),
    /// Below the task's own directory of the allocation (`<alloc>/<task>`).
    Task(Relative),
}

/// Which owners the files of a mount have inside, with a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Mapping {
    /// As [`Self::Identity`] where no other local user can profit from a set-uid file made there,
    /// or the mount is read-only; else as the policy says (`binds.unprotected`).
    #[default]
    Automatic,
    /// None: the host's owners, which show as nobody.
    None,
    /// Uid n inside is uid n on disk.
    Identity,
    /// Root inside is the owner of the source, everybody else is nobody.
    Root,
    /// The owner of the target inside is the owner of the source (systemd 256).
    Owner,
}

/// A file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Tmpfs {
    /// Where it is mounted inside.
    pub target: Target,
    /// Size in bytes; `None`: the kernel's default, half of the memory.
    pub size: Option<u64>,
    /// Number of inodes; `None`: the kernel's default.
    pub inodes: Option<u64>,
    /// Mode of its root directory, at most 0o7777; `None`: 0755.
    pub mode: Option<u16>,
    /// Whether it is read-only.
    pub read_only: bool,
    /// Whether programs on it can be executed.
    pub executable: bool,
}

/// An overlay mount (overlayfs of the kernel).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Overlay<S = Source> {
    /// Read-only layers, lowest first.
    pub lower: Vec<S>,
    /// Where changes go.
    pub upper: Upper<S>,
    /// Where it is mounted inside.
    pub target: Target,
}

impl<S> Overlay<S> {
    /// The same overlay from other sources.
    ///
    /// # Errors
    /// What `read` says of a lower layer, and `write` of the directory for changes.
    pub fn placed<T, E>(
        &self,
        read: impl FnMut(&S) -> Result<T, E>,
        write: impl FnOnce(&S) -> Result<T, E>,
    ) -> Result<Overlay<T>, E> {
        Ok(Overlay {
            lower: self.lower.iter().map(read).collect::<Result<_, E>>()?,
            upper: match &self.upper {
                Upper::ReadOnly => Upper::ReadOnly,
                Upper::Ephemeral => Upper::Ephemeral,
                Upper::Directory(directory) => Upper::Directory(write(directory)?),
            },
            target: self.target.clone(),
        })
    }
}

/// Where the changes of an overlay mount go.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Upper<S = Source> {
    /// Nowhere: it is read-only.
    ReadOnly,
    /// To a directory that goes with the task.
    Ephemeral,
    /// To this directory.
    Directory(S),
}

/// A device node inside.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Device<S = Absolute> {
    /// The host's node.
    pub host: S,
    /// Where it is inside.
    pub target: Target,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// What may be done with a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct DeviceAccess {
    /// Reading.
    pub read: bool,
    /// Writing.
    pub write: bool,
    /// Making such a node.
    pub mknod: bool,
}

/// The letters of DeviceAllow= (systemd.resource-control(5)).
impl fmt::Display for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        all.iter().filter(|(on, _)| *on).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Credential {
    /// Its name.
    pub name: CredentialName,
    /// Where its content comes from.
    pub content: CredentialContent,
    /// Whether it is encrypted with this host's key (systemd-creds(1)).
    pub encrypted: bool,
}

/// Where a credential's content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum CredentialContent {
    /// A regular file below the task's own directory.
    File(Relative),
    /// The job.
    Value(Secret),
}
