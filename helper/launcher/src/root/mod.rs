//! The container's root: the image itself, or an overlay over it.
//!
//! | module | idea |
//! |---|---|
//! | `assemble` | the order: mount, pivot, what every container needs |
//! | `image`, `disk`, `layers`, `loops` | opening the image; mounting a disk image, or layers |
//! | `plain`, `overlay`, `kept` | the two kinds of root; upper layers that outlive a run |
//! | `missing_mount_points` | mount points that the image lacks |
//!
//! Trusts nothing in an image. Never walks a path of one but inside it.

mod assemble;
mod disk;
mod image;
mod kept;
mod layers;
mod loops;
mod missing_mount_points;
mod overlay;
mod plain;

pub(super) use assemble::mount_root;
pub(super) use image::Image;
pub(super) use missing_mount_points::{Mounted, Point, Within, is_nspawns_own, make_path};
