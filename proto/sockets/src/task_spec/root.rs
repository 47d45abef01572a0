//! What becomes of the image: how it is used, and whose its files are inside.

use bincode::{Decode, Encode};

use super::image::ImageKind;
use crate::path::Absolute;
use crate::target::Target;

/// What becomes of the image.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RootFs {
    /// What kind of file the image is.
    pub kind: ImageKind,
    /// How it is used.
    pub mode: Root,
    /// How its owners become those of the task's range.
    pub ownership: Ownership,
    /// Another directory of the image as root.
    pub pivot: Option<Pivot>,
}

impl RootFs {
    /// A directory, with its owners mapped, used in this way.
    #[must_use]
    pub fn tree(mode: Root) -> Self {
        Self { kind: ImageKind::Tree, mode, ownership: Ownership::Map, pivot: None }
    }
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

/// Another directory of the image as root (systemd-nspawn(1), `--pivot-root=`).
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Pivot {
    /// The directory that becomes the root. Nothing is mounted there: it is opened within the
    /// image.
    pub new: Absolute,
    /// Where the old root is mounted then; `None`: nowhere.
    pub old: Option<Target>,
}
