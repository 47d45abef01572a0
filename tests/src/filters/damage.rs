//! What can become of entries of the cache: damage of every kind, by the seed's choice.
//!
//! Works on the files of an instance from outside, at once, while tasks of it start.

use super::read::CACHE;
use crate::Rig;
use crate::oracle::random::Random;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

/// A kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// Gone.
    Missing,
    /// Cut somewhere.
    Cut,
    /// One bit of it is another.
    Bit,
    /// The entry of other options under its name.
    Other,
    /// Readable to others.
    Mode,
    /// Of another owner.
    Owner,
    /// A link to a good one.
    Link,
    /// More behind its end.
    Longer,
    /// A whole entry of files that have changed since.
    Stale,
    /// A whole entry of a systemd-nspawn that has not been tried.
    Untested,
    /// Exchanged with another one and back, a few times: between a look and its use.
    Swapped,
    /// A file that had a part in every entry has changed.
    NewLibrary,
    /// The whole cache is gone.
    Emptied,
}

impl Damage {
    /// All kinds.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Cut,
        Self::Bit,
        Self::Other,
        Self::Mode,
        Self::Owner,
        Self::Link,
        Self::Longer,
        Self::Stale,
        Self::Untested,
        Self::Swapped,
        Self::NewLibrary,
        Self::Emptied,
    ];
}

/// The cache of one instance.
#[derive(Debug)]
pub struct Cache {
    root: PathBuf,
    directory: PathBuf,
    fill: PathBuf,
}

impl Cache {
    /// That of this instance.
    #[must_use]
    pub fn of(rig: &Rig) -> Self {
        let root = PathBuf::from(format!("/proc/{}/root", rig.leader()));
        let directory = root.join(CACHE.trim_start_matches('/'));
        let slice = rig.ready().tree.join("machine.slice/machine-nspawn.slice");
        Self { root, directory, fill: slice.join("nomad-nspawn-filters.service") }
    }

    /// Its entries.
    #[must_use]
    pub fn entries(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut all: Vec<_> = all.map(|entry| entry.path()).collect();
        all.retain(|path| path.extension().is_none());
        all.sort_unstable();
        all
    }

    /// Damages one entry; `false`: there was none for it. What a fill replaces meanwhile is fine.
    ///
    /// # Errors
    /// The kernel's, but for files that have gone.
    pub fn damage(&self, damage: Damage, random: &mut Random) -> Result<bool> {
        let entries = self.entries();
        let pick = |random: &mut Random| entries.get(random.below(entries.len().max(1)));
        let Some(entry) = pick(random) else { return Ok(false) };
        let other = pick(random).unwrap_or(entry);
        match self.try_damage(damage, entry, other, random) {
            Err(error) if is_gone(&error) => Ok(false),
            result => result.with_context(|| format!("{damage:?} of {}", entry.display())),
        }
    }

    fn try_damage(
        &self,
        damage: Damage,
        entry: &Path,
        other: &Path,
        random: &mut Random,
    ) -> Result<bool> {
        let new = entry.with_extension("damaged");
        let replace = |bytes: &[u8]| -> Result<()> {
            fs::write(&new, bytes)?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
            Ok(fs::rename(&new, entry)?)
        };
        match damage {
            Damage::Missing => fs::remove_file(entry)?,
            Damage::Cut => {
                let whole = fs::read(entry)?;
                replace(whole.get(..random.below(whole.len().max(1))).unwrap_or_default())?;
            }
            Damage::Bit => {
                let mut whole = fs::read(entry)?;
                let at = random.below(whole.len().max(1));
                if let Some(byte) = whole.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
                replace(&whole)?;
            }
            Damage::Other => replace(&fs::read(other)?)?,
            Damage::Mode => fs::set_permissions(entry, fs::Permissions::from_mode(0o644))?,
            Damage::Owner => chown(entry, Some(1), None)?,
            Damage::Link => {
                symlink(other.file_name().context("a name")?, &new)?;
                fs::rename(&new, entry)?;
            }
            Damage::Longer => replace(&[fs::read(entry)?, b"more\n".to_vec()].concat())?,
            Damage::Stale => replace(change_line(&fs::read_to_string(entry)?, "file ").as_bytes())?,
            Damage::Untested => {
                replace(change_line(&fs::read_to_string(entry)?, "version ").as_bytes())?;
            }
            Damage::Swapped => {
                for _ in 0..10 {
                    exchange(entry, other)?;
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    exchange(entry, other)?;
                }
            }
            // While filters are made it would fail for good: two looks at the files must agree.
            Damage::NewLibrary if self.fill.exists() => return Ok(false),
            Damage::NewLibrary => {
                let file = self.root.join("etc/ld.so.cache");
                let new = file.with_extension("new");
                fs::copy(&file, &new)?;
                fs::rename(new, file)?;
            }
            Damage::Emptied => self.entries().iter().try_for_each(fs::remove_file)?,
        }
        Ok(true)
    }
}

fn is_gone(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    // A link may have come to lead to itself.
    error.is_some_and(|error| {
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
            || error.raw_os_error() == Some(Errno::ELOOP as i32)
    })
}

/// A whole entry with a right sum, in which one line has another first digit.
fn change_line(text: &str, word: &str) -> String {
    let body = text.rsplit_once("sum ").map_or(text, |(body, _)| body);
    let changed: String = body
        .lines()
        .map(|line| match line.strip_prefix(word) {
            Some(rest) => format!("{word}9{rest}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    format!("{changed}sum {:016x}\n", sum(changed.as_bytes()))
}

/// FNV-1a, as the entry has it.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Exchanges two names at once (renameat2(2)).
fn exchange(one: &Path, other: &Path) -> Result<()> {
    if one == other {
        return Ok(());
    }
    let c = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes());
    let (cwd, flags) = (rustix::fs::CWD, rustix::fs::RenameFlags::EXCHANGE);
    rustix::fs::renameat_with(cwd, c(one)?, cwd, c(other)?, flags)
        .map_err(|error| anyhow::Error::from(std::io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the damage would be a wrong sum, and nothing else would be tried.
    #[test]
    fn a_changed_line_leaves_the_sum_right() {
        let text = "nomad-nspawn filters 2\nversion 257\n";
        let whole = format!("{text}sum {:016x}\n", sum(text.as_bytes()));
        let same = change_line(&whole, "none ");
        assert_eq!(same, whole);
        let changed = change_line(&whole, "version ");
        assert!(changed.starts_with("nomad-nspawn filters 2\nversion 9257\nsum "), "{changed}");
        assert_ne!(changed.lines().last(), whole.lines().last());
    }
}
