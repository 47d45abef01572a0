//! Takes a task's upper layer, or the lock of the image that it wrote to, away after its unit has
//! ended (ExecStopPost=), and layers that were kept for an allocation that is gone. Before, it keeps what
//! the kernel has counted of the task's memory.
//!
//! Ends with status 0 whatever happens: another status would turn the payload's exit 0 into a
//! failed unit. The daemon looks at the directory afterwards and asks again when it is still there.
//!
//! The tree was made by the payload: it may be as deep as it likes, so there is no recursion and
//! never more than three open directories. A directory that is not empty is first moved up to the
//! top.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};
use proto::step::Step;
use proto::unit_id::UnitId;

use super::ended;
use super::open::{self, if_there};
use super::stage::OwnPath;
use kernel::layout::upper;
use kernel::{hook, kept_layers, syscalls};

/// Runs `clean UNIT`.
pub(super) fn main(unit: &str) -> ExitCode {
    hook::run(Step::Clean, || {
        let Some(unit) = UnitId::parse(unit) else { return eprintln!("clean: not a unit id") };
        let claim_orphans = |unit| kept_layers::claim_orphans(&upper(unit));
        for step in [ended::keep, remove_locks, claim_orphans, remove_tree] {
            if let Err(error) = step(unit) {
                eprintln!("clean: {}: {error}", upper(unit).display());
            }
        }
    });
    ExitCode::SUCCESS
}

/// Removes the lock files that the launcher has named in the directory, unless somebody holds them.
/// Only root can make names here: the payload's begin one directory further down.
fn remove_locks(unit: UnitId) -> io::Result<()> {
    let Some(top) = if_there(OwnPath::of_unit(unit).open(open::HANDLE))? else { return Ok(()) };
    for name in names(&top, Path::new("."))? {
        let path = OwnPath::image_lock(Path::new(&name));
        let Some(file) = if_there(path.open(OFlag::O_RDWR))? else { continue };
        let file = File::from(file);
        match syscalls::lock_whole(&file) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
            // Else it is gone already, and the name another's.
            Ok(()) if file.metadata()?.nlink() > 0 => path.remove_file()?,
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Removes the unit's directory and everything in it; a missing one is fine.
fn remove_tree(unit: UnitId) -> io::Result<()> {
    let own = OwnPath::of_unit(unit);
    let Some(top) = if_there(own.open(open::HANDLE))? else { return Ok(()) };
    remove_content(&top)?;
    own.remove_dir()
}

fn remove_content(top: &OwnedFd) -> io::Result<()> {
    let mut moved = 0_u64;
    // Each round empties the directories that lie at the top; their own subdirectories have been
    // moved there and are the next round's.
    loop {
        let names = names(top, Path::new("."))?;
        if names.is_empty() {
            return Ok(());
        }
        for name in &names {
            let name = Path::new(name);
            match remove_entry(top, name) {
                Err(e) if is_not_empty(&e) => empty_directory(top, name, &mut moved)?,
                other => other?,
            }
        }
    }
}

fn empty_directory(top: &OwnedFd, name: &Path, moved: &mut u64) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory = openat(top, name, flags, Mode::empty())?;
    loop {
        let entries = names(top, name)?;
        if entries.is_empty() {
            return Ok(unlinkat(top, name, UnlinkatFlags::RemoveDir)?);
        }
        for entry in &entries {
            match remove_entry(&directory, Path::new(entry)) {
                Err(e) if is_not_empty(&e) => move_up(&directory, Path::new(entry), top, moved)?,
                other => other?,
            }
        }
    }
}

/// Moves a directory to the top, beside what an interrupted clean-up may have left there.
fn move_up(directory: &OwnedFd, name: &Path, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let to = format!(".moved-{moved}");
        match renameat2(directory, name, top, to.as_str(), RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            other => return Ok(other?),
        }
    }
}

/// Unlinks a file or an empty directory.
fn remove_entry(directory: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {
            Ok(unlinkat(directory, name, UnlinkatFlags::RemoveDir)?)
        }
        other => Ok(other?),
    }
}

fn is_not_empty(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST))
}

/// Names read at once: a directory may hold any number.
const NAMES: usize = 4096;

/// The first names in a directory, without `.` and `..`; none when it is empty.
fn names(top: &OwnedFd, directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let handle = openat(top.as_fd(), directory, flags, Mode::empty())?;
    fchmod(&handle, Mode::S_IRWXU)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(handle)?.iter() {
        if names.len() == NAMES {
            break;
        }
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(std::ffi::OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "directories of the test's own")]

    use super::*;
    use std::fs;

    /// Deeper than the number of descriptors and than any stack would take.
    #[test]
    fn a_deep_tree_goes_without_recursion() {
        let top = std::env::temp_dir().join(format!("nspawn-clean-{}", std::process::id()));
        fs::create_dir(&top).unwrap();
        let mut directory = open::directory(&top).unwrap();
        for depth in 0..5_000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            if depth % 100 == 0 {
                let link = format!("l{depth}");
                nix::unistd::symlinkat("/etc", &directory, link.as_str()).unwrap();
            }
            directory =
                openat(&directory, "d", open::HANDLE | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        }
        // What a clean-up that was killed has left at the top.
        fs::create_dir_all(top.join(".moved-1/d/d")).unwrap();
        fs::create_dir_all(top.join(".moved-3/d/d")).unwrap();
        for number in 0..NAMES + 10 {
            fs::write(top.join(format!(".moved-1/f{number}")), "").unwrap();
        }
        let handle = open::directory(&top).unwrap();
        remove_content(&handle).unwrap();
        assert!(fs::read_dir(&top).unwrap().next().is_none() && Path::new("/etc").exists());
        remove_content(&handle).unwrap();
        fs::remove_dir(&top).unwrap();
    }
}
