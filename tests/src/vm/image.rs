//! The disks of a virtual machine: kernel and root file system, made once; and what each run brings.
//!
//! For [`super::supervisor`]. The root is the container host's own tree with the suite's cloud
//! kernel's modules, the images and Nomad; it is made by mkfs.ext4 from a directory, so nothing is
//! mounted. The kernel package is unpacked and never installed: its scripts would want an
//! initramfs and a boot loader. A cached disk is only read: machines write to a layer of their own.

use super::guest;
use crate::{Suite, cache, images, outer, product, rootfs};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Raised when the steps of this file change in a way that its other inputs do not show.
const RECIPE: &str = "2";
/// Where the brought files are inside.
pub const BROUGHT: &str = "/opt/rig";
/// Address of the machine on a link that leads nowhere; Nomad wants one.
pub const ADDRESS: &str = "10.213.255.2";

/// Units that need what is not there or only slow the boot: 40 % of it, emulated. Tests that need
/// udev (partitioned images) must start it.
const MASKED: &[&str] = &[
    "dev-hugepages.mount",
    "modprobe@configfs.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-journal-flush.service",
    "systemd-logind.service",
    "systemd-pcrphase.service",
    "systemd-random-seed.service",
    "systemd-udev-load-credentials.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
];

/// Fetches the kernel package of the suite and what loads its modules; in a chroot, because the
/// outer machine may be of another suite.
const FETCH: &str = "set -e
apt-get -qq update
apt-get -qq install --yes --no-install-recommends kmod
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | grep -m 1 -- -cloud-amd64)
cd /tmp
apt-get -qq download \"$kernel\"
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb";

/// The agent comes with the run, so that it is never older than its client.
fn unit() -> String {
    format!(
        "\
[Unit]
Description=Agent of the test host
After=dbus.service

[Service]
ExecStartPre=/bin/sh -c 'modprobe -a virtio_pci virtio_blk virtio_console dummy'
ExecStartPre=/bin/sh -c '[ -e /sys/class/net/host0 ] || ip link add host0 type dummy; \
ip address replace {ADDRESS}/24 dev host0; ip link set host0 up'
ExecStartPre=/bin/sh -c 'mkdir -p {BROUGHT}; [ -e {BROUGHT}/bin/rig ] || tar xf /dev/vda -C {BROUGHT}'
ExecStart={BROUGHT}/bin/rig guest
KillMode=process
OOMScoreAdjust=-1000
TasksMax=infinity
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"
    )
}

/// Kernel and root disk of a suite.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Image {
    /// The kernel, as qemu loads it.
    pub kernel: PathBuf,
    /// The root disk, raw, never to be written to.
    pub disk: PathBuf,
}

/// The cached image; made when missing.
///
/// # Errors
/// When a part cannot be fetched or made.
pub fn image(suite: Suite) -> Result<Image> {
    let (root, nomad) = (rootfs::host(suite)?, crate::nomad::binary()?);
    let (busybox, debian) = (images::busybox(suite)?, images::debian(suite)?);
    let age = fs::metadata(&nomad).with_context(|| format!("{}", nomad.display()))?.mtime();
    let parts = format!("{root:?} {busybox:?} {debian:?} {nomad:?} {age}");
    let masked = format!("{MASKED:?}");
    let inputs = [RECIPE, suite.name(), &parts, &masked, FETCH, &unit()];
    let dir = cache::entry(&format!("vm-{}", suite.name()), &inputs, |dir| {
        fs::create_dir(dir)?;
        let tree = dir.join("tree");
        outer::say(&format!("making the virtual machine's disk for {}", suite.name()));
        copy(&root, &tree)?;
        add_kernel(dir, &tree)?;
        for (from, name) in [(&busybox, "busybox"), (&debian, "debian")] {
            copy(from, &tree.join("var/lib/machines").join(name))?;
        }
        fs::create_dir_all(tree.join("opt/nomad/plugins"))?;
        fs::copy(&nomad, tree.join("usr/local/bin/nomad"))?;
        dress(&tree)?;
        make_disk(&tree, &dir.join("disk.raw"))?;
        cache::remove(&tree)
    })?;
    Ok(Image { kernel: dir.join("vmlinuz"), disk: dir.join("disk.raw") })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    outer::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(drop)
}

/// Puts the kernel beside the tree and its modules into it.
fn add_kernel(dir: &Path, tree: &Path) -> Result<()> {
    fs::copy("/etc/resolv.conf", tree.join("etc/resolv.conf")).context("/etc/resolv.conf")?;
    let mut fetch = Command::new("unshare");
    fetch
        .args(["--mount", "--propagation", "private", "chroot"])
        .arg(tree)
        .args(["sh", "-c", FETCH])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env_remove("TMPDIR");
    outer::run_long("fetching the cloud kernel", "10 s", &mut fetch)?;
    let package = only(&tree.join("tmp"))?;
    // Not into the tree: dpkg-deb would replace its link /lib by a directory.
    let unpacked = dir.join("kernel");
    outer::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacked))?;
    cache::remove(&package)?;
    let modules = ["usr/lib/modules", "lib/modules"].map(|sub| unpacked.join(sub));
    let modules = modules.iter().find(|dir| dir.is_dir()).context("a kernel without modules")?;
    let modules = only(modules)?;
    let version = modules.file_name().and_then(|name| name.to_str()).context("its version")?;
    fs::create_dir_all(tree.join("usr/lib/modules"))?;
    copy(&modules, &tree.join("usr/lib/modules").join(version))?;
    outer::run(Command::new("chroot").arg(tree).args(["depmod", version]))?;
    fs::rename(unpacked.join("boot").join(format!("vmlinuz-{version}")), dir.join("vmlinuz"))?;
    cache::remove(&unpacked)
}

/// The only entry of a directory.
fn only(dir: &Path) -> Result<PathBuf> {
    let mut list = fs::read_dir(dir).with_context(|| format!("{}", dir.display()))?;
    let first = list.next().with_context(|| format!("nothing in {}", dir.display()))??.path();
    anyhow::ensure!(list.next().is_none(), "more than one thing in {}", dir.display());
    Ok(first)
}

fn dress(tree: &Path) -> Result<()> {
    rootfs::dress(tree)?;
    let units = tree.join("etc/systemd/system");
    for unit in MASKED {
        cache::remove(&units.join(unit))?;
        symlink("/dev/null", units.join(unit)).with_context(|| format!("mask {unit}"))?;
    }
    fs::write(units.join("rig-agent.service"), unit())?;
    fs::create_dir_all(units.join("multi-user.target.wants"))?;
    symlink("../rig-agent.service", units.join("multi-user.target.wants/rig-agent.service"))?;
    fs::write(tree.join("etc/hostname"), "rigvm\n")?;
    fs::write(tree.join("etc/machine-id"), format!("{:032x}\n", 0x7269_6776_6d00_u128))?;
    Ok(())
}

/// Sparse, so that it takes on the outer machine what is in it. With a journal, as a node's: a
/// machine boots from it again after a loss of power.
fn make_disk(tree: &Path, disk: &Path) -> Result<()> {
    fs::File::create(disk)?.set_len(6 << 30)?;
    let mut make = Command::new("mkfs.ext4");
    make.args(["-q", "-F", "-J", "size=16", "-d"]).arg(tree).arg(disk);
    outer::run_long("mkfs.ext4 of the root disk", "5 s", &mut make)
}

/// What a run brings: product, its example files, the `rig` program and further programs.
#[derive(Clone, Debug, Default)]
pub struct Brought {
    /// The product's binaries; `None` for a bare machine.
    pub product: Option<product::Built>,
    /// Programs that go to `bin`, without their debug information.
    pub programs: Vec<PathBuf>,
}

impl Brought {
    /// Packs all of it into an archive that is a disk of the machine.
    ///
    /// # Errors
    /// When something is missing.
    pub fn pack(&self, dir: &Path) -> Result<PathBuf> {
        let (tree, disk) = (dir.join("brought"), dir.join("brought.tar"));
        cache::remove(&tree)?;
        fs::create_dir_all(tree.join("bin"))?;
        let own = crate::host::instance::rig_binary()?;
        let named = |path: &Path| path.file_name().map(|name| tree.join("bin").join(name));
        for program in self.programs.iter().chain([&own]) {
            let to = named(program).context("a program without name")?;
            // Five times smaller, and the guest's disk is slow. Part of binutils, as the linker is.
            outer::run(Command::new("strip").arg("-o").arg(&to).arg(program))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        }
        if let Some(product) = &self.product {
            fs::create_dir(tree.join("product"))?;
            for (from, name) in [
                (&product.helper, "nomad-nspawn-helper"),
                (&product.helper, "nomad-nspawn-task"),
                (&product.driver, "nomad-driver-nspawn"),
            ] {
                let from = from.join(name);
                let copied = fs::copy(&from, tree.join("product").join(name));
                copied.with_context(|| format!("{}", from.display()))?;
            }
        }
        copy(&product::workspace().join("example"), &tree.join("example"))?;
        // qemu gives a disk whose size is no multiple of a sector none of the last one: tar pads.
        outer::run(Command::new("tar").arg("cf").arg(&disk).arg("-C").arg(&tree).arg("."))?;
        cache::remove(&tree)?;
        Ok(disk)
    }
}

/// The names of the ports, as [`guest`] looks for them.
#[must_use]
pub fn port_name(number: usize) -> String {
    format!("{}{number}", guest::PORT)
}
