//! Binds, with the owners that their files have inside.
//!
//! With an ID mapping, what the payload writes belongs to an account of the host. So a writable
//! bind is mapped only where no other local user can make use of a set-uid file in it.

use std::os::fd::{AsFd, OwnedFd};

use nix::mount::MsFlags;
use proto::plan::{Place, Range, Unprotected};
use proto::task_spec::files::{Bind, Mapping};

use super::prepare::Context;
use super::source::Source;
use crate::namespaces::{self, Owner};
use crate::prepared::MountPoint;
use crate::stage::OwnPath;
use crate::step::{At, Problem};
use crate::{open, task_dirs};

/// Owner of the directories that Nomad makes in an allocation.
const NOBODY: u32 = 65_534;

/// Prepares all of them.
pub(super) fn mount_all(context: &mut Context<'_>) -> Result<(), Problem> {
    for (number, bind) in context.plan.files.binds.iter().enumerate() {
        let source = Source::open(&bind.source)?;
        check_links(context, bind, &source)?;
        let users = mapping(context, bind, &source)?;
        let clone = source.clone(bind.read_only, bind.recursive)?;
        if let Some(users) = users
            && !source.map(&clone, &users)?
        {
            unmappable(context, bind)?;
        }
        let at = OwnPath::on_stage(format!("bind{number}"));
        let propagation = if bind.propagated { MsFlags::MS_SLAVE } else { MsFlags::MS_PRIVATE };
        at.attach_with(clone.as_fd(), source.kind, propagation)?;
        context.extras.mount(at, &bind.target, source.kind);
    }
    Ok(())
}

/// A bind in messages.
fn told(bind: &Bind<Place>) -> String {
    format!("bind {} to {}", bind.source, bind.target)
}

/// A file of an allocation with a second name may be one of the host's own: Nomad makes the root of
/// an exec task of hard links.
fn check_links(
    context: &Context<'_>,
    bind: &Bind<Place>,
    source: &Source<'_>,
) -> Result<(), Problem> {
    if is_in_allocation(context, source)
        && source.kind == MountPoint::File
        && !bind.read_only
        && source.links > 1
    {
        let reason = "is a hard link, whose other names may be files of the host: bind it \
                      read-only, or a copy of it";
        return Err(Problem::refused(told(bind), reason));
    }
    Ok(())
}

/// The user namespace that maps a bind; `None`: it is not mapped.
fn mapping(
    context: &mut Context<'_>,
    bind: &Bind<Place>,
    source: &Source<'_>,
) -> Result<Option<OwnedFd>, Problem> {
    let (Some(range), Some(users)) = (context.plan.users, context.users) else { return Ok(None) };
    if bind.mapping == Mapping::None {
        return Ok(None);
    }
    if is_of_the_task(context, bind, source)? {
        return namespaces::swapping_namespace(task_dirs::ON_DISK, range).map(Some);
    }
    let unprotected = context.plan.files.unprotected;
    let as_asked = unprotected == Unprotected::AsAsked && bind.mapping != Mapping::Automatic;
    if !bind.read_only && !as_asked && !source.is_protected(bind.recursive)? {
        if unprotected == Unprotected::Refuse {
            let reason = "a set-uid file that the task leaves there would work for every local \
                          user of the host: make the bind read-only, chmod 0700 a directory of \
                          root's above it, mount it nosuid, or take it without ID mapping \
                          (noidmap); the policy file would give it so with unprotected = \
                          \"unmapped\" in [binds]";
            return Err(Problem::refused(told(bind), reason));
        }
        context.extras.notes.push(format!(
            "bind {}: given without ID mapping, its owners show as nobody, because no directory \
             above it is closed (root's, 0700) and its mount is not nosuid",
            bind.source
        ));
        return Ok(None);
    }
    let root = Owner { uid: range.base, gid: range.base };
    match bind.mapping {
        Mapping::Root => namespaces::owner_namespace(source.owner, root).map(Some),
        Mapping::Owner => {
            namespaces::owner_namespace(source.owner, target_owner(bind, range)?).map(Some)
        }
        Mapping::None | Mapping::Automatic | Mapping::Identity => {
            users.try_clone_to_owned().map(Some).at("user namespace")
        }
    }
}

/// Whether the source lies in the allocation, and its files have the owners that files of tasks
/// have where other local users can reach them ([`task_dirs`]). A read-only bind of what somebody
/// else has written, such as a template with mode 0600, shows the owners on disk instead: it can be
/// read so, and nothing can be left there.
fn is_of_the_task(
    context: &Context<'_>,
    bind: &Bind<Place>,
    source: &Source<'_>,
) -> Result<bool, Problem> {
    if !is_in_allocation(context, source) || bind.mapping != Mapping::Automatic {
        return Ok(false);
    }
    // Directories that Nomad makes for tasks hold what tasks write.
    let is_tasks = task_dirs::ON_DISK.holds(source.owner.uid) || source.owner.uid == NOBODY;
    Ok((!bind.read_only || is_tasks) && !source.is_protected(bind.recursive)?)
}

fn is_in_allocation(context: &Context<'_>, source: &Source<'_>) -> bool {
    let (place, alloc) = (source.place, &context.plan.task_dirs.alloc_dir);
    place.root == alloc.root && place.below.components().starts_with(alloc.below.components())
}

/// The owner of a bind's target, as the host sees it; container root where there is none yet.
fn target_owner(bind: &Bind<Place>, range: Range) -> Result<Owner, Problem> {
    let root = OwnPath::root().open_dir()?;
    let target = open::in_root(root.as_fd(), &bind.target.path().to_path());
    let Some(target) = open::if_there(target).at(&bind.target)? else {
        return Ok(Owner { uid: range.base, gid: range.base });
    };
    let owner = Owner::of(&open::metadata(&target).at(&bind.target)?);
    if range.holds(owner.uid) && range.holds(owner.gid) {
        return Ok(owner);
    }
    let reason = "the target's owner in the image is outside of the container's ids: use idmap or \
                  rootidmap";
    Err(Problem::refused(told(bind), reason))
}

/// Without its mapping a bind that can be written to is refused: all writes would fail. So is one
/// with a mapping that was asked for.
fn unmappable(context: &mut Context<'_>, bind: &Bind<Place>) -> Result<(), Problem> {
    if bind.mapping != Mapping::Automatic || !bind.read_only {
        let reason = "this kernel cannot ID-map its file system, or one mounted below it (tmpfs \
                      needs Linux 6.3; NFS, CIFS, 9p, ramfs and overlay cannot be mapped): make it \
                      read-only, or take it without ID mapping (bind_idmap = \"none\", or noidmap \
                      for one bind), where the task can write only what everybody may write";
        return Err(Problem::refused(told(bind), reason));
    }
    context.extras.notes.push(format!(
        "bind {}: this kernel cannot ID-map its file system, or one mounted below it: its owners \
         show as nobody",
        bind.source
    ));
    Ok(())
}
