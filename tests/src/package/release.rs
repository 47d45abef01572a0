//! Everything of a release in one directory: sources, packages and their sums, each checked.

use super::{NAME, VERSION, deb, rpm};
use crate::{cache, outer, product};
use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes all of it below the target directory; returns the directory.
///
/// # Errors
/// When the tree has changes that are not committed, a build fails, or a check does.
pub fn build() -> Result<PathBuf> {
    let mut status = git();
    let changes = outer::run(status.args(["status", "--porcelain"]))?;
    if !changes.is_empty() {
        bail!("a release is made of committed files; commit or remove:\n{changes}");
    }
    let dir = product::target().join(format!("dist/{NAME}-{VERSION}"));
    cache::remove(&dir)?;
    fs::create_dir_all(&dir)?;
    let package = deb::build()?;
    let mut files = vec![tarball(&dir)?, copy(&package, &dir)?];
    let again = deb::build()?;
    if fs::read(&again)? != fs::read(files.last().context("no package")?)? {
        bail!("two builds of {} are not the same bytes", again.display());
    }
    files.push(copy(&rpm::build(&package)?, &dir)?);
    sums(&dir, &files)?;
    check(&dir)?;
    Ok(dir)
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(product::workspace());
    git
}

fn copy(file: &Path, dir: &Path) -> Result<PathBuf> {
    let to = dir.join(file.file_name().context("a package without a name")?);
    fs::copy(file, &to).with_context(|| file.display().to_string())?;
    Ok(to)
}

/// The committed files, with the commit's time; gzip -n, so that no other is in it.
fn tarball(dir: &Path) -> Result<PathBuf> {
    let path = dir.join(format!("{NAME}-{VERSION}.tar.gz"));
    let prefix = format!("--prefix={NAME}-{VERSION}/");
    let mut archive = git();
    archive.args(["-c", "tar.tar.gz.command=gzip -cn", "archive", "--format=tar.gz"]);
    archive.args([&prefix, "--output"]);
    outer::run(archive.arg(&path).arg("HEAD"))?;
    Ok(path)
}

fn sums(dir: &Path, files: &[PathBuf]) -> Result<()> {
    let mut text = String::new();
    for file in files {
        let sum = Sha256::digest(fs::read(file)?);
        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(text, "{sum}  {name}")?;
    }
    fs::write(dir.join("SHA256SUMS"), text).context("SHA256SUMS")
}

/// By other programs than those that made it.
fn check(dir: &Path) -> Result<()> {
    outer::run(
        Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(dir),
    )?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|it| it.to_str()) {
            Some("deb") => {
                let mut field = Command::new("dpkg-deb");
                let version = outer::run(field.arg("--field").arg(&path).arg("Version"))?;
                if version.trim() != VERSION {
                    bail!("{}: version {version}", path.display());
                }
            }
            Some("gz") => {
                let list = outer::run(Command::new("tar").arg("--list").arg("--file").arg(&path))?;
                for name in ["Cargo.lock", "helper/debian/postinst", "LICENSE-MIT"] {
                    let name = format!("{NAME}-{VERSION}/{name}");
                    if !list.lines().any(|line| line == name) {
                        bail!("{} lacks {name}", path.display());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}
