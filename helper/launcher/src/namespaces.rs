//! The task's mount namespace, and the user namespace that ID-maps its mounts.
//!
//! Trusts the plan.

use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use proto::plan::Range;

use super::prepared::MountPoint;
use super::stage::OwnPath;
use super::step::{At, Problem};
use kernel::layout::LOCKS;
use kernel::syscalls;

/// Enters a mount namespace of the task's own: mounts of the host still arrive, none leaves.
pub(super) fn enter_mount_namespace() -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWNS).at("mount namespace")?;
    // The copies are peers of the host's mounts, and systemd has made those shared: without this,
    // each mount made here would appear on the host. As slaves they still get the host's.
    let all = OwnPath::constant("/");
    all.set_propagation(MsFlags::MS_SLAVE).at("/ as slave")?;
    // Shared again, with no peer on the host: systemd-nspawn sends mounts to its container that
    // way.
    all.set_propagation(MsFlags::MS_SHARED).at("/ as shared")?;
    let stage = OwnPath::stage();
    stage.make_dirs(0o755)?;
    // In memory and root's alone: credentials lie on it.
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
    stage.mount("tmpfs", flags, "mode=0700,size=4m").at(&stage)
}

/// A descriptor of a user namespace that maps the range.
///
/// Only for ID-mapping mounts: systemd-nspawn makes the payload's own, with the same map.
pub(super) fn user_namespace(range: Range) -> Result<OwnedFd, Problem> {
    let map = format!("0 {} {}\n", range.base, range.width);
    mapping(&map, &map)
}

/// Uid and gid of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { uid: meta.uid(), gid: meta.gid() }
    }
}

/// A descriptor of a user namespace for ID-mapping mounts: what belongs to `disk` on disk belongs
/// to `shown` on the host's side, everything else to nobody.
pub(super) fn owner_namespace(disk: Owner, shown: Owner) -> Result<OwnedFd, Problem> {
    let map = |disk: u32, shown: u32| format!("{disk} {shown} 1\n");
    mapping(&map(disk.uid, shown.uid), &map(disk.gid, shown.gid))
}

/// A descriptor of a user namespace for ID-mapping mounts: two ranges change places, every other id
/// stays as it is on disk. An id without any mapping could not even be written to where the mode
/// allows it to everybody. Only ids of `disk` become ids of `shown`.
pub(super) fn swapping_namespace(disk: Range, shown: Range) -> Result<OwnedFd, Problem> {
    let map = swapping_map(disk.base, shown.base, shown.width).ok_or_else(|| {
        let last = disk.base.saturating_add(disk.width - 1);
        let reason = format!("overlaps {} to {last}, which files of tasks have on disk", disk.base);
        Problem::refused(format!("private_users = {}:{}", shown.base, shown.width), reason)
    })?;
    mapping(&map, &map)
}

/// The text for uid_map and gid_map (user_namespaces(7)); `None` where the ranges overlap.
fn swapping_map(one: u32, other: u32, width: u32) -> Option<String> {
    let (low, high) = (one.min(other), one.max(other));
    if low == high {
        return Some(format!("0 0 {}\n", u32::MAX));
    }
    let (middle, end) = (low.checked_add(width)?, high.checked_add(width)?);
    let between = high.checked_sub(middle)?;
    let extents = [
        (0, 0, low),
        (low, high, width),
        (middle, middle, between),
        (high, low, width),
        // The largest number is no id.
        (end, end, u32::MAX - end),
    ];
    let lines = extents.into_iter().filter(|(_, _, count)| *count > 0);
    Some(lines.map(|(disk, shown, count)| format!("{disk} {shown} {count}\n")).collect())
}

/// Whether a process is in the mount namespace of the host's PID 1.
pub(super) fn is_in_hosts_mount_namespace(pid: u32) -> Result<bool, Problem> {
    let of = |pid| {
        let path = OwnPath::of_process(pid, "ns/mnt");
        path.read_link().at(path)
    };
    Ok(of(pid)? == of(1)?)
}

fn mapping(uids: &str, gids: &str) -> Result<OwnedFd, Problem> {
    let child = syscalls::child_in_user_namespace().at("user namespace")?;
    let result = map_ids(child.cast_unsigned(), uids, gids);
    // The descriptor keeps the namespace; the child is of no use any more. Its end takes a moment,
    // which [`reap`] waits for when everything else is done.
    nix::sys::signal::kill(Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL)
        .at("child in user namespace")?;
    result.at("user namespace")
}

/// Waits for the children that made user namespaces; all have been killed, and there are no others.
pub(super) fn reap() -> Result<(), Problem> {
    loop {
        match waitpid(None, None) {
            Ok(_) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(e) => return Err(e).at("child in user namespace"),
        }
    }
}

fn map_ids(child: u32, uids: &str, gids: &str) -> io::Result<OwnedFd> {
    // By the parent: only who has capabilities in the parent user namespace may map other ids than
    // its own (user_namespaces(7)).
    OwnPath::of_process(child, "uid_map").write(uids)?;
    OwnPath::of_process(child, "gid_map").write(gids)?;
    OwnPath::of_process(child, "ns/user").open(OFlag::O_RDONLY)
}

/// Puts a directory of the task's own in place of systemd-nspawn's runtime directory: nothing in it
/// can be left over. The directory of image locks stays the host's where the image is written to.
pub(super) fn private_runtime(writes_image: bool) -> Result<(), Problem> {
    let locks = OwnPath::constant(LOCKS);
    let shared = if writes_image {
        // Cloned before the tmpfs hides it: a lock works only if all who write to the image see it.
        locks.make_dirs(0o755)?;
        Some(syscalls::clone_mount(locks.open_dir()?.as_fd(), false).at(LOCKS)?)
    } else {
        None
    };
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let runtime = OwnPath::constant("/run/systemd/nspawn");
    // Room for the longest environment, each byte of it spelled as six.
    runtime.mount("tmpfs", flags, "mode=0755,size=16m").at(&runtime)?;
    match shared {
        Some(shared) => locks.attach(shared.as_fd(), MountPoint::Directory),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel makes of an id.
    fn shown(map: &str, id: u32) -> Option<u32> {
        map.lines().find_map(|line| {
            let numbers: Vec<u32> = line.split(' ').map(|text| text.parse().unwrap()).collect();
            let [first, other, count] = numbers[..] else { panic!("{line}") };
            let place = id.checked_sub(first).filter(|place| *place < count)?;
            Some(other + place)
        })
    }

    #[test]
    fn two_ranges_change_places_and_nothing_else_moves() {
        for (disk, task, width) in [(0x7FFC_0000, 524_288, 65_536), (100, 10, 90), (10, 100, 1)] {
            let map = swapping_map(disk, task, width).unwrap();
            for id in [0, width / 2, width - 1] {
                assert_eq!(shown(&map, disk + id), Some(task + id), "{map}");
                assert_eq!(shown(&map, task + id), Some(disk + id), "{map}");
            }
            for id in [0, 1, task - 1, disk - 1, disk + width, 3_000_000_000, u32::MAX - 1] {
                let moves = [disk, task].iter().any(|base| (*base..base + width).contains(&id));
                assert!(moves || shown(&map, id) == Some(id), "{id}: {map}");
            }
            assert_eq!(shown(&map, u32::MAX), None);
        }
        assert_eq!(swapping_map(7, 7, 10).unwrap(), "0 0 4294967295\n");
        assert_eq!(swapping_map(0, 5, 6), None);
        assert_eq!(swapping_map(u32::MAX - 3, 5, 6), None);
    }
}
