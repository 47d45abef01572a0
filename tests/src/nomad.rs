//! The Nomad binary: taken from PATH, else built from its Go module and cached.
//!
//! For [`crate::host`]. It trusts the Go module proxy's checksums. It never downloads a ready-made
//! binary.

use crate::{cache, outer};
use anyhow::{Context as _, Result, bail};
use std::fs;
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

/// Path of a Nomad binary on the outer machine.
///
/// # Errors
/// When there is neither a `nomad` nor a Go compiler, or the build fails.
pub fn binary() -> Result<PathBuf> {
    if let Some(found) = outer::find("nomad") {
        return Ok(found);
    }
    let dir = cache::entry("nomad", &[GO_MOD, &BUILD.join(" ")], build)?;
    Ok(dir.join("nomad"))
}

fn build(dir: &Path) -> Result<()> {
    let go = outer::find("go").or_else(|| {
        let usual = PathBuf::from("/usr/local/go/bin/go");
        usual.is_file().then_some(usual)
    });
    let Some(go) = go else {
        bail!("no `nomad` in PATH and no Go compiler to build it: install one of them");
    };
    fs::create_dir_all(dir)?;
    fs::write(dir.join("go.mod"), GO_MOD)?;
    let mut command = Command::new(go);
    command
        .args(BUILD)
        .arg("github.com/hashicorp/nomad")
        .current_dir(dir)
        // The workspace variables of a surrounding Go project would change what is built.
        .env("GOWORK", "off")
        .env_remove("GOFLAGS");
    outer::run_long("building Nomad from its Go module", "4 minutes", &mut command)
        .context("building Nomad")
}
