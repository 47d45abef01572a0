//! Overlay mounts of the host's directories.
//!
//! A finished overlay cannot be ID-mapped and neither can an upper layer, but lower layers can: so
//! the lower ones show their owners on disk as the container's, and what is written belongs to the
//! container's range on disk. Container root is therefore never an account of the host there.

use std::os::fd::AsFd;

use nix::mount::MsFlags;
use proto::plan::Place;
use proto::task_spec::files::{self, Upper};

use super::prepare::Context;
use super::source::Source;
use crate::open;
use crate::overlay::{self, Overlay};
use crate::prepared::MountPoint;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// Prepares all of them.
pub(super) fn mount_all(context: &mut Context<'_>) -> Result<(), Problem> {
    for (number, overlay) in context.plan.files.overlays.iter().enumerate() {
        let name = format!("overlay{number}");
        let at = OwnPath::on_stage(&name);
        let lower = lower_layers(context, overlay, &name)?;
        let upper = upper_layer(context, overlay, &name)?;
        mount_one(overlay, &lower, upper, &at)?;
        context.extras.mount(at, &overlay.target, MountPoint::Directory);
    }
    Ok(())
}

/// Attaches the lower layers on the stage, lowest first.
fn lower_layers(
    context: &mut Context<'_>,
    overlay: &files::Overlay<Place>,
    name: &str,
) -> Result<Vec<OwnPath>, Problem> {
    let mut all = Vec::new();
    for (number, place) in overlay.lower.iter().enumerate() {
        let source = Source::open_directory(place)?;
        let clone = source.clone(true, false)?;
        if let Some(users) = context.users
            && !source.map(&clone, &users)?
        {
            context.extras.notes.push(format!(
                "overlay layer {place}: this kernel cannot ID-map its file system: its owners \
                 show as nobody"
            ));
        }
        let layer = OwnPath::on_stage(format!("{name}.lower{number}"));
        layer.attach(clone.as_fd(), MountPoint::Directory)?;
        all.push(layer);
    }
    Ok(all)
}

fn upper_layer(
    context: &Context<'_>,
    overlay: &files::Overlay<Place>,
    name: &str,
) -> Result<Option<overlay::Upper>, Problem> {
    let object = format!("changes of the overlay at {}", overlay.target);
    let (directory, volatile) = match &overlay.upper {
        Upper::ReadOnly => return Ok(None),
        Upper::Ephemeral => {
            overlay::check_free(context.plan.min_free)?;
            let directory = OwnPath::of_unit(context.plan.unit).join(name);
            directory.make_dirs(0o700)?;
            (directory, true)
        }
        Upper::Directory(place) => (attach_upper(place, name)?, false),
    };
    // Its root looks like that of the topmost layer.
    let none = || Problem::refused(&object, "lie over no layer");
    let top = overlay.lower.last().ok_or_else(none)?;
    let top = open::metadata(&open::place(top, open::HANDLE).at(top)?).at(top)?;
    let directory = directory.open_dir()?;
    // The identity shifts nothing.
    let range = context.plan.users.filter(|range| range.base != 0);
    overlay::Upper::open(object, &directory, &top, range, volatile).map(Some)
}

/// Attaches a host's directory for changes on the stage.
fn attach_upper(place: &Place, name: &str) -> Result<OwnPath, Problem> {
    let source = Source::open_directory(place)?;
    if !source.is_protected(false)? {
        let reason = "an overlay's changes must lie where no other local user can reach them: \
                      chmod 0700 a directory of root's above it, or mount it nosuid";
        return Err(Problem::refused(place, reason));
    }
    let clone = source.clone(false, false)?;
    let at = OwnPath::on_stage(format!("{name}.upper"));
    at.attach(clone.as_fd(), MountPoint::Directory)?;
    Ok(at)
}

fn mount_one(
    overlay: &files::Overlay<Place>,
    lower: &[OwnPath],
    upper: Option<overlay::Upper>,
    at: &OwnPath,
) -> Result<(), Problem> {
    at.make_dir(0o755)?;
    if let ([only], None) = (lower, &upper) {
        // The kernel wants two layers in a read-only overlay.
        return at.bind_from(only).at(at);
    }
    let overlay = Overlay {
        object: format!("overlay {}", overlay.target),
        lower,
        upper,
        flags: MsFlags::MS_NOSUID,
        stale: "its changes were made over other lower layers than today's: begin with an empty \
                directory",
    };
    overlay.mount(at)
}
