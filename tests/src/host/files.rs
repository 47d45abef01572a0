//! Reading and writing files inside an instance from outside.
//!
//! For tests. Paths are resolved with the instance's root as root, so a symbolic link inside never
//! leads to a file of the outer machine.

use super::Rig;
use anyhow::{Context as _, Result};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

impl Rig {
    /// Opens a file inside the instance.
    ///
    /// # Errors
    /// What the kernel says, with the path.
    pub fn open(&self, path: &str, flags: OFlag, mode: u32) -> Result<File> {
        let root = File::open(format!("/proc/{}/root", self.leader()))
            .context("the instance's PID 1 is gone")?;
        // open() refuses a mode without O_CREAT.
        let mode = if flags.contains(OFlag::O_CREAT) { mode } else { 0 };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(mode))
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let fd = openat2(&root, Path::new(path), how).with_context(|| format!("open {path}"))?;
        Ok(fd.into())
    }

    /// The bytes of a file inside the instance.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path, OFlag::O_RDONLY, 0)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {path}"))?;
        Ok(bytes)
    }

    /// Writes a file inside the instance (mode only for a new one); its directory must exist.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_file(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let mut file = self.open(path, flags, mode)?;
        file.write_all(bytes.as_ref()).with_context(|| format!("write {path}"))
    }

    /// Copies a file of the outer machine into the instance, replacing what is there even while it
    /// runs.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn copy_in(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let part = format!("{to}.new");
        if let Some(dir) = Path::new(to).parent().and_then(Path::to_str) {
            self.run(&["mkdir", "-p", dir])?;
        }
        self.write_file(&part, bytes, mode)?;
        self.run(&["mv", "-f", &part, to]).map(drop)
    }

    /// Whether something is at this path inside the instance.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, 0).is_ok()
    }
}
