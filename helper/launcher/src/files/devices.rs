//! Device nodes: new ones of the same number, in a file system in memory.
//!
//! The host's own nodes cannot be ID-mapped and would keep the host's owners. What may be done with
//! a device is the unit's device policy; the mode only tells the payload the same.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::mount::MsFlags;
use nix::sys::stat::SFlag;
use proto::plan::Place;
use proto::task_spec::files::Device;

use super::prepare::Context;
use crate::open;
use crate::prepared::MountPoint;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Makes all nodes.
pub(super) fn make_all(context: &mut Context<'_>) -> Result<(), Problem> {
    if context.plan.files.devices.is_empty() {
        return Ok(());
    }
    let directory = OwnPath::on_stage("devices");
    // Not nodev, as everything else on the stage is.
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    directory.mount_new("tmpfs", flags, "mode=0755,size=64k")?;
    for (number, device) in context.plan.files.devices.iter().enumerate() {
        let node = directory.join(number);
        make(device, &node, context.plan.container_root())?;
        context.extras.mount(node, &device.target, MountPoint::File);
    }
    Ok(())
}

fn make(device: &Device<Place>, node: &OwnPath, owner: u32) -> Result<(), Problem> {
    let host = &device.host;
    let (_, meta) = open::object(host)?;
    let kind = match meta.file_type() {
        t if t.is_char_device() => SFlag::S_IFCHR,
        t if t.is_block_device() => SFlag::S_IFBLK,
        _ => return Err(Problem::refused(host, "is not a device node")),
    };
    node.make_node(kind, meta.rdev()).at(format!("mknod of {host}"))?;
    node.set_owner(Some(owner)).at(host)?;
    let bits = |given: bool, bits: u32| if given { bits } else { 0 };
    let mode = bits(device.access.read, 0o444) | bits(device.access.write, 0o222);
    node.set_mode(mode).at(host)
}
