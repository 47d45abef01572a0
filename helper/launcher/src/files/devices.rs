//! Device nodes: new ones of the same number, in a file system in memory.
//!
//! The host's own nodes cannot be ID-mapped and would keep the host's owners. What may be done with
//! a device is the unit's device policy; the mode only tells the payload the same.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use proto::plan::Place;
use proto::task_spec::files::Device;

use super::Context;
use crate::prepared::MountPoint;
use crate::step::{At, Problem};
use crate::{STAGE, open};

/// Makes all nodes.
pub(super) fn make_all(context: &mut Context<'_>) -> Result<(), Problem> {
    if context.plan.files.devices.is_empty() {
        return Ok(());
    }
    let folder = Path::new(STAGE).join("devices");
    fs::create_dir(&folder).at(folder.display())?;
    // Not nodev, as everything else on the stage is.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, Some("mode=0755,size=64k"))
        .at(folder.display())?;
    for (number, device) in context.plan.files.devices.iter().enumerate() {
        let node = folder.join(number.to_string());
        make(device, &node, context.plan.container_root())?;
        context.extras.mount(node, &device.target, MountPoint::File);
    }
    Ok(())
}

fn make(device: &Device<Place>, node: &Path, owner: u32) -> Result<(), Problem> {
    let host = &device.host;
    let (_, meta) = open::object(host)?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => SFlag::S_IFCHR,
        t if t.is_block_device() => SFlag::S_IFBLK,
        _ => return Err(Problem::refused(host, "is not a device node")),
    };
    mknod(node, kind, Mode::empty(), meta.rdev()).at(format!("mknod of {host}"))?;
    chown(node, Some(owner), Some(owner)).at(host)?;
    let bits = |given: bool, bits: u32| if given { bits } else { 0 };
    let mode = bits(device.access.read, 0o444) | bits(device.access.write, 0o222);
    fs::set_permissions(node, Permissions::from_mode(mode)).at(host)
}
