//! The Nomad binary: taken from PATH, else built from its Go module and cached.
//!
//! For [`crate::host`]. It trusts the Go module proxy's checksums, also for a newer Go where the
//! machine's is too old. It never downloads a ready-made Nomad.

use crate::{cache, outer};
use anyhow::{Context as _, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module of its own whose tool is Nomad. The `api` line is needed because the one Nomad's go.mod
/// names is too old for it, the replace lines because those of a dependency do not count.
const GO_MOD: &str = "\
module rig/nomad

go 1.25

tool github.com/hashicorp/nomad

require (
	github.com/hashicorp/nomad v1.11.3
	github.com/hashicorp/nomad/api v0.0.0-20261016150620-df630b26e78a
)

replace (
	github.com/Microsoft/go-winio => github.com/endocrimes/go-winio v0.4.13-0.20190628114223-fb47a8b41948
	github.com/hashicorp/hcl => github.com/hashicorp/hcl v1.0.1-nomad-1
)
";

const BUILD: [&str; 6] = ["build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o", "nomad"];

/// What these modules ask for (`api` more than Nomad). A newer Go does as well; an older one is used
/// to get this one, because not every Go fetches it by itself, and some are told not to.
const GO: [u32; 3] = [1, 26, 0];

/// Path of a Nomad binary on the outer machine.
///
/// # Errors
/// When there is neither a `nomad` nor a way to build one.
pub fn binary() -> Result<PathBuf> {
    if let Some(found) = outer::find("nomad") {
        return Ok(found);
    }
    let dir = cache::entry("nomad", &[GO_MOD, &BUILD.join(" ")], build)?;
    Ok(dir.join("nomad"))
}

fn build(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    let go = compiler(dir)?;
    fs::write(dir.join("go.mod"), GO_MOD)?;
    let mut command = clean(&go, dir);
    command.args(BUILD).arg("github.com/hashicorp/nomad");
    outer::run_long("building Nomad from its Go module", "4 minutes", &mut command)
        .context("building Nomad")
}

/// A Go command that nothing around it changes: neither a workspace nor flags of another project.
fn clean(go: &Path, dir: &Path) -> Command {
    let mut command = Command::new(go);
    command.current_dir(dir).env("GOWORK", "off").env("GOTOOLCHAIN", "local");
    command.env_remove("GOFLAGS").env_remove("GOROOT");
    command
}

/// A Go that is new enough: the machine's, else Debian's, else one that these fetch as a module.
fn compiler(dir: &Path) -> Result<PathBuf> {
    let there = || outer::find("go").or_else(|| usual("/usr/local/go/bin/go"));
    let go = match there() {
        Some(go) => go,
        None => {
            outer::say("no `nomad` and no Go compiler to build it");
            outer::install(&["golang-go"]).context("install Go or put a `nomad` into the PATH")?;
            there().context("golang-go is installed, but brought no `go`")?
        }
    };
    let version = outer::run(clean(&go, dir).arg("version"))?;
    if release(&version).is_some_and(|found| found >= GO) {
        return Ok(go);
    }
    outer::say(&format!("too old to build Nomad: {}", version.trim_end()));
    toolchain(&go, dir).with_context(|| {
        let [a, b, c] = GO;
        format!(
            "{} cannot fetch Go {a}.{b}.{c}: install that or a newer one, or put a `nomad` into the PATH",
            version.trim_end()
        )
    })
}

fn usual(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.is_file())
}

/// The numbers of `go version go1.19.8 linux/amd64`; an unreleased Go has none.
fn release(text: &str) -> Option<[u32; 3]> {
    let word = text.split(' ').nth(2)?.strip_prefix("go")?;
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?])
}

/// Fetches a Go as the module that it is published as, which any Go can, and returns its command.
fn toolchain(go: &Path, dir: &Path) -> Result<PathBuf> {
    let [a, b, c] = GO;
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let module = format!("golang.org/toolchain@v0.0.1-go{a}.{b}.{c}.linux-{arch}");
    let download = |more: &[&str]| {
        let mut command = clean(go, dir);
        command.args(["mod", "download"]).args(more).arg(&module);
        command
    };
    outer::run_long(&format!("fetching Go {a}.{b}.{c}"), "30 s", &mut download(&[]))?;
    let told: serde_json::Value = serde_json::from_str(&outer::run(&mut download(&["-json"]))?)?;
    let root = PathBuf::from(told.get("Dir").and_then(|dir| dir.as_str()).context("no Dir")?);
    // A module's files are not executable; a newer Go would know which ones of these must be.
    for folder in ["bin".to_owned(), format!("pkg/tool/linux_{arch}")] {
        for file in fs::read_dir(root.join(folder))? {
            fs::set_permissions(file?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    Ok(root.join("bin/go"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_compared() {
        let read = |word: &str| release(&format!("go version {word} linux/amd64\n"));
        assert_eq!(read("go1.19.8"), Some([1, 19, 8]));
        assert_eq!(read("go1.25"), Some([1, 25, 0]));
        assert_eq!(read("go1.26rc1"), None);
        assert_eq!(read("devel"), None);
        assert!(read("go1.25.8").unwrap() < GO && read("go1.26.8").unwrap() > GO);
    }
}
