//! The product: built from this workspace, installed into an instance as on a real node.
//!
//! For [`crate::host`]. It trusts cargo and the repository's own `example` directory. Helper and
//! driver are built by separate calls, because one call would unify features of shared crates.

use crate::host::here;
use crate::vm::image;
use crate::{Rig, cache, outer, wait};
use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

/// Which build of the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As released.
    Plain,
    /// With the step hook, for tests that stop it at every step.
    StepHook,
}

/// Where the binaries of a build are.
#[derive(Clone, Debug)]
pub struct Built {
    /// Directory of nomad-nspawn-helper and nomad-nspawn-task.
    pub helper: PathBuf,
    /// Directory of nomad-driver-nspawn.
    pub driver: PathBuf,
}

/// Root of the workspace; in a virtual machine, what of it was brought.
#[must_use]
pub fn workspace() -> PathBuf {
    if here::is_here() {
        return PathBuf::from(image::BROUGHT);
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

/// Held by whoever builds the product of this workspace; another workspace has its own.
fn lock() -> Result<File> {
    cache::lock(&format!("product-{}", cache::key(&[&target().to_string_lossy()])))
}

/// Builds driver and helper, once per process and never twice at a time.
///
/// # Errors
/// When cargo fails.
pub fn build(variant: Variant) -> Result<Built> {
    if here::is_here() {
        let dir = workspace().join("product");
        return Ok(Built { helper: dir.clone(), driver: dir });
    }
    static DONE: Mutex<Vec<Variant>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().map_err(|_| anyhow::anyhow!("an earlier build panicked"))?;
    let plain = target().join("release");
    let helper_target = match variant {
        Variant::Plain => target(),
        Variant::StepHook => target().join("step-hook"),
    };
    if !done.contains(&variant) {
        let _guard = lock()?;
        cargo("nomad-driver-nspawn", &target(), &[])?;
        let features: &[&str] = match variant {
            Variant::Plain => &[],
            Variant::StepHook => &["--features", "step-hook"],
        };
        cargo("nomad-nspawn-helper", &helper_target, features)?;
        cargo("nomad-nspawn-task", &helper_target, features)?;
        done.push(variant);
    }
    Ok(Built { helper: helper_target.join("release"), driver: plain })
}

fn cargo(package: &str, target: &Path, features: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(["build", "--release", "--locked", "--package", package])
        .args(features)
        .arg("--target-dir")
        .arg(target)
        .current_dir(workspace());
    without_cargos_variables(&mut command);
    outer::run_long(&format!("cargo build {package}"), "a minute when cold", &mut command)
}

/// Below `cargo test` or `cargo run` these are set for the test; a build must not see them.
pub(crate) fn without_cargos_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_BIN_")
            || text == "CARGO_MANIFEST_DIR"
            || text == "LD_LIBRARY_PATH"
        {
            command.env_remove(&name);
        }
    }
}

/// Builds `nomad-nspawnctl`; returns its path.
///
/// # Errors
/// When cargo fails.
pub fn build_ctl() -> Result<PathBuf> {
    if here::is_here() {
        return Ok(workspace().join("bin/nomad-nspawnctl"));
    }
    let _guard = lock()?;
    cargo("nomad-nspawnctl", &target(), &[])?;
    Ok(target().join("release/nomad-nspawnctl"))
}

/// Builds `nomad-nspawn-fetch`; returns its path.
/// Builds the converter of images; returns its path.
///
/// # Errors
/// When cargo fails.
pub fn build_fetch() -> Result<PathBuf> {
    let _guard = lock()?;
    cargo("nomad-nspawn-fetch", &target(), &[])?;
    Ok(target().join("release/nomad-nspawn-fetch"))
}

/// Files of the repository and where a node has them. A missing one is a failed installation.
const FILES: [(&str, &str); 3] = [
    ("example/sysusers.d/nomad-nspawn.conf", "/usr/lib/sysusers.d/nomad-nspawn.conf"),
    ("example/tmpfiles.d/nomad-nspawn.conf", "/usr/lib/tmpfiles.d/nomad-nspawn.conf"),
    ("example/policy.toml", POLICY),
];

/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";
/// The policy file.
pub const POLICY: &str = "/etc/nomad-nspawn/policy.toml";
/// Where the plugin is installed.
pub const PLUGIN: &str = "/opt/nomad/plugins/nspawn";
/// Directory of the helper's two programs.
pub const LIBEXEC: &str = "/usr/libexec/nomad-nspawn";

impl Rig {
    /// Installs a build with its units and files, and starts the helper.
    ///
    /// # Errors
    /// When a file is missing or a unit does not start.
    pub fn install(&self, built: &Built) -> Result<()> {
        self.install_binaries(built)?;
        for (from, to) in FILES {
            self.copy_in(&workspace().join(from), to, 0o644)?;
        }
        let units = workspace().join("example/systemd");
        let list = std::fs::read_dir(&units).with_context(|| format!("{}", units.display()))?;
        for unit in list {
            let unit = unit?;
            let name = unit.file_name().to_string_lossy().into_owned();
            self.copy_in(&unit.path(), &format!("/usr/lib/systemd/system/{name}"), 0o644)?;
        }
        self.run(&["systemd-sysusers"])?;
        self.run(&["systemd-tmpfiles", "--create", "nomad-nspawn.conf"])?;
        self.run(&["systemctl", "daemon-reload"])?;
        self.run(&["systemctl", "enable", "--now", "nomad-nspawn-helper.socket", HELPER])
            .with_context(|| self.unit_tail(HELPER, 30))
            .map(drop)
    }

    /// Replaces the policy file, and waits until the helper goes by it.
    ///
    /// # Errors
    /// When the helper does not take it.
    pub fn set_policy(&self, policy: impl AsRef<[u8]>) -> Result<()> {
        self.write_file(POLICY, policy, 0o644)?;
        let said = self.reload_policy()?;
        if said.contains("policy read again") { Ok(()) } else { bail!("{said}") }
    }

    /// Makes the helper read its policy file; returns what it says of it.
    ///
    /// # Errors
    /// When it says nothing in time.
    pub fn reload_policy(&self) -> Result<String> {
        let about =
            |line: &&str| line.contains("policy read again") || line.contains("policy not read");
        let said = |number| -> Result<Option<String>> {
            Ok(self.journal(HELPER)?.lines().filter(about).nth(number).map(str::to_owned))
        };
        let before = self.journal(HELPER)?.lines().filter(about).count();
        // It fails where the file is bad; what the helper says of it is the answer here.
        self.exec(&["systemctl", "reload", HELPER])?;
        let what = "the helper to say something of its policy";
        wait::until(what, Duration::from_secs(10), || said(before))
    }

    /// Builds and installs `nomad-nspawnctl`, for the tests that use it: it links what the root
    /// binaries may not, so it is built by a call of its own.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn install_ctl(&self) -> Result<()> {
        self.copy_in(&build_ctl()?, "/usr/bin/nomad-nspawnctl", 0o755)
    }

    /// Builds and installs the converter of images, as [`Self::install_ctl`] does the tool.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn install_fetch(&self) -> Result<()> {
        self.copy_in(&build_fetch()?, &format!("{LIBEXEC}/nomad-nspawn-fetch"), 0o755)
    }

    /// Replaces the binaries only, as an upgrade does; nothing is restarted.
    ///
    /// # Errors
    /// When a binary is missing.
    pub fn install_binaries(&self, built: &Built) -> Result<()> {
        for name in ["nomad-nspawn-helper", "nomad-nspawn-task"] {
            self.copy_in(&built.helper.join(name), &format!("{LIBEXEC}/{name}"), 0o755)?;
        }
        self.copy_in(&built.driver.join("nomad-driver-nspawn"), PLUGIN, 0o755)
    }
}
