//! An overlay over the read-only image.
//!
//! The lower layer is ID-mapped; an upper layer cannot be (the overlay would come up read-only), so
//! it belongs to the task's range on disk.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::mount::MsFlags;
use proto::plan::Plan;
use proto::task_spec::{Layer, Root};

use super::assemble::{attach, attach_mount};
use super::{Image, Mounted, kept};
use crate::overlay::{Overlay, Upper, check_free};
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Options of an upper layer in memory: as much of the host's as systemd-nspawn gives its own
/// volatile roots. It counts as the task's memory.
const MEMORY: &str = "mode=0700,size=25%";

/// Mounts it at `at`.
pub(super) fn mount(
    plan: &Plan,
    image: &Image,
    map: Option<BorrowedFd<'_>>,
    at: &OwnPath,
) -> Result<Mounted, Problem> {
    let lower = attach_lower(plan, image, map)?;
    let mapped = map.is_some();
    let upper = open_upper(plan, image, mapped, &layers(plan, image, mapped)?)?;
    at.make_dir(0o755)?;
    let overlay = Overlay {
        object: format!("overlay over {}", plan.image),
        lower: &lower,
        upper: Some(upper),
        flags: MsFlags::empty(),
        stale: "what the task kept (persist = \"alloc\") was made over another image than today's; \
                a new allocation begins without it: nomad alloc stop",
    };
    overlay.mount(at)?;
    Ok(Mounted { directory: at.open_dir()?, owner: plan.container_root(), layered: true })
}

/// Attaches what lies below the changes, the lowest first. It stays on the stage, which the container
/// does not see: an unmount would wait for RCU.
fn attach_lower(
    plan: &Plan,
    image: &Image,
    map: Option<BorrowedFd<'_>>,
) -> Result<Vec<OwnPath>, Problem> {
    // Read-only as mounts too: not even host root changes the image through them.
    let attributes = syscalls::NO_DEV | syscalls::READ_ONLY;
    if image.layers.is_empty() {
        let lower = OwnPath::on_stage("lower");
        attach(plan, image, attributes, map, &lower)?;
        return Ok(vec![lower]);
    }
    // Short names: those of all layers have to fit into one page of options.
    let attach = |(number, layer): (usize, &OwnedFd)| {
        let lower = OwnPath::on_stage(format_args!("l{number}"));
        attach_mount(plan, layer.as_fd(), attributes, map, &lower).map(|()| lower)
    };
    image.layers.iter().enumerate().map(attach).collect()
}

/// The directory that holds the upper layer and the kernel's work directory.
fn layers(plan: &Plan, image: &Image, mapped: bool) -> Result<OwnPath, Problem> {
    let make = |directory: OwnPath| directory.make_dir(0o700).map(|()| directory);
    // Complete before it gets its name.
    let make_kept = |directory| {
        let directory = make(directory)?;
        open_upper(plan, image, mapped, &directory).map(|_made| directory)
    };
    let memory = OwnPath::on_stage("layer");
    match plan.root.mode {
        Root::Ephemeral(Layer::Disk) => {
            check_free(plan.min_free)?;
            make(OwnPath::of_unit(plan.unit))
        }
        Root::Ephemeral(Layer::Kept) => {
            check_free(plan.min_free)?;
            kept::find_or_make(plan, make_kept)
        }
        // Mount points alone where nothing else is written; but a file among them is copied whole.
        Root::Ephemeral(Layer::Memory) | Root::ReadOnly | Root::Volatile(_) => {
            memory.make_dir(0o700)?;
            memory.mount("tmpfs", MsFlags::MS_NODEV, MEMORY).at(&memory)?;
            make(memory.join("layers"))
        }
        Root::Plain => make(memory),
    }
}

/// The two directories of a layer, made where they are missing.
fn open_upper(plan: &Plan, image: &Image, mapped: bool, layer: &OwnPath) -> Result<Upper, Problem> {
    let directory = layer.open_dir()?;
    let range = plan.users.filter(|_| mapped);
    let volatile = plan.root.mode != Root::Ephemeral(Layer::Kept);
    let object = format!("changes over {} in {layer}", plan.image);
    Upper::open(object, &directory, &image.meta, range, volatile)
}
