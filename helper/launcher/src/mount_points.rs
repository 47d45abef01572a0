//! Mount points: where what lies on the stage is seen inside.
//!
//! systemd-nspawn is host root when it mounts, and works by path. The rule that keeps it inside:
//! **it is given only targets in the root, which is this task's alone, in a spelling without links,
//! and each is judged once more in that spelling** ([`MountTarget::led_to`]).
//!
//! What lies below another mount, such as /local/cache, is attached there by descriptor instead: a
//! directory of the host may be shared with others, who could put a link to anywhere into a path.
//! Mount points in it are made with the rights of container root: nothing appears on the host that
//! the payload could not have made itself.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use proto::name::InvalidName;
use proto::path::{Absolute, Component};
use proto::plan::Plan;
use proto::target::Target;
use proto::task_spec::{Root, Volatile};

use super::open;
use super::prepared::{Extras, Mount, MountTarget};
use super::root::{self, Mounted, Point, Within, make_path};
use super::step::{At, Problem};
use kernel::syscalls;

/// Links into /usr that a root in memory gets (base-filesystem.c of systemd).
const LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A mount and where it goes.
struct Placed {
    mount: Mount,
    /// Where it is seen: the mount's target without links.
    real: MountTarget,
    /// The mounted object: on the stage, later where it was attached.
    handle: OwnedFd,
}

/// The mount that a path lies below.
struct Outer<'a> {
    mount: &'a Placed,
    /// The path from there; never empty.
    below: &'a [Component],
}

/// Attaches what lies below other mounts, and has systemd-nspawn mount the rest.
pub(super) fn attach_all(plan: &Plan, root: &Mounted, extras: &mut Extras) -> Result<(), Problem> {
    let mut placed = place_all(plan, root, std::mem::take(&mut extras.mounts))?;
    // Outer ones first: what is attached below one must go where that one has gone.
    placed.sort_by_key(|mount| mount.real.path().components().len());
    let mut done: Vec<Placed> = Vec::new();
    for mut mount in placed {
        match innermost(&done, |outer| &outer.real, mount.real.path()) {
            Some(outer) => mount.handle = attach_below(plan, &mount, &outer)?,
            None => extras.bind(&mount.mount.stage, &mount.real),
        }
        done.push(mount);
    }
    hide_all(plan, root, &done, extras)
}

/// Finds out where each is seen.
fn place_all(plan: &Plan, root: &Mounted, mut mounts: Vec<Mount>) -> Result<Vec<Placed>, Problem> {
    // Outer ones first: the links on the way to one hold for all below it.
    mounts.sort_by_key(|mount| mount.target.path().components().len());
    let mut placed: Vec<Placed> = Vec::new();
    for mount in mounts {
        let handle = mount.stage.open(OFlag::O_PATH | OFlag::O_NOFOLLOW).at(&mount.stage)?;
        let target = mount.target.path();
        let path = match innermost(&placed, |outer| &outer.mount.target, target) {
            // Not looked up: what lies below that mount is somebody else's, and is walked by
            // descriptor when this one is attached.
            Some(outer) => {
                let outer_path = outer.mount.real.path();
                outer_path.join(outer.below).map_err(|rule| Problem::refused(target, rule))?
            }
            None => {
                let point = root.provide(target, mount.kind)?;
                // The image's links are not there when systemd-nspawn mounts over them.
                if is_hidden(plan, target, &point) { target.clone() } else { point }
            }
        };
        // Judged in the final spelling, also where that is the target's own: this does not depend
        // on what the policy has judged before.
        let real = mount.target.led_to(path.clone()).map_err(|e| led_astray(target, &path, &e))?;
        placed.push(Placed { mount, real, handle });
    }
    Ok(placed)
}

/// A link of the image leads where nothing may be mounted.
fn led_astray(target: &Absolute, real: &Absolute, refused: &InvalidName) -> Problem {
    let reason = format!("a link of the image leads to {real}: {}", refused.rule);
    Problem::refused(target, reason)
}

/// Whether the root is in memory there, without anything of the image but the links into /usr that
/// systemd-nspawn makes anew.
fn is_hidden(plan: &Plan, target: &Absolute, point: &Absolute) -> bool {
    let first =
        |path: &Absolute| path.components().first().map_or("", Component::as_str).to_owned();
    let link = LINKS.contains(&first(target).as_str()) && first(point) == "usr";
    match plan.root.mode {
        Root::Volatile(Volatile::Yes) => first(target) != "usr" && !link,
        Root::Volatile(Volatile::State) => first(target) == "var",
        _ => false,
    }
}

/// The innermost of these mounts that a path lies below; `at`: which of its places counts.
fn innermost<'a>(
    mounts: &'a [Placed],
    at: impl Fn(&Placed) -> &MountTarget,
    path: &'a Absolute,
) -> Option<Outer<'a>> {
    let mut found: Option<Outer<'a>> = None;
    for mount in mounts {
        let place = at(mount).path().components();
        let Some(below) = path.components().strip_prefix(place) else { continue };
        let is_closer = found.as_ref().is_none_or(|outer| below.len() < outer.below.len());
        if is_closer && !below.is_empty() {
            found = Some(Outer { mount, below });
        }
    }
    found
}

/// Attaches a copy of a mount below another one; returns it.
fn attach_below(plan: &Plan, mount: &Placed, outer: &Outer<'_>) -> Result<OwnedFd, Problem> {
    let target = mount.mount.target.path();
    let refused = |reason: &str| {
        let reason = format!(
            "cannot be made as a mount point in the mount around it ({reason}): make it there \
             beforehand"
        );
        Problem::refused(target, reason)
    };
    let (top, kind) = (&outer.mount.handle, mount.mount.kind);
    let made =
        as_user(plan.container_root(), || make_path(top, outer.below, kind, Within::HostMount));
    let point = match made.map_err(|problem| refused(problem.reason()))? {
        Point::There(point) => point,
        Point::DanglingLink { .. } => return Err(refused("it is gone again")),
    };
    // A copy: the original keeps its place on the stage. systemd-nspawn takes the outer mount with
    // all that is attached below it (rbind).
    let copy = syscalls::clone_mount(mount.handle.as_fd(), true).at(target)?;
    // By descriptor: nobody can exchange the mount point between its check and this call.
    syscalls::attach_mount(copy.as_fd(), point.as_fd()).at(target)?;
    Ok(copy)
}

/// Runs an action with a user's rights on files.
fn as_user<T>(id: u32, action: impl FnOnce() -> T) -> T {
    // Changing the file system uid from 0 also takes the capabilities over files out of the
    // effective set, and changing it back restores them (capabilities(7)); all others stay.
    let (gid, uid) = (setfsgid(Gid::from_raw(id)), setfsuid(Uid::from_raw(id)));
    let result = action();
    setfsuid(uid);
    setfsgid(gid);
    result
}

/// Hides paths. systemd-nspawn fails on one that does not exist: that is refused here, with words
/// for people, where it can be seen from here.
fn hide_all(
    plan: &Plan,
    root: &Mounted,
    all: &[Placed],
    extras: &mut Extras,
) -> Result<(), Problem> {
    for target in &plan.files.inaccessible {
        let path = target.path();
        let is_mounted = innermost(all, |outer| &outer.mount.target, path).is_some();
        if !is_mounted && !root::is_nspawns_own(path) {
            let object = format!("inaccessible path {path}");
            let found = open::in_root(root.directory.as_fd(), &path.to_path());
            let Some(found) = open::if_there(found).at(&object)? else {
                let reason = "does not exist in the image: only what exists can be hidden";
                return Err(Problem::refused(object, reason));
            };
            // systemd-nspawn follows the image's links to it.
            let real = root.inside(&found, Path::new("")).at(&object)?;
            Target::new(real.clone()).map_err(|e| led_astray(path, &real, &e))?;
            // As every mount point: a task that writes to the image must not exchange it from now
            // on.
            root.copy_up(&found).at(&object)?;
        }
        // This option knows no escapes.
        extras.arguments.push(format!("--inaccessible={path}"));
    }
    Ok(())
}
