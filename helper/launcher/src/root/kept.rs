//! Upper layers that outlive a run: kept for the next run of the same allocation's task.
//!
//! One directory each below [`UPPERS`], named by allocation, uid range and task. The files in it
//! belong to that range, so the daemon gives the allocation the same one again
//! ([`kernel::kept_layers::base`]). A layer goes when its allocation's directory is gone, as
//! Nomad's own data of the allocation does: each `clean` takes such layers along. As long as the
//! directory of all allocations is missing or empty too, or on another device than when the layer
//! was made (a disk that is not mounted), nothing goes.

use std::os::fd::AsFd;
use std::path::Path;

use kernel::kept_layers::{ALLOC, OF_ALL, inode, names, parse};
use kernel::layout::UPPERS;
use proto::plan::Plan;

use crate::open;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// The layer of this task; `make` makes the first one.
pub(super) fn find_or_make(
    plan: &Plan,
    make: impl FnOnce(OwnPath) -> Result<OwnPath, Problem>,
) -> Result<OwnPath, Problem> {
    let path = OwnPath::kept_layer(plan.alloc, plan.container_root(), &plan.task_dirs.task);
    if path.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Ok(path);
    }
    let task = plan.task_dirs.task.as_str();
    let names = names().at(UPPERS)?;
    let mut layers = names.iter().filter_map(|name| parse(name, plan.alloc));
    if let Some((base, _)) = layers.find(|(_, of)| *of == task) {
        let reason = format!(
            "belongs to the uid range {base}, which the task no longer has; a new allocation \
             begins without it: nomad alloc stop"
        );
        return Err(Problem::refused(
            format!("what task {task} kept (persist = \"alloc\")"),
            reason,
        ));
    }
    // Only for a task that is there: a layer goes when its allocation's directory does.
    let alloc = &plan.task_dirs.alloc_dir;
    let directory = open::place(alloc, open::HANDLE).at(alloc)?;
    let stay = open::Mounts::Stay;
    open::beneath(directory.as_fd(), Path::new(task), open::HANDLE, stay).at(task)?;
    // Made in the unit's own directory and renamed when complete: a half-made one goes with the
    // unit.
    let new = make(OwnPath::of_unit(plan.unit))?;
    let alloc = alloc.to_path();
    new.join(ALLOC).make_link(&alloc).at(&new)?;
    let of_all = alloc.parent().and_then(inode).map(|inode| inode.to_string());
    let of_all = Path::new(of_all.as_deref().unwrap_or("none"));
    new.join(OF_ALL).make_link(of_all).at(&new)?;
    new.rename(&path).at(&path)?;
    Ok(path)
}
