//! Where a task's image is, and what kind of file it is.

use bincode::{Decode, Encode};

use crate::name::ImageName;
use crate::path::Absolute;

/// Where the image is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Image {
    /// A directory, or a disk image `NAME.raw`, in the image store (`images.store` of the policy).
    Named(ImageName),
    /// The same, or this path where the image store has nothing of that name.
    NamedOr(ImageName, Absolute),
    /// By its absolute path.
    Path(Absolute),
}

/// What kind of file an image is. The launcher refuses an image of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum ImageKind {
    /// A directory.
    Tree,
    /// A file or block device with a file system and no partition table.
    Disk,
    /// Layers of the store of layers. The helper alone finds that a name means those.
    Layers,
}
