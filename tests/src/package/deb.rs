//! The Debian package, by cargo-deb.

use super::{NAME, Tool, VERSION, directory, manual, source_date};
use crate::{cache, outer, product};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0", usual: "2 minutes" };

/// Builds the binaries and the package; returns its path.
///
/// # Errors
/// When cargo or cargo-deb fails.
pub fn build() -> Result<PathBuf> {
    product::build(product::Variant::Plain)?;
    product::build_ctl()?;
    product::build_fetch()?;
    let target = product::target();
    let _guard = cache::lock(&format!("package-{}", cache::key(&[&target.to_string_lossy()])))?;
    let date = source_date()?;
    generate(&target.join("release/package"), &date)?;
    let package = directory()?.join(format!("{NAME}_{VERSION}_{}.deb", architecture()?));
    // Another process may be reading the one that is there.
    let part = package.with_extension("deb.new");
    let mut command = Command::new(CARGO_DEB.program()?);
    command
        .args(["--no-build", "--locked", "--package", NAME, "--output"])
        .arg(&part)
        .current_dir(product::workspace())
        .env("CARGO_TARGET_DIR", &target)
        .env("SOURCE_DATE_EPOCH", date);
    product::without_cargos_variables(&mut command);
    outer::run_long("cargo deb", "10 s", &mut command)?;
    fs::rename(&part, &package)?;
    Ok(package)
}

fn architecture() -> Result<String> {
    let name = outer::run(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

/// Files of the package that follow from others of the repository.
fn generate(dir: &Path, date: &str) -> Result<()> {
    cache::remove(dir)?;
    fs::create_dir_all(dir)?;
    let read = |path: &str| -> Result<String> {
        let path = product::workspace().join(path);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let compressed = |name: &str, text: String| -> Result<()> {
        let file = dir.join(name);
        fs::write(&file, text)?;
        // Without the file's time and name.
        outer::run(Command::new("gzip").args(["-9", "--no-name"]).arg(file)).map(drop)
    };
    compressed("nomad-nspawn-policy.toml.5", manual::policy(&read("docs/POLICY.md")?)?)?;
    let driver = manual::driver(&read("docs/CONFIG.md")?, &read("example/agent-package.hcl")?)?;
    compressed("nomad-driver-nspawn.7", driver)?;
    let when = format!("@{date}");
    let when = outer::run(Command::new("date").args(["--utc", "--rfc-email", "--date", &when]))?;
    // Debian's form; what has changed is in CHANGELOG.md.
    let changelog = format!(
        "{NAME} ({VERSION}) unstable; urgency=medium\n\n  * Release {VERSION}.\n\n \
         -- The nomad-driver-nspawn authors \
         <nomad-driver-nspawn@users.noreply.github.com>  {}\n",
        when.trim()
    );
    compressed("changelog", changelog)
}

/// Unpacks a package, its control files into `DEBIAN`.
///
/// # Errors
/// When it is no package.
pub fn unpack(package: &Path, dir: &Path) -> Result<()> {
    outer::run(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(dir)).map(drop)
}
