//! Mount points that the image lacks. systemd-nspawn makes none in an ID-mapped clone, nor in a root
//! that it has made read-only, and version 252 makes the folders above them host root's.
//!
//! The image is hostile: its links are resolved by the kernel as the container's root would resolve
//! them (`RESOLVE_IN_ROOT`), so no walk leaves it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use proto::path::Absolute;
use proto::plan::Plan;

use super::Image;
use crate::task::open;
use crate::task::step::{At, Problem};

/// systemd-nspawn mounts its own file systems here, in which it makes what is missing.
const NSPAWNS_OWN: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Whether a path lies in a file system that systemd-nspawn mounts itself.
pub(in crate::task) fn is_nspawns_own(path: &Absolute) -> bool {
    NSPAWNS_OWN.iter().any(|own| path.to_path().starts_with(own))
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::task) enum MountPoint {
    Folder,
    File,
}

/// Where mount points are made, and whom they belong to.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) root: OwnedFd,
    pub(super) owner: u32,
}

impl Image {
    /// The root as it can be changed before the start, and who container root is in it.
    pub(in crate::task) fn editable(&self, plan: &Plan) -> std::io::Result<(OwnedFd, u32)> {
        match &self.provider {
            Some(provider) => Ok((provider.root.try_clone()?, provider.owner)),
            None => Ok((open::folder(&super::path())?, super::container_root(plan))),
        }
    }

    /// Makes the folders that every container needs.
    pub(super) fn base_folders(&self) -> Result<(), Problem> {
        let Some(provider) = &self.provider else { return Ok(()) };
        for name in BASE_FOLDERS {
            let made = provider.make(&provider.root, Path::new(name), MountPoint::Folder);
            made.at(format!("/{name}"))?;
        }
        Ok(())
    }

    /// Makes an absolute path inside a mount point, with the folders above it. Call it for every
    /// target, in any root mode, after the root has been mounted.
    pub(in crate::task) fn provide(
        &self,
        target: &Absolute,
        kind: MountPoint,
    ) -> Result<(), Problem> {
        if is_nspawns_own(target) {
            return Ok(());
        }
        let Some(provider) = &self.provider else { return Ok(()) };
        let names = target.components();
        let mut below = PathBuf::new();
        let mut parent = provider.root.try_clone().at(target)?;
        for (index, name) in names.iter().enumerate() {
            below.push(name.as_str());
            let last = index + 1 == names.len();
            let kind = if last { kind } else { MountPoint::Folder };
            let found = match open::in_root(provider.root.as_fd(), &below) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    match provider.make(&parent, Path::new(name.as_str()), kind).at(target)? {
                        Some(made) => made,
                        // A dangling link, such as one into /run.
                        None => return Ok(()),
                    }
                }
                other => other.at(target)?,
            };
            let is_folder = open::metadata(&found).at(target)?.is_dir();
            if is_folder != (kind == MountPoint::Folder) {
                let (is, wants) = if is_folder { ("folder", "file") } else { ("file", "folder") };
                return Err(Problem::refused(
                    target,
                    format!(
                        "/{} is a {is} in the image, the mount needs a {wants}",
                        below.display()
                    ),
                ));
            }
            parent = found;
        }
        Ok(())
    }
}

/// Folders that systemd-nspawn or we mount on in every container.
const BASE_FOLDERS: [&str; 10] =
    ["dev", "proc", "sys", "run", "tmp", "var", "etc", "alloc", "local", "secrets"];

impl Provider {
    /// `None`: something of that name is there, a link to nothing.
    fn make(
        &self,
        parent: &OwnedFd,
        name: &Path,
        kind: MountPoint,
    ) -> nix::Result<Option<OwnedFd>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = match kind {
            MountPoint::Folder => mkdirat(parent, name, Mode::from_bits_truncate(0o755))
                .and_then(|()| openat(parent, name, flags | OFlag::O_DIRECTORY, Mode::empty())),
            MountPoint::File => {
                let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
                openat(parent, name, flags | new, Mode::from_bits_truncate(0o644))
            }
        };
        match made {
            Err(Errno::EEXIST) => Ok(None),
            other => {
                let made = other?;
                nix::unistd::fchown(&made, Some(self.owner.into()), Some(self.owner.into()))?;
                Ok(Some(made))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// The image's links point at places that exist on the host.
    #[test]
    fn what_is_missing_is_made_inside_whatever_the_links_say() {
        let top = std::env::temp_dir().join(format!("nspawn-provide-{}", std::process::id()));
        let outside = top.join("outside");
        let root = top.join("image");
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::create_dir_all(&outside).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../../../..", root.join("up")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let root_fd = open::folder(&root).unwrap();
        let owner = nix::unistd::getuid().as_raw();
        let image = Image {
            handle: root_fd.try_clone().unwrap(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            lock: String::new(),
            provider: Some(Provider { root: root_fd, owner }),
        };
        let provide = |path: &str, kind| image.provide(&Absolute::parse(path).unwrap(), kind);
        for _again in 0..2 {
            provide("/lib/a/b", MountPoint::Folder).unwrap();
            provide("/new/config", MountPoint::File).unwrap();
            provide("/up/c", MountPoint::File).unwrap();
        }
        assert!(root.join("usr/lib/a/b").is_dir() && root.join("new/config").is_file());
        assert!(root.join("c").is_file());
        // A link to nothing is left to systemd-nspawn.
        provide("/absolute/x", MountPoint::Folder).unwrap();
        provide("/run/x", MountPoint::Folder).unwrap();
        assert!(fs::read_dir(&outside).unwrap().next().is_none() && !root.join("run").exists());
        for (path, kind) in [
            ("/file", MountPoint::Folder),
            ("/file/x", MountPoint::Folder),
            ("/usr/lib", MountPoint::File),
        ] {
            let problem = format!("{:?}", provide(path, kind).unwrap_err());
            assert!(problem.contains("in the image"), "{path}: {problem}");
        }
        fs::remove_dir_all(&top).unwrap();
    }
}
