//! Mount points that the image lacks. systemd-nspawn makes none in an ID-mapped clone, nor in a root
//! that it has made read-only, and version 252 makes the folders above them host root's.
//!
//! The image is hostile: its links are resolved by the kernel as the container's root would resolve
//! them (`RESOLVE_IN_ROOT`), so no walk leaves it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component as PathPart, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fchownat;
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
    /// A link to nothing: the folder that it lies in, and its number among the names.
    Nowhere(OwnedFd, usize),
}

/// The mounted root as it can be changed before the start.
pub(crate) struct Mounted {
    pub(crate) folder: OwnedFd,
    /// Who is container root in it.
    pub(crate) owner: u32,
    /// Whether an upper layer of the task's own holds what is changed in it.
    pub(super) layered: bool,
}

/// Folders that systemd-nspawn or we mount on in every container.
const BASE_FOLDERS: [&str; 10] =
    ["dev", "proc", "sys", "run", "tmp", "var", "etc", "alloc", "local", "secrets"];

/// Where systemd-nspawn looks for the description of what it boots.
const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

impl Mounted {
    /// Makes what systemd-nspawn takes a root for one by: /usr, or to boot it an os-release file. In
    /// the task's own layer; the image itself (`own_layer` false) is not for us to add to.
    pub(super) fn os_tree(&self, boots: bool, own_layer: bool) -> Result<(), Problem> {
        let has = |path: &str| open::in_root(self.folder.as_fd(), Path::new(path)).is_ok();
        let reason = match boots {
            true if OS_RELEASE.iter().any(|path| has(path)) => return Ok(()),
            // An empty one says nothing that is wrong; a link at /etc/os-release may lead into a mount.
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
                return make(&self.folder, Path::new("usr"), MountPoint::Folder, owner).at("/usr");
            }
            false => {
                "has no /usr, without which systemd-nspawn starts nothing: make the directory in it, \
                 empty; or use ephemeral = true"
            }
        };
        Err(Problem::refused("root", reason))
    }

    /// Makes the folders that every container needs. systemd-nspawn makes nodes and files in them by
    /// path, as host root: none may be a link.
    pub(super) fn base_folders(&self) -> Result<(), Problem> {
        for name in BASE_FOLDERS {
            let (path, object) = (Path::new(name), format!("/{name}"));
            make(&self.folder, path, MountPoint::Folder, Some(self.owner)).at(&object)?;
            let found = open::beneath(self.folder.as_fd(), path, open::HANDLE, open::Mounts::Stay);
            let Ok(found) = found else {
                let reason = "is no folder in the image, or a link: the container needs a folder";
                return Err(Problem::refused(object, reason));
            };
            self.copy_up(&found).at(&object)?;
        }
        Ok(())
    }

    /// Brings an object, and with it every directory above it, into the task's own upper layer.
    /// systemd-nspawn goes there by path as host root, and another task may write to the image
    /// meanwhile: what the upper layer holds cannot become a link of that task's.
    pub(super) fn copy_up(&self, object: &OwnedFd) -> io::Result<()> {
        if !self.layered {
            // The image itself, to which no other task writes.
            return Ok(());
        }
        let mode = open::metadata(object)?.mode();
        // overlayfs copies before any change of attributes, also before one that changes nothing.
        OwnPath::of_handle(object).set_mode(mode)
    }

    /// Makes an absolute path inside a mount point, with the folders above it, and returns it
    /// without links. Call it for every target, in any root mode.
    pub(crate) fn provide(&self, target: &Absolute, kind: MountPoint) -> Result<Absolute, Problem> {
        let find = |below: &Path| open::in_root(self.folder.as_fd(), below);
        let mut real = target.clone();
        for _ in 0..LINKS {
            if is_nspawns_own(&real) {
                return Ok(real);
            }
            let names = real.components();
            let point = make_path(&self.folder, names, kind, Some(self.owner), find)
                .map_err(|problem| problem.about(target))?;
            real = match point {
                Point::There(point) => {
                    self.copy_up(&point).at(target)?;
                    return self.inside(&point, Path::new("")).at(target);
                }
                Point::Nowhere(folder, at) => {
                    let (name, rest) = (names.get(at), names.get(at + 1..).unwrap_or_default());
                    let link =
                        readlinkat(&folder, name.map_or("", Component::as_str)).at(target)?;
                    let mut leads_to = PathBuf::from(link);
                    leads_to.extend(rest.iter().map(Component::as_str));
                    self.inside(&folder, &leads_to).at(target)?
                }
            };
        }
        Err(Problem::refused(target, "leads over too many links to nothing in the image"))
    }

    /// A path from one of the root's folders as the container sees it.
    pub(crate) fn inside(&self, folder: &OwnedFd, path: &Path) -> io::Result<Absolute> {
        let top = OwnPath::of_handle(&self.folder).read_link()?;
        let folder = OwnPath::of_handle(folder).read_link()?;
        let below = folder.strip_prefix(top).map_err(io::Error::other)?;
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

/// Makes what is missing of a path below `top`, which `find` walks; `owner`: who gets it, if that is
/// not who makes it.
pub(crate) fn make_path(
    top: &OwnedFd,
    names: &[Component],
    kind: MountPoint,
    owner: Option<u32>,
    find: impl Fn(&Path) -> io::Result<OwnedFd>,
) -> Result<Point, Problem> {
    let mut below = PathBuf::new();
    let mut parent = top.try_clone().at("/")?;
    for (index, name) in names.iter().enumerate() {
        below.push(name.as_str());
        let object = below.display();
        let kind = if index + 1 == names.len() { kind } else { MountPoint::Folder };
        let found = match open::if_there(find(&below)).at(&object)? {
            Some(found) => found,
            None => {
                make(&parent, Path::new(name.as_str()), kind, owner).at(&object)?;
                match open::if_there(find(&below)).at(&object)? {
                    Some(found) => found,
                    // Such as one into /run.
                    None if owner.is_some() => return Ok(Point::Nowhere(parent, index)),
                    None => return Err(Errno::ENOENT).at(&object),
                }
            }
        };
        let is = match open::metadata(&found).at(&object)?.file_type() {
            t if t.is_dir() => "folder",
            t if t.is_symlink() => "symbolic link",
            _ => "file",
        };
        let wants = if kind == MountPoint::Folder { "folder" } else { "file" };
        if is != wants {
            let reason = format!("{object} is a {is} there, the mount needs a {wants}");
            return Err(Problem::refused(&object, reason));
        }
        parent = found;
    }
    Ok(Point::There(parent))
}

/// Something of that name may be there.
fn make(parent: &OwnedFd, name: &Path, kind: MountPoint, owner: Option<u32>) -> nix::Result<()> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = match kind {
        MountPoint::Folder => mkdirat(parent, name, Mode::from_bits_truncate(0o755))
            .and_then(|()| openat(parent, name, flags | open::HANDLE, Mode::empty())),
        MountPoint::File => {
            let new = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY;
            openat(parent, name, flags | new, Mode::from_bits_truncate(0o644))
        }
    };
    match (made, owner) {
        (Err(Errno::EEXIST), _) => Ok(()),
        (Ok(made), Some(owner)) => {
            let (uid, gid) = (Some(owner.into()), Some(owner.into()));
            fchownat(&made, "", uid, gid, AtFlags::AT_EMPTY_PATH)
        }
        (made, _) => made.map(drop),
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
        fs::create_dir_all(top.join("folder")).unwrap();
        fs::write(top.join("file"), "").unwrap();
        for (to, name) in [("file", "a"), ("folder", "b"), ("nothing", "c"), ("/etc", "d")] {
            symlink(to, top.join(name)).unwrap();
        }
        let handle = open::folder(&top).unwrap();
        let find =
            |path: &Path| open::beneath(handle.as_fd(), path, OFlag::O_PATH, open::Mounts::Cross);
        let make = |path: &str, kind| {
            let path = Absolute::parse(path).unwrap();
            make_path(&handle, path.components(), kind, None, find)
        };
        for kind in [MountPoint::Folder, MountPoint::File] {
            for path in ["/a", "/b", "/c", "/d"] {
                let problem = format!("{:?}", make(path, kind).unwrap_err());
                assert!(problem.contains("is a symbolic link there"), "{path}: {problem}");
            }
        }
        make("/folder/x/y", MountPoint::File).unwrap();
        make("/folder/x", MountPoint::Folder).unwrap();
        assert!(top.join("folder/x/y").is_file() && !top.join("nothing").exists());
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
        let root_fd = open::folder(&root).unwrap();
        let owner = nix::unistd::getuid().as_raw();
        let mounted = Mounted { folder: root_fd, owner, layered: false };
        let provide = |path: &str, kind| mounted.provide(&Absolute::parse(path).unwrap(), kind);
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
            assert!(problem.contains("there, the mount needs"), "{path}: {problem}");
        }
        fs::remove_dir_all(&top).unwrap();
    }
}
