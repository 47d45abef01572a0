//! The images the rig's jobs use: a busybox tree of about 2 MB and a Debian tree that boots.
//!
//! For [`crate::host`], which puts them below /var/lib/machines of an instance. It trusts the cached
//! root file system it takes busybox from. It never makes an image that depends on the outer machine.

use crate::{cache, outer, rootfs, rootfs::Suite};
use anyhow::{Context as _, Result};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raised when the busybox tree changes.
const RECIPE: &str = "1";

/// The cached busybox tree: merged /usr, every applet a link, accounts root and app (1000).
///
/// # Errors
/// When the root file system or the tree cannot be made.
pub fn busybox(suite: Suite) -> Result<PathBuf> {
    let root = rootfs::host(suite)?;
    let source = root.join("usr/bin/busybox");
    cache::entry(&format!("busybox-{}", suite.name()), &[RECIPE, suite.name()], |dir| {
        fill_busybox(&source, dir)
    })
}

/// The cached tree of the Debian image (about 255 MB).
///
/// # Errors
/// When debootstrap fails.
pub fn debian(suite: Suite) -> Result<PathBuf> {
    rootfs::debian_image(suite)
}

fn fill_busybox(source: &Path, dir: &Path) -> Result<()> {
    for sub in [
        "usr/bin", "usr/lib", "etc", "proc", "sys", "dev", "run", "var/tmp", "var/log", "var/lib",
        "root", "home/app", "tmp", "mnt", "srv", "opt",
    ] {
        fs::create_dir_all(dir.join(sub))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib"),
        ("usr/sbin", "bin"),
        ("var/run", "../run"),
    ] {
        symlink(target, dir.join(link))?;
    }
    for (sub, mode) in [("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700)] {
        fs::set_permissions(dir.join(sub), fs::Permissions::from_mode(mode))?;
    }
    std::os::unix::fs::chown(dir.join("home/app"), Some(1000), Some(1000))?;
    let busybox = dir.join("usr/bin/busybox");
    fs::copy(source, &busybox).with_context(|| format!("copy {}", source.display()))?;
    for applet in outer::run(Command::new(&busybox).arg("--list"))?.lines() {
        if applet != "busybox" {
            symlink("busybox", dir.join("usr/bin").join(applet))?;
        }
    }
    for (file, text) in FILES {
        fs::write(dir.join(file), text)?;
    }
    symlink("../usr/lib/os-release", dir.join("etc/os-release"))?;
    Ok(())
}

const FILES: [(&str, &str); 4] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n"),
    ("etc/group", "root:x:0:\napp:x:1000:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("usr/lib/os-release", "ID=busybox\nNAME=busybox\nPRETTY_NAME=\"busybox test image\"\n"),
];
