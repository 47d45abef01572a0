//! Disk images: a file or block device with one file system and no partition table.
//!
//! systemd-dissect makes the loop device and mounts it in the launcher's mount namespace; the device
//! goes with its last mount, so with the task, however it ends. It gets the opened object as its
//! standard input: no path of the image is walked a second time.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use nix::sys::statvfs::{FsFlags, fstatvfs};
use proto::plan::Plan;

use super::{make_folder, stage};
use crate::task::step::{At, Problem};
use crate::task::{nspawn, open};

/// Where a file system says what it is: offset in bytes and what stands there. Those that
/// systemd-dissect mounts by default, without xfs and vfat.
const MAGICS: [(u64, &[u8]); 4] = [
    (1024 + 56, &[0x53, 0xef]),        // ext4
    (0, b"hsqs"),                      // squashfs
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0]), // erofs
    (64 * 1024 + 64, b"_BHRfS_M"),     // btrfs
];
/// Where a GUID partition table has its signature, by sector size.
const PARTITION_TABLES: [(u64, &[u8]); 2] = [(512, b"EFI PART"), (4096, b"EFI PART")];

/// Mounts the image on the stage and returns its root folder.
pub(super) fn mount(plan: &Plan, object: &OwnedFd) -> Result<OwnedFd, Problem> {
    let file = File::open(format!("/proc/self/fd/{}", object.as_raw_fd())).at(&plan.image)?;
    let holds = |(at, magic): &(u64, &[u8])| {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, *at).is_ok() && found == *magic
    };
    if PARTITION_TABLES.iter().any(holds) || !MAGICS.iter().any(holds) {
        return Err(Problem::refused(
            &plan.image,
            "holds no ext4, squashfs, erofs or btrfs file system of its own: images with a \
             partition table (or with verity) cannot be used yet; copy the root partition into a \
             file",
        ));
    }
    let writes = plan.root.mode.writes_image();
    let folder = stage("disk");
    make_folder(&folder, 0o755)?;
    let binary = nspawn::binary().map(|binary| binary.with_file_name("systemd-dissect"));
    let mut command = Command::new(binary.unwrap_or_else(|| "/usr/bin/systemd-dissect".into()));
    command.arg("--mount");
    if !writes {
        command.arg("--read-only");
    }
    command.arg("/proc/self/fd/0").arg(&folder).env_clear().stdin(Stdio::from(file));
    let output = command.output().at("systemd-dissect")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Problem::refused(&plan.image, format!("systemd-dissect: {}", said.trim())));
    }
    let root = open::folder(&folder).at(&plan.image)?;
    if writes && fstatvfs(root.as_fd()).at(&plan.image)?.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Problem::refused(
            &plan.image,
            "its file system cannot be written: use ephemeral, read_only or volatile",
        ));
    }
    Ok(root)
}
