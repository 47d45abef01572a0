//! Opening the image: beneath the policy's directory, without links, and of the kind that was said.
//!
//! Trusts the place, which the policy has allowed, and nothing that lies there.

use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use proto::limits::RANGE_WIDTH;
use proto::plan::Plan;
use proto::task_spec::{ImageKind, Ownership};

use super::{disk, layers};
use crate::open;
use crate::step::{At, Problem};

/// The opened image.
pub(crate) struct Image {
    /// Its root directory.
    pub(super) handle: OwnedFd,
    /// That directory's.
    pub(super) meta: Metadata,
    /// Its layers, mounted and attached nowhere, the lowest first; none for an image of another kind.
    pub(super) layers: Vec<OwnedFd>,
    /// Name of systemd-nspawn's lock file for it.
    pub(super) lock: String,
}

impl Image {
    /// Opens the image and checks that it is one.
    pub(crate) fn open(plan: &Plan) -> Result<Self, Problem> {
        let place = &plan.image;
        let (object, meta) = open::object(place)?;
        let kind = meta.file_type();
        let mut mounted = Vec::new();
        let handle = match plan.root.kind {
            ImageKind::Tree if kind.is_dir() => object,
            ImageKind::Disk if kind.is_file() || kind.is_block_device() => {
                disk::mount(plan, &object)?
            }
            ImageKind::Tree => {
                let reason = "is no directory; a disk image is named with its ending: image = \
                              \"NAME.raw\"";
                return Err(Problem::refused(place, reason));
            }
            ImageKind::Disk => {
                let reason = "is neither a regular file nor a block device";
                return Err(Problem::refused(place, reason));
            }
            ImageKind::Layers => {
                mounted = layers::mount(plan)?;
                // The root directory is that of the uppermost.
                let top = mounted.last().ok_or_else(|| Problem::refused(place, "has no layers"))?;
                top.try_clone().at(place)?
            }
        };
        let meta = open::metadata(&handle).at(place)?;
        if meta.uid() >= RANGE_WIDTH && plan.root.ownership == Ownership::Map {
            let reason = format!(
                "the image's root belongs to uid {}: an older driver shifted its owners; \
                 make a fresh copy of the image, or shift it back with \
                 systemd-nspawn --private-users=0 --private-users-ownership=chown",
                meta.uid()
            );
            return Err(Problem::refused(place, reason));
        }
        let lock = format!("inode-{}:{}", meta.dev(), meta.ino());
        Ok(Self { handle, meta, layers: mounted, lock })
    }
}
