//! Packages of the product: for Debian, from that for RPM, and everything of a release.
//!
//! For `cargo rig package`, `cargo rig release` and their test. They hold the release binaries of this
//! tree and files of the repository, as `driver/plugin/Cargo.toml` lists them; the maintainer scripts
//! are in `helper/debian`. It trusts cargo and the two tools that it installs, whose versions are fixed.
//! It never signs or uploads anything.

pub mod deb;
pub mod manual;
pub mod release;
pub mod rpm;

use crate::{cache, outer, product};
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Name of the packages.
pub const NAME: &str = "nomad-driver-nspawn";
/// Version of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A subcommand of cargo, installed once into the cache directory.
struct Tool {
    name: &'static str,
    version: &'static str,
    usual: &'static str,
}

impl Tool {
    /// Its program.
    fn program(&self) -> Result<PathBuf> {
        let dir = cache::entry(self.name, &[self.version], |dir| {
            let mut command = Command::new("cargo");
            command
                .args(["install", "--locked", "--version", self.version, "--root"])
                .arg(dir)
                .arg(self.name)
                .current_dir(product::workspace())
                .env_remove("CARGO_TARGET_DIR")
                // Used for seconds: half the time of their own release profile.
                .env("CARGO_PROFILE_RELEASE_LTO", "off")
                .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
                .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
            product::without_cargos_variables(&mut command);
            let what = format!("installing {} {}", self.name, self.version);
            outer::run_long(&what, self.usual, &mut command)
        })?;
        Ok(dir.join("bin").join(self.name))
    }
}

/// Where packages lie.
fn directory() -> Result<PathBuf> {
    let dir = product::target().join("package");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Time of the newest change of the sources, in seconds since 1970: the time of every file in a package,
/// so that two builds are the same bytes. A tree without history has it as the time of its files.
fn source_date() -> Result<String> {
    // Asked once: a commit meanwhile would make two packages of one run differ.
    static DATE: OnceLock<String> = OnceLock::new();
    if let Some(date) = DATE.get() {
        return Ok(date.clone());
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(product::workspace());
    let date = if let Ok(set) = std::env::var("SOURCE_DATE_EPOCH") {
        set
    } else if let Ok(time) = outer::run(&mut git) {
        time.trim().to_owned()
    } else {
        let modified = product::workspace().join("CHANGELOG.md").metadata()?.modified()?;
        modified.duration_since(std::time::UNIX_EPOCH)?.as_secs().to_string()
    };
    Ok(DATE.get_or_init(|| date).clone())
}

/// All files below a directory, as paths from there, sorted.
fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                walk(&entry.path(), found)?;
            } else {
                found.push(entry.path());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(root, &mut found)?;
    let mut list = found
        .iter()
        .map(|path| Ok(path.strip_prefix(root)?.to_path_buf()))
        .collect::<Result<Vec<_>>>()?;
    list.sort();
    Ok(list)
}
