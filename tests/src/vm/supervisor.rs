//! The process that owns one virtual machine and ends with it.
//!
//! As [`crate::host::supervisor`], for `rig supervise-vm`: it starts qemu and ends it when its own
//! owner ends in whatever way, when it gets SIGTERM, or when the machine powers off. Killed itself,
//! it takes qemu along, and the next start removes its directory.

use super::accel::{self, Accel};
use super::{channel, image, qemu};
use crate::host::{instance, supervisor};
use crate::{Suite, cache, outer, product::Built};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Child;

/// Everything the supervisor must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Debian release.
    pub suite: Suite,
    /// Kernel and root disk.
    pub image: image::Image,
    /// Directories of helper and driver; `None` for a machine without them.
    pub product: Option<(PathBuf, PathBuf)>,
    /// Programs to bring along.
    pub programs: Vec<PathBuf>,
    /// Further words of the kernel's command line.
    pub append: String,
    /// The layer of the root disk that outlives the machine; `None` for one of its own.
    pub layer: Option<PathBuf>,
    /// Whether a reboot starts the machine again.
    pub reboots: bool,
}

/// What it reports when the agent inside answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Debian release.
    pub suite: Suite,
    /// Directory of the machine: sockets, console, lock.
    pub dir: PathBuf,
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// Process id of qemu.
    pub qemu: i32,
    /// How it runs.
    pub accel: Accel,
    /// Why so.
    pub why: String,
}

/// Runs one machine to its end; reports on standard output, in one line, how the start went.
///
/// # Errors
/// When the start or the clean-up fails.
pub fn main(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("the supervisor's argument")?;
    // Ctrl-C is for the owner; this process learns of it by the end of file on standard input.
    nix::unistd::setsid().context("setsid")?;
    let (dir, _lock) = instance::new_directory()?;
    let result = live(&spec, &dir);
    if let Err(error) = &result {
        supervisor::answer::<Ready>(&Err(format!("{error:#}")));
    }
    result.and(cache::remove(&dir))
}

fn live(spec: &Spec, dir: &Path) -> Result<()> {
    let signals = supervisor::block_signals()?;
    let product = spec.product.clone().map(|(helper, driver)| Built { helper, driver });
    let brought = image::Brought { product, programs: spec.programs.clone() }.pack(dir)?;
    let hardware = qemu::Hardware {
        image: &spec.image,
        brought: &brought,
        append: &spec.append,
        layer: spec.layer.as_deref().map_or(qemu::Layer::Own, qemu::Layer::Kept),
        reboots: spec.reboots,
    };
    let (mut child, accel, why) = boot(dir, &hardware)?;
    supervisor::answer(&Ok(Ready {
        suite: spec.suite,
        dir: dir.to_path_buf(),
        supervisor: i32::try_from(std::process::id())?,
        qemu: i32::try_from(child.id())?,
        accel,
        why,
    }));
    let done = supervisor::watch(&signals, &mut child);
    end(&mut child)?;
    done
}

fn end(child: &mut Child) -> Result<()> {
    child.kill().ok();
    child.wait()?;
    Ok(())
}

/// Boots by KVM where that works or is not known, else emulated.
fn boot(dir: &Path, hardware: &qemu::Hardware<'_>) -> Result<(Child, Accel, String)> {
    let (known, why) = accel::known()?;
    if known == Some(true) {
        return Ok((try_boot(dir, hardware, Accel::Kvm)?, Accel::Kvm, why));
    }
    let why = if known == Some(false) {
        why
    } else {
        match try_boot(dir, hardware, Accel::Kvm) {
            Ok(child) => {
                let why = accel::keep(true, "a machine has booted")?;
                return Ok((child, Accel::Kvm, why));
            }
            Err(error) => {
                let text = format!("{error:#}");
                accel::keep(false, text.lines().next().unwrap_or_default())?
            }
        }
    };
    let emulation = Accel::emulation(qemu::version()?);
    Ok((try_boot(dir, hardware, emulation)?, emulation, why))
}

fn try_boot(dir: &Path, hardware: &qemu::Hardware<'_>, accel: Accel) -> Result<Child> {
    qemu::make_layer(dir, hardware)?;
    let log = dir.join("qemu.log");
    let file = File::create(&log)?;
    let mut command = qemu::command(dir, hardware, accel);
    let mut child =
        command.stdout(file.try_clone()?).stderr(file).spawn().context("cannot start qemu")?;
    let answered = channel::wait_agent(dir, accel.boot_limit(), || {
        if let Some(status) = child.try_wait()? {
            bail!("qemu ended: {status}: {}", outer::tail(&log, 5));
        }
        if accel == Accel::Kvm && accel::has_stopped(dir) {
            bail!("the machine has stopped: {}", outer::tail(&log, 1));
        }
        Ok(())
    });
    if let Err(error) = answered {
        end(&mut child)?;
        let console = outer::tail(&channel::console(dir), 30);
        bail!("{error:#}; {accel}; console:\n{console}");
    }
    Ok(child)
}
