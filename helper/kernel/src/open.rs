//! Opening files of an image or an allocation: beneath a root, without following any link.
//!
//! `openat2` is required; there is no fallback, because every fallback loses a race against a
//! payload that swaps links.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use proto::plan::Place;

/// Whether the walk may cross into another mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// Only the mount that the walk begins in.
    Stay,
    /// Mounts on the way are taken along.
    Cross,
}

/// A directory handle that can be walked from and cloned, not read.
pub const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// Opens `path` beneath `root`.
pub fn beneath(
    root: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mounts: Mounts,
) -> io::Result<OwnedFd> {
    let mut resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    if mounts == Mounts::Stay {
        resolve |= ResolveFlag::RESOLVE_NO_XDEV;
    }
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).resolve(resolve);
    Ok(openat2(root, path, how)?)
}

/// Opens `path` with `root` as the root of the walk: links and `..` stay beneath it.
pub fn in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let mut tries = TRIES;
    loop {
        tries -= 1;
        match openat2(root, path, how) {
            // Something was renamed or mounted, anywhere, while the walk went up by a `..`.
            Err(Errno::EAGAIN) if tries > 0 => {}
            other => return Ok(other?),
        }
    }
}

/// Walks that are begun again before one counts as disturbed on purpose.
const TRIES: u32 = 1000;

/// Opens a directory that the operator named; its own path may hold links.
pub fn directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, HANDLE | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// What may be missing.
pub fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Makes a file that is root's alone and was not there.
pub fn create(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// What the kernel says of the object of a handle.
pub fn metadata(handle: &OwnedFd) -> io::Result<fs::Metadata> {
    fs::File::from(handle.try_clone()?).metadata()
}

/// A path that names the object of a handle itself, whatever lies at its own path now.
pub fn link(handle: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", handle.as_raw_fd()).into()
}

/// All of a file, which must not be longer than this.
pub fn read_all(file: impl Read, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() > most {
        return Err(io::Error::other(format!("is longer than {most} bytes")));
    }
    Ok(content)
}

/// Opens a place: the policy's directory, then the rest beneath it.
pub fn place(place: &Place, flags: OFlag) -> io::Result<OwnedFd> {
    let root = directory(&place.root.to_path())?;
    beneath(root.as_fd(), &place.below.to_path(), flags, Mounts::Cross)
}

/// Whether no other local user can make use of a set-uid file below this object: its mount is
/// nosuid or noexec, or one of the directories above it is root's and closed to all others.
///
/// Judged by the path that the kernel has for the descriptor: the spelled one may lead over links.
pub fn is_protected(object: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(is_harmless(object)? || is_closed(&path_of(object)?)?)
}

/// The same for a directory together with everything that is mounted below it.
pub fn is_tree_protected(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let path = path_of(directory)?;
    if is_closed(&path)? {
        return Ok(true);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(is_harmless(directory)? && are_harmless_below(&path, &mounts))
}

/// [`is_protected`] for the directory at a path.
///
/// # Errors
/// It cannot be opened.
pub fn is_directory_protected(path: &Path) -> io::Result<bool> {
    is_protected(directory(path)?.as_fd())
}

fn path_of(object: BorrowedFd<'_>) -> io::Result<PathBuf> {
    fs::read_link(link(object))
}

fn is_harmless(object: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(fstatvfs(object)?.flags().intersects(FsFlags::ST_NOSUID | FsFlags::ST_NOEXEC))
}

/// Without links: who may write in a directory on the way could lead the walk to a closed one.
fn is_closed(path: &Path) -> io::Result<bool> {
    let root = directory(Path::new("/"))?;
    for parent in path.ancestors().skip(1) {
        let below = parent.strip_prefix("/").unwrap_or(parent);
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        let parent = metadata(&beneath(root.as_fd(), below, HANDLE, Mounts::Cross)?)?;
        if parent.is_dir() && parent.uid() == 0 && parent.mode() & 0o077 == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether all mounts below a path are nosuid or noexec, by the text of /proc/self/mountinfo
/// (proc_pid_mountinfo(5)): the fifth field is the mount point, the sixth its options.
fn are_harmless_below(path: &Path, mounts: &str) -> bool {
    let mut below = path.to_string_lossy().replace('\\', "\\134");
    for (plain, escaped) in [(" ", "\\040"), ("\t", "\\011"), ("\n", "\\012")] {
        below = below.replace(plain, escaped);
    }
    let below = format!("{}/", below.trim_end_matches('/'));
    mounts.lines().all(|line| {
        let mut fields = line.split(' ').skip(4);
        let (Some(point), Some(options)) = (fields.next(), fields.next()) else { return false };
        !point.starts_with(&below)
            || options.split(',').any(|option| matches!(option, "nosuid" | "noexec"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_directory_are_judged_by_their_options() {
        let line = |point: &str, options: &str| {
            format!("36 35 98:0 / {point} {options} master:1 - ext4 /dev/root rw,nosuid\n")
        };
        let ok = |path: &str, mounts: &str| are_harmless_below(Path::new(path), mounts);
        let all = line("/", "rw") + &line("/srv/a", "rw,nosuid") + &line("/srv/ab", "rw,relatime");
        assert!(ok("/srv/a", &all) && ok("/srv/ab", &all));
        assert!(!ok("/srv", &all) && !ok("/", &all));
        let odd = line("/srv/a\\040b\\134c/d", "rw") + &line("/srv/e/f", "ro,noexec");
        assert!(!ok("/srv/a b\\c", &odd) && ok("/srv/a", &odd) && ok("/srv/e", &odd));
        assert!(!ok("/srv", "torn"));
    }

    /// /proc/self leads to a directory of the process, /proc/1 is one.
    #[test]
    fn no_link_leads_to_a_closed_directory() {
        assert!(!is_closed(Path::new("/proc/1/x")).unwrap());
        assert_eq!(
            is_closed(Path::new("/proc/self/task/x")).unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
    }
}
