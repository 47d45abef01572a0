//! Images of layers: each an EROFS file in the store, mounted by a loop device that all tasks share.
//!
//! Trusts the store's directory to be root's and what lies in a layer not at all: its superblock is
//! judged before the kernel reads it, and every mount is read-only and without device nodes. No
//! program reads a layer.

use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use proto::layer::{IMAGES, ImageLayer};
use proto::plan::Plan;

use super::loops;
use crate::step::{At, Problem};
use kernel::{image_store, syscalls};

/// Mounts the layers, attached nowhere yet; the lowest first.
pub(super) fn mount(plan: &Plan) -> Result<Vec<OwnedFd>, Problem> {
    let store = image_store::open().at(IMAGES)?;
    let store =
        store.ok_or_else(|| Problem::refused(IMAGES, "is missing: import the image again"))?;
    plan.layers.iter().map(|layer| mount_one(&store, layer)).collect()
}

fn mount_one(store: &OwnedFd, layer: &ImageLayer) -> Result<OwnedFd, Problem> {
    let file = match image_store::open_layer(store, layer) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Problem::held(layer, "was removed from the store: import the image again"));
        }
        // What the store has against the file; the kernel's own errors have a number.
        Err(error) if error.raw_os_error().is_none() => return Err(Problem::refused(layer, error)),
        other => other.at(layer)?,
    };
    let device = loops::share(file, &layer.file_name()).map_err(|it| it.about(layer))?;
    let mounted = syscalls::mount_detached(device.as_fd(), "erofs");
    mounted.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENODEV) => Problem::refused(
            layer,
            "this kernel has no EROFS: modprobe erofs, or a kernel with CONFIG_EROFS_FS",
        ),
        _ => {
            let reason = format!(
                "the kernel does not mount it ({error}); its log says why. Where the file is \
                 damaged: import the image again"
            );
            Problem::refused(layer, reason)
        }
    })
}
