//! Disk images for tests: one file system in a file, made on the outer machine, and loop devices in
//! an instance.
//!
//! For tests of roots that are disk images. It trusts the mkfs programs of Debian, which it
//! installs when they are missing.

use crate::{Rig, cache, images, outer};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// File systems that an image may hold.
pub const FILE_SYSTEMS: [&str; 4] = ["ext4", "squashfs", "erofs", "btrfs"];
/// Loop devices are the machine's, not the instance's: others may use the first ones.
const LOOP_NODES: u32 = 64;

/// Programs and the Debian packages that hold them.
const TOOLS: [(&str, &str); 4] = [
    ("mkfs.ext4", "e2fsprogs"),
    ("mksquashfs", "squashfs-tools"),
    ("mkfs.erofs", "erofs-utils"),
    ("mkfs.btrfs", "btrfs-progs"),
];

/// A cached image with the tree of a directory in this file system; `name` stands for the tree.
///
/// # Errors
/// When a program cannot be installed or fails.
pub fn image(kind: &str, name: &str, tree: &Path) -> Result<PathBuf> {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| outer::find(tool).is_none()).map(|(_, it)| *it).collect();
    outer::install(&missing)?;
    let from = tree.display().to_string();
    cache::entry(&format!("disk-{name}-{kind}"), &[kind, &from], |file| {
        let sized = |size: u64| -> Result<()> { Ok(fs::File::create(file)?.set_len(size << 20)?) };
        let size = size_mib(tree)?;
        let mut command = match kind {
            "ext4" => {
                sized(size * 3 / 2 + 32)?;
                let mut command = Command::new("mkfs.ext4");
                command.args(["-q", "-d", &from]).arg(file);
                command
            }
            "squashfs" => {
                let mut command = Command::new("mksquashfs");
                command.arg(tree).arg(file).args(["-quiet", "-no-progress"]);
                command
            }
            "erofs" => {
                let mut command = Command::new("mkfs.erofs");
                command.arg("--quiet").arg(file).arg(tree);
                command
            }
            "btrfs" => {
                sized(size * 3 / 2 + 128)?;
                let mut command = Command::new("mkfs.btrfs");
                command.args(["-q", "--rootdir", &from]).arg(file);
                command
            }
            other => bail!("no recipe for {other}"),
        };
        outer::run(&mut command).map(drop)
    })
}

fn size_mib(tree: &Path) -> Result<u64> {
    let text = outer::run(Command::new("du").arg("-smD").arg(tree))?;
    let size = text.split_whitespace().next().context("du says nothing")?;
    Ok(size.parse()?)
}

impl Rig {
    /// Makes the nodes of loop devices, which an instance has none of.
    ///
    /// # Errors
    /// When a node cannot be made.
    pub fn add_loop_nodes(&self) -> Result<()> {
        self.add_loop_nodes_up_to(LOOP_NODES)
    }

    /// The same, so many: an image of many layers needs one for each.
    ///
    /// # Errors
    /// When mknod fails.
    pub fn add_loop_nodes_up_to(&self, count: u32) -> Result<()> {
        self.sh(&format!(
            "[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237; \
             for n in $(seq 0 {}); do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done",
            count - 1
        ))
        .map(drop)
    }

    /// Puts a disk image into the image store as `NAME.raw`.
    ///
    /// # Errors
    /// When it cannot be made or copied.
    pub fn add_disk(&self, kind: &str, name: &str) -> Result<String> {
        let tree = images::busybox(self.suite())?;
        let path = format!("/var/lib/machines/{name}.raw");
        let of = format!("busybox-{}", self.suite().name());
        self.copy_in(&image(kind, &of, &tree)?, &path, 0o600)?;
        Ok(path)
    }
}
