//! The packages: what is in them, and what installing, replacing and removing them does to a host with
//! running tasks, on both suites. "The release before" is the same tree under a lower version and with
//! another policy file.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod conffile;
mod contents;
mod interrupted;
mod life;
mod node;

use nspawn_tests::package::deb;
use nspawn_tests::{cache, outer};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The package of this tree.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| deb::build().unwrap());
/// Version of the release before.
const BEFORE: &str = "0.0.9";

/// A directory that goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("package-{name}-{}", std::process::id()));
        cache::remove(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        cache::remove(&self.0).unwrap();
    }
}

/// The package with a change, as a file in `dir`. Not compressed: it is read once.
fn changed(dir: &Path, version: &str, change: impl FnOnce(&Path)) -> PathBuf {
    let tree = dir.join(format!("tree-{version}"));
    deb::unpack(&PACKAGE, &tree).unwrap();
    let control = tree.join("DEBIAN/control");
    let text = std::fs::read_to_string(&control).unwrap();
    let lines = text.lines().map(|line| match line.split_once(": ") {
        Some(("Version", _)) => format!("Version: {version}\n"),
        _ => format!("{line}\n"),
    });
    std::fs::write(&control, lines.collect::<String>()).unwrap();
    change(&tree);
    let file = dir.join(format!("{version}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Znone", "--build"]).arg(&tree).arg(&file);
    outer::run(&mut build).unwrap();
    cache::remove(&tree).unwrap();
    file
}

/// The release before: its policy file has another text.
fn before(dir: &Path) -> PathBuf {
    changed(dir, BEFORE, |tree| {
        let file = tree.join("etc/nomad-nspawn/policy.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("# Of the release before.\n{text}")).unwrap();
    })
}
