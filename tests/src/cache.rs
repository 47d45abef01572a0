//! The cache directory: slow things are made once and kept under a name derived from their inputs.
//!
//! For root file systems, images and the Nomad binary. It trusts the directory's owner (root). An
//! entry appears under its name only when complete (made elsewhere, then renamed), never half made,
//! and two processes never make the same entry at the same time.

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The rig's directory below the user's cache directory; made when missing.
///
/// # Errors
/// When there is no home directory or it cannot be made.
pub fn root() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME")?)
            .join(".cache"),
    };
    let dir = base.join("nomad-driver-nspawn");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    Ok(dir)
}

/// Sixteen hexadecimal digits that stand for the inputs.
#[must_use]
pub fn key(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update(u64::try_from(input.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(input.as_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// An exclusive lock among all processes that use this cache, held until dropped.
///
/// # Errors
/// When the lock file cannot be made.
pub fn lock(name: &str) -> Result<File> {
    let path = lock_path(name)?;
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        crate::outer::say(&format!("waiting for another process that holds {}", path.display()));
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

fn lock_path(name: &str) -> Result<PathBuf> {
    let dir = root()?.join("locks");
    fs::create_dir_all(&dir)?;
    Ok(dir.join(format!("{name}.lock")))
}

/// The entry `kind` for these inputs: a path that exists and is complete. `make` gets the path of a
/// temporary file or directory (not yet there) that becomes the entry.
///
/// # Errors
/// What `make` returns, or trouble with the directory.
pub fn entry(
    kind: &str,
    inputs: &[&str],
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let name = format!("{kind}-{}", key(inputs));
    let path = root()?.join(&name);
    if path.exists() {
        return Ok(path);
    }
    let _guard = lock(&name)?;
    if path.exists() {
        return Ok(path);
    }
    let work = root()?.join(format!("{name}.new"));
    remove(&work)?;
    make(&work).with_context(|| format!("making the cache entry {name}"))?;
    fs::rename(&work, &path)
        .with_context(|| format!("rename {} to {}", work.display(), path.display()))?;
    Ok(path)
}

/// Removes a file or a whole directory; nothing there is fine.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(path: &Path) -> Result<()> {
    let gone = match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    gone.with_context(|| format!("remove {}", path.display()))
}
