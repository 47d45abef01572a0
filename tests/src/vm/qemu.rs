//! The command line of qemu, and its version.
//!
//! For [`super::supervisor`]. It trusts Debian's qemu. The machine gets no network and no device of
//! the outer machine.

use super::accel::Accel;
use super::{channel, image};
use crate::{cache, outer};
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program.
pub const QEMU: &str = "qemu-system-x86_64";
/// Memory in MiB; agent, server and tests take less than half.
const MEMORY: &str = "2048";
/// More than two, so that tasks can have cores of their own; emulated in one thread, further ones
/// cost nothing.
const CPUS: &str = "4";
/// What saves time at boot and changes nothing that a test looks at. `panic=-1` ends a machine at
/// once that could not go on, `random.trust_cpu` spares the wait for randomness, and the two before
/// it leave emulated code alone. Landlock confines the plugin, as on a node.
const KERNEL: &str = "root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 mitigations=off nokaslr \
                      random.trust_cpu=on no_timer_check audit=0 lsm=landlock \
                      systemd.show_status=0 systemd.log_target=journal";

/// Installs qemu where it is missing.
///
/// # Errors
/// When apt fails.
pub fn ensure() -> Result<()> {
    outer::ensure_tools()?;
    let needed = [
        (QEMU, "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("mkfs.ext4", "e2fsprogs"),
        ("strip", "binutils"),
    ];
    let missing: Vec<&str> =
        needed.iter().filter(|(cmd, _)| outer::find(cmd).is_none()).map(|(_, pkg)| *pkg).collect();
    outer::install(&missing)
}

/// qemu's major version.
///
/// # Errors
/// When it does not report one.
pub fn version() -> Result<u32> {
    let text = outer::run(Command::new(QEMU).arg("--version"))?;
    let word = text.split_whitespace().nth(3).unwrap_or_default();
    let major = word.split('.').next().and_then(|number| number.parse().ok());
    major.with_context(|| format!("not a version of qemu: {text:?}"))
}

/// What a machine is started with.
#[derive(Clone, Debug)]
pub struct Hardware<'a> {
    /// Kernel and cached root disk.
    pub image: &'a image::Image,
    /// The second disk.
    pub brought: &'a Path,
    /// Further words of the kernel's command line.
    pub append: &'a str,
    /// The machine's own layer of the root disk.
    pub layer: Layer<'a>,
    /// Whether a reboot starts the machine again; else it ends qemu.
    pub reboots: bool,
}

/// What a machine writes to in place of the cached disk.
#[derive(Clone, Copy, Debug)]
pub enum Layer<'a> {
    /// A file of its own, which goes with it.
    Own,
    /// One that outlives it, made when it is missing. It holds what the guest has flushed also when
    /// qemu is killed.
    Kept(&'a Path),
}

impl Layer<'_> {
    fn path(&self, dir: &Path) -> PathBuf {
        match self {
            Self::Own => dir.join("root"),
            Self::Kept(path) => path.to_path_buf(),
        }
    }

    /// qemu's way to write: unsafe ignores flushes, of the guest's file system and of the layer's
    /// own tables.
    fn cache(&self) -> &'static str {
        match self {
            Self::Own => "unsafe",
            Self::Kept(_) => "writeback",
        }
    }
}

/// Makes the machine's layer of the root disk, unless a kept one is there.
///
/// # Errors
/// When qemu-img fails.
pub fn make_layer(dir: &Path, hardware: &Hardware<'_>) -> Result<()> {
    let path = hardware.layer.path(dir);
    match hardware.layer {
        Layer::Own => cache::remove(&path)?,
        Layer::Kept(_) if path.exists() => return Ok(()),
        Layer::Kept(_) => {}
    }
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    make.arg(&hardware.image.disk).arg(path);
    outer::run(&mut make).map(drop)
}

/// The command; it dies with the thread that starts it.
#[must_use]
pub fn command(dir: &Path, hardware: &Hardware<'_>, accel: Accel) -> Command {
    let Hardware { image, brought, append, layer, reboots } = hardware;
    let (root, flushes) = (layer.path(dir), layer.cache());
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-nographic"])
        .args(["-M", "q35", "-m", MEMORY, "-smp", CPUS, "-nic", "none", "-rtc", "base=utc"])
        .args(accel.arguments())
        .arg("-kernel")
        .arg(&image.kernel)
        .args(["-append", &format!("{KERNEL} {append}")])
        // NVMe and ext4 are the only way to a root that both cloud kernels have built in.
        .arg("-drive")
        .arg(format!("file={},if=none,id=root,format=qcow2,cache={flushes}", root.display()))
        .args(["-device", "nvme,drive=root,serial=root"])
        // By another driver, so that no race decides which of two disks is the root.
        .arg("-drive")
        .arg(format!("file={},if=none,id=brought,format=raw,readonly=on", brought.display()))
        .args(["-device", "virtio-blk-pci,drive=brought"])
        .arg("-chardev")
        .arg(format!("file,id=console,path={},append=on", channel::console(dir).display()))
        .args(["-serial", "chardev:console"])
        .arg("-qmp")
        .arg(format!("unix:{}/qmp.sock,server=on,wait=off", dir.display()))
        .args(["-device", "virtio-serial-pci"]);
    for number in 0..channel::PORTS {
        let path = channel::socket(dir, number);
        command
            .arg("-chardev")
            .arg(format!("socket,id=c{number},path={},server=on,wait=off", path.display()))
            .arg("-device")
            .arg(format!("virtserialport,chardev=c{number},name={}", image::port_name(number)));
    }
    if !reboots {
        command.arg("-no-reboot");
    }
    command.stdin(Stdio::null());
    command
}
