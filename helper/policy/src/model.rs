//! The policy file: root-owned, closed to writers, read whole or not at all.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use proto::capability::Capabilities;
use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::spec::files::DeviceAccess;
use proto::spec::process::LimitName;

use super::parse;

/// Longest policy file, in bytes.
const LONGEST: u64 = 64 * 1024;

/// What the helper allows. Defaults are strict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where image names are looked up.
    pub images_store: Absolute,
    /// Folders below which images may lie.
    pub images_paths: Vec<ImagePath>,
    /// Folders that no image shows, unless an entry lies in one of them: the strict preset's.
    pub images_never: Vec<Absolute>,
    /// Folders in which Nomad keeps allocations.
    pub alloc_dirs: Vec<Absolute>,
    /// Folders in which Nomad mounts parts of allocations again.
    pub alloc_mounts: Vec<Absolute>,
    /// Uid of the Nomad agent.
    pub agent_uid: u32,
    /// Whether every task needs a user namespace.
    pub userns_require: bool,
    /// Images that may run without one all the same.
    pub userns_except: Vec<Absolute>,
    /// Folders that may be bound read-only.
    pub binds_read_only: Vec<Absolute>,
    /// Folders that may be bound, also writable.
    pub binds_read_write: Vec<Absolute>,
    /// Folders that are never bound: the operator's.
    pub binds_deny: Vec<Absolute>,
    /// Folders that are never bound: the strict preset's.
    pub binds_never: Vec<Absolute>,
    /// Nomad's data, of which only the allocation's own is bound: the strict preset's.
    pub nomad_data: Vec<Absolute>,
    /// What becomes of a writable bind whose source is not protected.
    pub binds_unprotected: Unprotected,
    /// Device nodes that tasks may have.
    pub devices_allow: Vec<DeviceRule>,
    /// Capabilities that tasks may have beyond systemd-nspawn's own set.
    pub caps_allow: Capabilities,
    /// Kinds of network that tasks may have.
    pub network_allow: Vec<String>,
    /// Folders with network namespaces that tasks may join.
    pub netns_paths: Vec<Absolute>,
    /// Tasks at once.
    pub max_tasks: usize,
    /// Most memory of one task, in bytes; a task without limit is refused then.
    pub memory: Option<u64>,
    /// Most processes of one task.
    pub tasks: Option<u64>,
    /// Most that a task may ask for of a process limit.
    pub ulimit: Vec<(LimitName, u64)>,
    /// System calls and groups that tasks may have beyond systemd-nspawn's list.
    pub syscalls_extra: Vec<String>,
    /// Patterns of kernel settings.
    pub sysctl_allow: Vec<String>,
    /// SELinux contexts.
    pub lsm_profiles: Vec<String>,
    /// Versions of systemd that run tasks in spite of a known hole.
    pub systemd_accept: Vec<String>,
}

/// A folder of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePath {
    /// The folder.
    pub path: Absolute,
    /// Whether tasks may change the images below it.
    pub writable: bool,
}

/// Device nodes by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Begins with /dev/.
    pub pattern: String,
    /// What may be done with them.
    pub access: DeviceAccess,
}

impl Policy {
    /// Whether the operator has accepted this version of systemd, known holes and all.
    #[must_use]
    pub fn accepts(&self, systemd: &str) -> bool {
        self.systemd_accept.iter().any(|accepted| accepted == systemd)
    }
}

/// Reads the policy file; a missing one means the defaults.
///
/// # Errors
/// In words: who could write it, or which line is wrong.
pub fn load(path: &Path) -> Result<Policy, String> {
    find(path)?.map_or_else(|| parse(""), Ok)
}

/// Reads the policy file; `None` when there is none.
///
/// # Errors
/// In words: who could write it, or which line is wrong.
pub fn find(path: &Path) -> Result<Option<Policy>, String> {
    let text = match read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|e| format!("{}: {e}", path.display()))?,
    };
    parse(&text).map(Some).map_err(|e| format!("{}: {e}", path.display()))
}

/// The text of the file, which every folder above it and its own inode protect from all but root.
/// Judged from the root down: what lies in a folder that only root can write stays as it was seen.
fn read(path: &Path) -> io::Result<String> {
    let folders: Vec<_> = path.ancestors().skip(1).collect();
    for folder in folders.iter().rev() {
        check_owner(folder, &fs::symlink_metadata(folder)?)?;
    }
    // Neither follows a link nor waits for the writer of a FIFO.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    check_owner(path, &meta)?;
    if !meta.is_file() {
        return Err(io::Error::other("must be a regular file"));
    }
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other("longer than 64 KiB"));
    }
    Ok(text)
}

fn check_owner(path: &Path, meta: &fs::Metadata) -> io::Result<()> {
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 || meta.is_symlink() {
        return Err(io::Error::other(format!(
            "{} must belong to root, be no link and not be writable by others",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// Everything that makes a file not root's alone, in a folder that is.
    #[test]
    fn only_a_file_that_is_roots_alone_is_read() {
        assert!(nix::unistd::geteuid().is_root(), "it makes files of root's: run it as root");
        let dir = Path::new("/run").join(format!("nspawn-policy-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        mode(&dir, 0o755).unwrap();
        let file = dir.join("policy.toml");
        fs::write(&file, "[limits]\nmax_tasks = 7").unwrap();
        let refused = |words: &str| {
            let error = load(&file).unwrap_err();
            assert!(error.contains(words) && error.starts_with('/'), "{words}: {error}");
        };
        mode(&file, 0o644).unwrap();
        assert_eq!(load(&file).unwrap().max_tasks, 7);
        mode(&file, 0o664).unwrap();
        refused("must belong to root");
        mode(&file, 0o646).unwrap();
        refused("must belong to root");
        mode(&file, 0o644).unwrap();
        std::os::unix::fs::chown(&file, Some(1), None).unwrap();
        refused("must belong to root");
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        mode(&dir, 0o777).unwrap();
        refused(dir.to_str().unwrap());
        mode(&dir, 0o755).unwrap();
        fs::write(&file, vec![b'#'; 64 * 1024 + 1]).unwrap();
        refused("longer than 64 KiB");
        fs::write(&file, vec![b'#'; 64 * 1024]).unwrap();
        assert!(load(&file).is_ok());
        fs::write(&file, [0xff]).unwrap();
        refused("UTF-8");
        fs::write(&file, "\n[limits]\nmax = 7").unwrap();
        refused("policy.toml: line 3: limits.max is no key");
        fs::remove_file(&file).unwrap();
        assert_eq!(load(&file), parse(""), "a missing file means the defaults");
        assert_eq!(find(&file), Ok(None));
        fs::write(dir.join("good"), "").unwrap();
        symlink("good", &file).unwrap();
        refused("symbolic link");
        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRUSR).unwrap();
        refused("must be a regular file");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_write_to_protects_nothing() {
        let file = std::env::temp_dir().join("no-such-policy.toml");
        assert!(load(&file).unwrap_err().contains("must belong to root"));
        assert_eq!(load(Path::new("/etc/no-such-folder/policy.toml")), parse(""));
    }
}
