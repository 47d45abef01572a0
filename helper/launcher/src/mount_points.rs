//! Mount points: where what lies on the stage is seen inside.
//!
//! systemd-nspawn is host root when it mounts, and goes by path. So it is given only targets in the
//! root, which is this task's alone, in a spelling without links. What lies below another mount,
//! such as /local/cache, is attached there by descriptor: a folder of the host may be shared with
//! others, who could put a link to anywhere into a path. Mount points in it are made with the rights
//! of container root: nothing appears on the host that the payload could not have made itself.

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
use super::root::{self, Mounted, Point, make_path};
use super::step::{At, Problem};
use kernel::syscalls;

/// Links into /usr that a root in memory gets (base-filesystem.c of systemd).
const LINKS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// A mount and where it goes.
struct Inside {
    mount: Mount,
    /// The mounted object: on the stage, then where it was attached.
    handle: OwnedFd,
    /// Where it is seen, without links.
    real: MountTarget,
}

/// Attaches what lies below other mounts, and has systemd-nspawn mount the rest.
pub(super) fn attach_all(plan: &Plan, root: &Mounted, extras: &mut Extras) -> Result<(), Problem> {
    let mut all = place_all(plan, root, std::mem::take(&mut extras.mounts))?;
    // Outer ones first: what is attached below them goes where they have gone.
    all.sort_by_key(|inside| inside.real.path().components().len());
    for number in 0..all.len() {
        let Some(Inside { mount, handle, real }) = all.get(number) else { continue };
        let outer = above(&all, |inside| inside.real.path(), real.path())
            .and_then(|(outer, below)| Some((&all.get(outer)?.handle, below)));
        let Some((outer, below)) = outer else {
            extras.bind(&mount.stage, real);
            continue;
        };
        let attached = attach(plan, mount, handle, outer, &below)?;
        if let Some(inside) = all.get_mut(number) {
            inside.handle = attached;
        }
    }
    hide_all(plan, root, &all, extras)
}

/// Finds out where each is seen; outer ones first, whose links hold for all below them.
fn place_all(plan: &Plan, root: &Mounted, mut mounts: Vec<Mount>) -> Result<Vec<Inside>, Problem> {
    mounts.sort_by_key(|mount| mount.target.path().components().len());
    let mut all: Vec<Inside> = Vec::new();
    for mount in mounts {
        let handle = mount.stage.open(OFlag::O_PATH | OFlag::O_NOFOLLOW).at(&mount.stage)?;
        let target = mount.target.path();
        let outer = above(&all, |inside| inside.mount.target.path(), target)
            .and_then(|(outer, below)| Some((all.get(outer)?, below)));
        let real = match outer {
            Some((outer, below)) => {
                outer.real.path().join(&below).map_err(|rule| Problem::refused(target, rule))?
            }
            None => {
                let point = root.provide(target, mount.kind)?;
                // The image's links are not there when systemd-nspawn mounts over them.
                if is_hidden(plan, target, &point) { target.clone() } else { point }
            }
        };
        let real = mount.target.led_to(real.clone()).map_err(|e| led_astray(target, &real, &e))?;
        all.push(Inside { mount, handle, real });
    }
    Ok(all)
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

/// The innermost mount that a path lies below, with the rest of the path.
fn above<'a>(
    all: &'a [Inside],
    place: impl Fn(&'a Inside) -> &'a Absolute,
    path: &Absolute,
) -> Option<(usize, Vec<Component>)> {
    let below = |inside| path.components().strip_prefix(place(inside).components());
    let found = all.iter().map(below).enumerate();
    let found = found.filter_map(|(number, below)| Some((number, below?)));
    let innermost =
        found.filter(|(_, below)| !below.is_empty()).min_by_key(|(_, below)| below.len());
    innermost.map(|(number, below)| (number, below.to_vec()))
}

/// Attaches a copy of a mount below another one; returns it.
fn attach(
    plan: &Plan,
    mount: &Mount,
    handle: &OwnedFd,
    outer: &OwnedFd,
    below: &[Component],
) -> Result<OwnedFd, Problem> {
    let find = |path: &Path| open::beneath(outer.as_fd(), path, OFlag::O_PATH, open::Mounts::Cross);
    let make = || make_path(outer, below, mount.kind, None, find);
    let told = |reason: &str| {
        let reason = format!(
            "cannot be made as a mount point in the mount around it ({reason}): make it there \
             beforehand"
        );
        Problem::refused(mount.target.path(), reason)
    };
    let point = as_user(plan.container_root(), make).map_err(|problem| told(problem.reason()))?;
    let Point::There(point) = point else { return Err(told("it is gone again")) };
    let copy = syscalls::clone_mount(handle.as_fd(), true).at(mount.target.path())?;
    syscalls::attach_mount(copy.as_fd(), point.as_fd()).at(mount.target.path())?;
    Ok(copy)
}

/// Runs an action with a user's rights on files. The capabilities over files go and come back with
/// the user (capabilities(7)).
fn as_user<T>(id: u32, action: impl FnOnce() -> T) -> T {
    let (gid, uid) = (setfsgid(Gid::from_raw(id)), setfsuid(Uid::from_raw(id)));
    let result = action();
    setfsuid(uid);
    setfsgid(gid);
    result
}

/// systemd-nspawn gives up on a path that is not there; what can be seen of that is said before.
fn hide_all(
    plan: &Plan,
    root: &Mounted,
    all: &[Inside],
    extras: &mut Extras,
) -> Result<(), Problem> {
    for target in &plan.files.inaccessible {
        let path = target.path();
        let is_mounted = above(all, |inside| inside.mount.target.path(), path).is_some();
        if !is_mounted && !root::is_nspawns_own(path) {
            let object = format!("inaccessible path {path}");
            let found = open::in_root(root.folder.as_fd(), &path.to_path());
            let Some(found) = open::if_there(found).at(&object)? else {
                let reason = "does not exist in the image: only what exists can be hidden";
                return Err(Problem::refused(object, reason));
            };
            // systemd-nspawn follows the image's links to it.
            let real = root.inside(&found, Path::new("")).at(&object)?;
            Target::new(real.clone()).map_err(|e| led_astray(path, &real, &e))?;
        }
        // This option knows no escapes.
        extras.arguments.push(format!("--inaccessible={path}"));
    }
    Ok(())
}
