//! The machine itself as test host: what programs use that run inside a virtual machine.
//!
//! `RIG=here` asks for it. Everything else of [`Rig`] works as with a container, with process 1 as
//! its leader. It changes the machine and never cleans it up: it must be one that is thrown away,
//! and whether it is shows by what [`crate::vm`] has brought.

use super::instance::Ready;
use super::{Config, Rig};
use crate::vm::image::{ADDRESS, BROUGHT};
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the machine itself is the test host.
#[must_use]
pub fn is_here() -> bool {
    std::env::var_os("RIG").is_some_and(|kind| kind == "here")
}

/// The machine as a host. There is one a process.
pub(super) fn take(config: &Config) -> Result<Rig> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if !Path::new(BROUGHT).join("bin/rig").exists() {
        bail!("RIG=here is for virtual machines of the test host only: this one has no {BROUGHT}");
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        bail!("RIG=here: this process has a host already, and there is only one");
    }
    let name = format!("VERSION_CODENAME={}\n", config.suite.name());
    let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    if !release.contains(&name) {
        bail!("RIG_SUITE={}, but this machine is another: {release}", config.suite.name());
    }
    let ready = Ready {
        dir: PathBuf::from(BROUGHT),
        machine: "rigvm".to_owned(),
        supervisor: 0,
        leader: 1,
        address: ADDRESS.to_owned(),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        tree: PathBuf::from("/sys/fs/cgroup"),
    };
    let rig = Rig { suite: config.suite, ready, owned: Mutex::new(None) };
    rig.wait_booted()?;
    Ok(rig)
}
