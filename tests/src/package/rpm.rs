//! The RPM package, by cargo-generate-rpm, of the files of the Debian package. Experimental: its content
//! is checked, and no host of the tests installs it.

use super::{NAME, Tool, VERSION, deb, directory, files_below, source_date};
use crate::{cache, outer, product};
use anyhow::Result;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const CARGO_GENERATE_RPM: Tool =
    Tool { name: "cargo-generate-rpm", version: "0.21.1", usual: "2 minutes" };

/// Builds it from a Debian package; returns its path.
///
/// # Errors
/// When the tool fails.
pub fn build(package: &Path) -> Result<PathBuf> {
    let rpm = directory()?.join(format!("{NAME}-{VERSION}.rpm"));
    let tree = directory()?.join(format!("rpm-tree.{}", std::process::id()));
    cache::remove(&tree)?;
    deb::unpack(package, &tree)?;
    cache::remove(&tree.join("DEBIAN"))?;
    let list = tree.with_extension("toml");
    fs::write(&list, assets(&tree)?)?;
    let mut command = Command::new(CARGO_GENERATE_RPM.program()?);
    command
        .args(["--package", "driver/plugin", "--output"])
        .arg(&rpm)
        .arg("--metadata-overwrite")
        .arg(&list)
        // As every rpm reads it, and in a moment.
        .args(["--payload-compress", "gzip", "--source-date", &source_date()?])
        .current_dir(product::workspace());
    product::without_cargos_variables(&mut command);
    outer::run_long("cargo generate-rpm", "10 s", &mut command)?;
    cache::remove(&list)?;
    cache::remove(&tree)?;
    Ok(rpm)
}

/// One asset for each file of the tree.
fn assets(tree: &Path) -> Result<String> {
    let mut text = "assets = [\n".to_owned();
    for file in files_below(tree)? {
        let source = tree.join(&file);
        let mode = source.metadata()?.permissions().mode() & 0o7777;
        let more = if file.starts_with("etc") {
            ", config = \"noreplace\""
        } else if file.starts_with("usr/share/doc") {
            ", doc = true"
        } else {
            ""
        };
        writeln!(
            text,
            "  {{ source = {:?}, dest = {:?}, mode = \"{mode:o}\"{more} }},",
            source.display().to_string(),
            format!("/{}", file.display()),
        )?;
    }
    text.push_str("]\n");
    Ok(text)
}
