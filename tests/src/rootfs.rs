//! Root file systems of the test host, made by debootstrap and cached.
//!
//! For [`crate::host`] (the rig's own root) and [`crate::images`] (the Debian image). It trusts
//! Debian's signed archive. A cached tree is never changed after it was made: instances use it as the
//! lower layer of an overlay.

use crate::{cache, outer};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

/// Raised when the steps of this file change in a way its other inputs do not show.
const RECIPE: &str = "1";
/// The same for the Debian image.
const IMAGE_RECIPE: &str = "3";

/// Debian release of a rig.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suite {
    /// Debian 13, systemd 257.
    #[default]
    Trixie,
    /// Debian 12, systemd 252.
    Bookworm,
}

impl Suite {
    /// Debian's name of the release.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Bookworm => "bookworm",
        }
    }

    /// The suite named by `RIG_SUITE`, else the default. Tests use it, so that one variable turns the
    /// whole test run to the other column of the matrix.
    ///
    /// # Errors
    /// When the variable names no known suite.
    pub fn from_env() -> Result<Self> {
        std::env::var("RIG_SUITE").map_or(Ok(Self::default()), |name| name.parse())
    }
}

impl FromStr for Suite {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "trixie" => Ok(Self::Trixie),
            "bookworm" => Ok(Self::Bookworm),
            _ => bail!("unknown suite {name:?}: trixie or bookworm"),
        }
    }
}

/// Packages of the rig's own root. iptables is for the CNI plugins bridge, portmap and firewall;
/// libpam-systemd provides the logind that polkitd depends on, which debootstrap does not find by
/// itself; libcap2-bin and strace are for tests and people.
const HOST: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-container",
    "dbus",
    "polkitd",
    "libpam-systemd",
    "iproute2",
    "nftables",
    "procps",
    "curl",
    "ca-certificates",
    "busybox-static",
    "containernetworking-plugins",
    "iptables",
    "libcap2-bin",
    "strace",
];

/// What a host with other firewalls has in addition: see [`host_with_firewalls`].
const FIREWALLS: &[&str] = &["docker.io", "firewalld", "ufw"];

/// Their units; nothing of them may run before a test starts it.
const FIREWALL_UNITS: &[&str] =
    &["docker.service", "docker.socket", "containerd.service", "firewalld.service", "ufw.service"];

/// Packages of the booting Debian image.
const IMAGE: &[&str] = &["systemd", "systemd-sysv", "dbus", "iproute2", "procps"];

/// Units that fail in a container or only slow the boot.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-networkd-wait-online.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service",
];

/// Ordinary accounts of the rig: name, uid. Tests use them as "another local user".
pub const USERS: [(&str, u32); 2] = [("alice", 1000), ("mallory", 1001)];

/// The cached root file system of the rig itself.
///
/// # Errors
/// When debootstrap or the set-up fails.
pub fn host(suite: Suite) -> Result<PathBuf> {
    host_with(suite, "rootfs", &[], |_| Ok(()))
}

/// The same with Docker, firewalld and ufw installed, none of which starts by itself.
///
/// # Errors
/// When debootstrap or the set-up fails.
pub fn host_with_firewalls(suite: Suite) -> Result<PathBuf> {
    host_with(suite, "firewalls", FIREWALLS, |dir| {
        let mut disable = Command::new("chroot");
        disable.arg(dir).args(["systemctl", "disable"]).args(FIREWALL_UNITS);
        outer::run(&mut disable).map(drop)
    })
}

fn host_with(
    suite: Suite,
    kind: &str,
    more: &[&str],
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    outer::ensure_tools()?;
    let list = [HOST, more].concat().join(",");
    let users = format!("{USERS:?}");
    let inputs = [RECIPE, suite.name(), &list, &users];
    cache::entry(&format!("{kind}-{}", suite.name()), &inputs, |dir| {
        debootstrap(suite, &list, dir)?;
        finish_host(dir)?;
        finish(dir)
    })
}

/// Programs that judge a package, of the suite they come from.
const JUDGES: &str = "lintian,man-db";

/// A cached tree with lintian and man, to be entered by chroot(2).
///
/// # Errors
/// When debootstrap or apt fails.
pub fn with_lintian(suite: Suite) -> Result<PathBuf> {
    outer::ensure_tools()?;
    cache::entry(&format!("lintian-{}", suite.name()), &["1", suite.name(), JUDGES], |dir| {
        debootstrap(suite, "ca-certificates", dir)?;
        // By apt, because debootstrap does not find packages that others provide (perlapi).
        for words in ["update", "install --yes --no-install-recommends", "clean"] {
            let mut command = Command::new("chroot");
            command.arg(dir).arg("apt-get").args(words.split(' '));
            if words.starts_with("install") {
                command.args(JUDGES.split(','));
            }
            command.env("DEBIAN_FRONTEND", "noninteractive");
            outer::run_long(
                &format!("apt-get {words} ({})", suite.name()),
                "1 minute",
                &mut command,
            )?;
        }
        drop_archives(dir)
    })
}

/// The cached tree of the booting Debian image.
///
/// # Errors
/// When debootstrap fails.
pub fn debian_image(suite: Suite) -> Result<PathBuf> {
    outer::ensure_tools()?;
    let list = IMAGE.join(",");
    cache::entry(&format!("debian-{}", suite.name()), &[IMAGE_RECIPE, suite.name(), &list], |dir| {
        debootstrap(suite, &list, dir)?;
        // The outer machine's name would be the container's. Package archives and lists stay: the
        // image shall be a large one.
        cache::remove(&dir.join("etc/hostname"))
    })
}

fn debootstrap(suite: Suite, packages: &str, dir: &Path) -> Result<()> {
    let archives = cache::root()?.join(format!("debs-{}", suite.name()));
    fs::create_dir_all(&archives)?;
    // A mount namespace of its own: what debootstrap mounts in the tree is gone when it is killed,
    // so that removing a half made tree cannot follow into it.
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "debootstrap", "--variant=minbase"])
        .arg(format!("--include={packages}"))
        .arg(format!("--cache-dir={}", archives.display()))
        .arg(suite.name())
        .arg(dir)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env_remove("TMPDIR");
    if let Some(mirror) = std::env::var_os("RIG_DEBIAN_MIRROR") {
        command.arg(mirror);
    }
    outer::run_long(&format!("debootstrap {}", dir_name(dir)), "80 s", &mut command)
}

fn dir_name(dir: &Path) -> String {
    dir.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn drop_archives(root: &Path) -> Result<()> {
    for dir in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        cache::remove(&root.join(dir))?;
        fs::create_dir_all(root.join(dir))?;
    }
    Ok(())
}

fn finish_host(root: &Path) -> Result<()> {
    drop_archives(root)?;
    // Each instance gets a machine id of its own.
    cache::remove(&root.join("etc/machine-id"))?;
    cache::remove(&root.join("var/lib/dbus/machine-id"))?;
    for (name, uid) in USERS {
        outer::run(Command::new("chroot").arg(root).args([
            "useradd",
            "--create-home",
            "--shell",
            "/bin/bash",
            "--uid",
            &uid.to_string(),
            name,
        ]))?;
    }
    for dir in ["var/lib/machines", "var/lib/nomad", "var/lib/nomad-nspawn", "opt/nomad"] {
        fs::create_dir_all(root.join(dir))?;
    }
    for dir in ["var/lib/machines", "var/lib/nomad", "var/lib/nomad-nspawn"] {
        fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Files that every instance gets on top of the cached tree: cheap to write, so that a change here
/// does not cost a new debootstrap.
pub(crate) fn dress(root: &Path) -> Result<()> {
    for unit in MASKED {
        let link = root.join("etc/systemd/system").join(unit);
        cache::remove(&link)?;
        symlink("/dev/null", &link).with_context(|| format!("mask {unit}"))?;
    }
    write(root, "etc/systemd/journald.conf.d/rig.conf", JOURNALD)?;
    write(root, "etc/resolv.conf", "# The rig reaches no name server.\n")?;
    write(root, "etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
    Ok(())
}

/// The journal is read after failures: keep all of it, in memory.
const JOURNALD: &str = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRuntimeMaxUse=512M\n";

fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let file = root.join(path);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    cache::remove(&file)?;
    fs::write(&file, text).with_context(|| format!("write {}", file.display()))
}
