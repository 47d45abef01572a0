//! Disk images: a file or block device with one file system and no partition table.
//!
//! The kernel mounts it, of the type that its magic number says, in the launcher's mount namespace;
//! a file by a loop device that goes with its last user, so with the task, however it ends. No
//! program reads the image, and no path of it is walked a second time. Nothing in it is trusted: what
//! it says of itself chooses a kernel driver among four, no more.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use proto::plan::Plan;

use super::loops;
use crate::open;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// A file system that an image may hold: the kernel's name for it; where it says what it is, in
/// bytes, and what stands there; mount options; those where nothing may be written, not even a
/// journal's replay.
type FileSystem = (&'static str, u64, &'static [u8], &'static str, &'static str);

/// Those that systemd-nspawn takes by default, without xfs and vfat. The shortest magic number comes
/// last: the others may have those bytes by chance. An ext4 may ask for a panic of the host where it
/// is damaged: not with these options.
const FILE_SYSTEMS: [FileSystem; 4] = [
    ("squashfs", 0, b"hsqs", "", ""),
    ("erofs", 1024, &[0xe2, 0xe1, 0xf5, 0xe0], "", ""),
    ("btrfs", 64 * 1024 + 64, b"_BHRfS_M", "", "rescue=nologreplay"),
    ("ext4", 1024 + 56, &[0x53, 0xef], "errors=remount-ro", "errors=remount-ro,noload"),
];
/// Where a GUID partition table has its signature, by sector size.
const PARTITION_TABLES: [(u64, &[u8]); 2] = [(512, b"EFI PART"), (4096, b"EFI PART")];
/// Where ext4 has its state, and what stands there when no check is due.
const EXT4_CLEAN: (u64, &[u8]) = (1024 + 58, &[1, 0]);

/// Mounts the image on the stage and returns its root directory.
pub(super) fn mount(plan: &Plan, object: &OwnedFd) -> Result<OwnedFd, Problem> {
    let image = &plan.image;
    let writes = plan.root.mode.writes_image();
    let is_device = !open::metadata(object).at(image)?.is_file();
    let access = if writes && !is_device { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let file = File::from(OwnPath::of_handle(object).open(access).at(image)?);
    let holds = |at: u64, magic: &[u8]| {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, at).is_ok() && found == *magic
    };
    let kind = FILE_SYSTEMS.iter().find(|(_, at, magic, ..)| holds(*at, magic));
    let Some((name, .., options, read_only)) =
        kind.filter(|_| !PARTITION_TABLES.iter().any(|(at, it)| holds(*at, it)))
    else {
        let reason = "holds no ext4, squashfs, erofs or btrfs file system of its own: images with \
                      a partition table (or with verity) cannot be used yet; copy the root \
                      partition into a file";
        return Err(Problem::refused(image, reason));
    };
    if writes && *name == "ext4" && !holds(EXT4_CLEAN.0, EXT4_CLEAN.1) {
        let reason = "its ext4 file system has errors or was not unmounted, and has no journal to \
                      mend that: run e2fsck -f on it, or use ephemeral, read_only or volatile";
        return Err(Problem::refused(image, reason));
    }
    // A loop device keeps its file while it is open or mounted: `_open` lasts until it is mounted.
    let (device, _open) = if is_device {
        (OwnPath::of_handle(object), None)
    } else {
        let (device, open) = loops::attach(&file)?;
        (device, Some(open))
    };
    let at = OwnPath::on_stage("disk");
    at.make_dir(0o755)?;
    // nodev: the device nodes of an image are nobody's. Its set-uid programs work as in a tree.
    let (flags, options) = match writes {
        true => (MsFlags::MS_NODEV, options),
        false => (MsFlags::MS_NODEV | MsFlags::MS_RDONLY, read_only),
    };
    match at.mount_device(&device, name, flags, options) {
        Err(e @ (Errno::EINVAL | Errno::EUCLEAN | Errno::EBADMSG | Errno::EIO | Errno::ENODEV)) => {
            let reason = format!(
                "the kernel does not mount its {name} file system ({e}): it is damaged, or has \
                 features that this kernel has not; the kernel's log says which"
            );
            return Err(Problem::refused(image, reason));
        }
        other => other.at(image)?,
    }
    let root = at.open_dir()?;
    if writes && fstatvfs(root.as_fd()).at(image)?.flags().contains(FsFlags::ST_RDONLY) {
        let reason = "its file system cannot be written: use ephemeral, read_only or volatile";
        return Err(Problem::refused(image, reason));
    }
    Ok(root)
}
