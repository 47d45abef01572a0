//! Mount points that the image lacks. systemd-nspawn makes none in an ID-mapped clone, nor in a
//! root that it has made read-only, and version 252 makes the directories above them host root's.
//!
//! The image is hostile. The rule of each walk: **the kernel resolves every link, with the root of
//! the container as the root of the walk** (`RESOLVE_IN_ROOT`), so no walk leaves it; what is
//! missing is made in the directory that the last step opened, by one name without a link.
//!
//! In a mount from the host ([`Within::HostMount`]) others may make links at any time: there none
//! is followed at all.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component as PathPart, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use proto::path::{Absolute, Component};

use crate::open;
use crate::prepared::MountPoint;
use crate::stage::OwnPath;
use crate::step::{At, Problem};

/// systemd-nspawn mounts its own file systems here, in which it makes what is missing.
const NSPAWNS_OWN: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Links to nothing that are followed for one target.
const LINKS: usize = 8;

/// Whether a path lies in a file system that systemd-nspawn mounts itself.
pub(crate) fn is_nspawns_own(path: &Absolute) -> bool {
    NSPAWNS_OWN.iter().any(|own| path.to_path().starts_with(own))
}

/// What a walk to a mount point found.
#[derive(Debug)]
pub(crate) enum Point {
    There(OwnedFd),
    /// A link of the image to something that is not there, such as one into /run.
    DanglingLink {
        /// Where the link lies.
        directory: OwnedFd,
        name: Component,
        /// What was to be walked after it.
        rest: Vec<Component>,
    },
}

/// What a mount point is made in, which decides about links and owners.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Within {
    /// The container's root: its links lead where the container would see them lead.
    Root {
        /// Who gets what is made: container root.
        owner: u32,
    },
    /// A directory of the host: no link is followed. What is made belongs to the caller's file
    /// system uid, which is container root's.
    HostMount,
}

impl Within {
    fn open(self, top: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
        match self {
            Self::Root { .. } => open::in_root(top.as_fd(), path),
            Self::HostMount => open::beneath(top.as_fd(), path, OFlag::O_PATH, open::Mounts::Cross),
        }
    }

    fn owner(self) -> Option<u32> {
        match self {
            Self::Root { owner } => Some(owner),
            Self::HostMount => None,
        }
    }
}

/// The mounted root as it can be changed before the start.
pub(crate) struct Mounted {
    pub(crate) directory: OwnedFd,
    /// Who is container root in it.
    pub(crate) owner: u32,
    /// Whether an upper layer of the task's own holds what is changed in it.
    pub(super) layered: bool,
}

/// Directories that systemd-nspawn or we mount on in every container.
const BASE_DIRECTORIES: [&str; 10] =
    ["dev", "proc", "sys", "run", "tmp", "var", "etc", "alloc", "local", "secrets"];

/// Where systemd-nspawn looks for the description of what it boots.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

impl Mounted {
    /// Makes what systemd-nspawn takes a root for one by: /usr, or to boot it an os-release file.
    /// In the task's own layer; the image itself (`own_layer` false) is not for us to add to.
    pub(super) fn os_tree(&self, boots: bool, own_layer: bool) -> Result<(), Problem> {
        let has = |path: &str| open::in_root(self.directory.as_fd(), Path::new(path)).is_ok();
        let reason = match boots {
            true if OS_RELEASE.iter().any(|path| has(path)) => return Ok(()),
            // An empty one says nothing that is wrong; a link at /etc/os-release may lead into a
            // mount.
            true if own_layer => {
                let file = Absolute::parse(OS_RELEASE[1]).map_err(|e| Problem::refused("/", e))?;
                return self.provide(&file, MountPoint::File).map(drop);
            }
            true => {
                "has no os-release file, without which systemd-nspawn boots nothing: make \
                 /etc/os-release in it, an empty one will do; or use ephemeral = true"
            }
            // A link will do for systemd-nspawn.
            false if own_layer || has("/usr") => {
                let owner = Some(self.owner);
                return make(&self.directory, Path::new("usr"), MountPoint::Directory, owner)
                    .at("/usr");
            }
            false => {
                "has no /usr, without which systemd-nspawn starts nothing: make the directory in \
                 it, empty; or use ephemeral = true"
            }
        };
        Err(Problem::refused("root", reason))
    }

    /// Makes the directories that every container needs. systemd-nspawn makes nodes and files in
    /// them by path, as host root: none may be a link.
    pub(super) fn base_directories(&self) -> Result<(), Problem> {
        for name in BASE_DIRECTORIES {
            let (path, object) = (Path::new(name), format!("/{name}"));
            make(&self.directory, path, MountPoint::Directory, Some(self.owner)).at(&object)?;
            let found =
                open::beneath(self.directory.as_fd(), path, open::HANDLE, open::Mounts::Stay);
            let Ok(found) = found else {
                let reason =
                    "is no directory in the image, or a link: the container needs a directory";
                return Err(Problem::refused(object, reason));
            };
            self.copy_up(&found).at(&object)?;
        }
        Ok(())
    }

    /// Brings an object, and with it every directory above it, into the task's own upper layer.
    /// systemd-nspawn goes there by path as host root, and another task may write to the image
    /// meanwhile: what the upper layer holds cannot become a link of that task's.
    pub(crate) fn copy_up(&self, object: &OwnedFd) -> io::Result<()> {
        if !self.layered {
            // The image itself, to which no other task writes.
            return Ok(());
        }
        let mode = open::metadata(object)?.mode();
        // overlayfs copies before any change of attributes, also before one that changes nothing.
        OwnPath::of_handle(object).set_mode(mode)
    }

    /// Makes an absolute path inside a mount point, with the directories above it, and returns it
    /// without links. Call it for every target, in any root mode.
    pub(crate) fn provide(&self, target: &Absolute, kind: MountPoint) -> Result<Absolute, Problem> {
        let within = Within::Root { owner: self.owner };
        let mut real = target.clone();
        for _ in 0..LINKS {
            // systemd-nspawn mounts over what the image has there, so nothing is made below it.
            if is_nspawns_own(&real) {
                return Ok(real);
            }
            let point = make_path(&self.directory, real.components(), kind, within)
                .map_err(|problem| problem.about(target))?;
            match point {
                Point::There(point) => {
                    self.copy_up(&point).at(target)?;
                    return self.inside(&point, Path::new("")).at(target);
                }
                Point::DanglingLink { directory, name, rest } => {
                    let link = readlinkat(&directory, name.as_str()).at(target)?;
                    let mut leads_to = PathBuf::from(link);
                    leads_to.extend(rest.iter().map(Component::as_str));
                    // Resolved in text, as there is nothing to open. The next round walks the
                    // result from the top again, so a wrong guess cannot lead out.
                    real = self.inside(&directory, &leads_to).at(target)?;
                }
            }
        }
        Err(Problem::refused(target, "leads over too many links to nothing in the image"))
    }

    /// A path from one of the root's directories as the container sees it.
    pub(crate) fn inside(&self, directory: &OwnedFd, path: &Path) -> io::Result<Absolute> {
        // The kernel's own spelling of both, which has no links in it.
        let top = OwnPath::of_handle(&self.directory).read_link()?;
        let directory = OwnPath::of_handle(directory).read_link()?;
        let below = directory.strip_prefix(top).map_err(io::Error::other)?;
        let mut real = PathBuf::from("/");
        for part in below.components().chain(path.components()) {
            match part {
                PathPart::RootDir => real = "/".into(),
                PathPart::ParentDir => drop(real.pop()),
                PathPart::Normal(name) => real.push(name),
                PathPart::CurDir | PathPart::Prefix(_) => {}
            }
        }
        let real = real.to_str().ok_or_else(|| io::Error::other("leads to no readable name"))?;
        Absolute::parse(real).map_err(io::Error::other)
    }
}

/// Makes what is missing of a path below `top`; `kind`: of its last name, all others are
/// directories.
pub(crate) fn make_path(
    top: &OwnedFd,
    names: &[Component],
    kind: MountPoint,
    within: Within,
) -> Result<Point, Problem> {
    let mut walked = PathBuf::new();
    let mut parent = top.try_clone().at("/")?;
    let mut left = names;
    while let Some((name, rest)) = left.split_first() {
        left = rest;
        walked.push(name.as_str());
        let object = walked.display();
        let kind = if rest.is_empty() { kind } else { MountPoint::Directory };
        // From the top each time: for the image's links, the root is where the walk begins.
        let mut found = open::if_there(within.open(top, &walked)).at(&object)?;
        if found.is_none() {
            make(&parent, Path::new(name.as_str()), kind, within.owner()).at(&object)?;
            found = open::if_there(within.open(top, &walked)).at(&object)?;
        }
        parent = match (found, within) {
            (Some(found), _) => found,
            // The name was taken, so making it changed nothing: by a link to nothing.
            (None, Within::Root { .. }) => {
                let (name, rest) = (name.clone(), rest.to_vec());
                return Ok(Point::DanglingLink { directory: parent, name, rest });
            }
            (None, Within::HostMount) => return Err(Errno::ENOENT).at(&object),
        };
        check_kind(&parent, &walked, kind)?;
    }
    Ok(Point::There(parent))
}

/// A mount needs a mount point of its own kind.
fn check_kind(found: &OwnedFd, path: &Path, kind: MountPoint) -> Result<(), Problem> {
    let object = path.display();
    let is = match open::metadata(found).at(&object)?.file_type() {
        t if t.is_dir() => "directory",
        t if t.is_symlink() => "symbolic link",
        _ => "file",
    };
    let needed = if kind == MountPoint::Directory { "directory" } else { "file" };
    if is == needed {
        return Ok(());
    }
    let reason = format!("{object} is a {is} there, the mount needs a {needed}");
    Err(Problem::refused(&object, reason))
}

/// Makes a directory or an empty file, unless something of that name is there.
fn make(parent: &OwnedFd, name: &Path, kind: MountPoint, owner: Option<u32>) -> nix::Result<()> {
    // One name in an opened directory. It is opened again without following a link, and so is what
    // changes owner: never something that a link leads to.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = match kind {
        MountPoint::Directory => mkdirat(parent, name, Mode::from_bits_truncate(0o755))
            .and_then(|()| openat(parent, name, flags | open::HANDLE, Mode::empty())),
        MountPoint::File => {
            let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
            openat(parent, name, flags | new, Mode::from_bits_truncate(0o644))
        }
    };
    let made = match made {
        Err(Errno::EEXIST) => return Ok(()),
        other => other?,
    };
    match owner {
        Some(owner) => open::set_owner(&made, owner, owner),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "directories of the test's own")]

    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// In a mount from the host no link is followed, and none is taken for a mount point.
    #[test]
    fn in_a_mount_from_the_host_a_link_is_no_mount_point() {
        let top = std::env::temp_dir().join(format!("nspawn-points-{}", std::process::id()));
        fs::create_dir_all(top.join("directory")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        for (to, name) in [("file", "a"), ("directory", "b"), ("nothing", "c"), ("/etc", "d")] {
            symlink(to, top.join(name)).unwrap();
        }
        let handle = open::directory(&top).unwrap();
        let make = |path: &str, kind| {
            let path = Absolute::parse(path).unwrap();
            make_path(&handle, path.components(), kind, Within::HostMount)
        };
        for kind in [MountPoint::Directory, MountPoint::File] {
            for path in ["/a", "/b", "/c", "/d"] {
                let problem = format!("{:?}", make(path, kind).unwrap_err());
                assert!(problem.contains("is a symbolic link there"), "{path}: {problem}");
            }
        }
        make("/directory/x/y", MountPoint::File).unwrap();
        make("/directory/x", MountPoint::Directory).unwrap();
        assert!(top.join("directory/x/y").is_file() && !top.join("nothing").exists());
        fs::remove_dir_all(&top).unwrap();
    }

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
        let root_fd = open::directory(&root).unwrap();
        let owner = nix::unistd::getuid().as_raw();
        let mounted = Mounted { directory: root_fd, owner, layered: false };
        let provide = |path: &str, kind| mounted.provide(&Absolute::parse(path).unwrap(), kind);
        for _again in 0..2 {
            provide("/lib/a/b", MountPoint::Directory).unwrap();
            provide("/new/config", MountPoint::File).unwrap();
            provide("/up/c", MountPoint::File).unwrap();
        }
        assert!(root.join("usr/lib/a/b").is_dir() && root.join("new/config").is_file());
        assert!(root.join("c").is_file());
        // A link to nothing is left to systemd-nspawn.
        provide("/absolute/x", MountPoint::Directory).unwrap();
        provide("/run/x", MountPoint::Directory).unwrap();
        assert!(fs::read_dir(&outside).unwrap().next().is_none() && !root.join("run").exists());
        for (path, kind) in [
            ("/file", MountPoint::Directory),
            ("/file/x", MountPoint::Directory),
            ("/usr/lib", MountPoint::File),
        ] {
            let problem = format!("{:?}", provide(path, kind).unwrap_err());
            assert!(problem.contains("there, the mount needs"), "{path}: {problem}");
        }
        fs::remove_dir_all(&top).unwrap();
    }
}
