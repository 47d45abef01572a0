//! Name resolution and time zone: /etc/resolv.conf, /etc/hosts, /etc/localtime.
//!
//! systemd-nspawn's own options for them write into the root, which it cannot do in an ID-mapped
//! one. So each file is made on the stage, as container root's, and bound over the image's, which
//! stays as it is. What each mode means is as in setup_resolv_conf() and setup_timezone() of
//! nspawn.c. A link in the image is taken away first where the root goes with the task; else the
//! bind goes to where it leads inside, as systemd-nspawn's does.
//!
//! Trusts the host's files in /etc, /usr and /run. The image is hostile: its links are resolved
//! inside it, and only a regular file of bounded size is read.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::chown;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{UnlinkatFlags, fchownat, symlinkat, unlinkat};
use proto::limits::HOSTS_FILE_MAX;
use proto::plan::Plan;
use proto::spec::resolver::{HostEntry, Resolver, ResolverFile, ResolverUse, Timezone};
use proto::spec::{Root, Volatile};
use proto::target::Target;

use super::STAGE;
use super::extras::{Extras, MountPoint};
use super::open::{self, Mounts};
use super::root::{Mounted, attach_at};
use super::step::{At, Problem};
use crate::sys;

const LOCALTIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";

/// Prepares the files on the stage, or in the root.
pub(super) fn prepare(plan: &Plan, root: &Mounted, extras: &mut Extras) -> Result<(), Problem> {
    // systemd-nspawn hides everything but /usr there.
    let hidden = plan.root.mode == Root::Volatile(Volatile::Yes);
    let etc = if hidden { None } else { open::in_root(root.folder.as_fd(), Path::new("etc")).ok() };
    let mut names = Names { plan, root, extras, etc };
    names.resolver(&plan.names.resolver)?;
    if !plan.names.hosts.is_empty() {
        names.hosts(&plan.names.hosts)?;
    }
    names.timezone(plan.names.timezone)
}

struct Names<'a> {
    plan: &'a Plan,
    root: &'a Mounted,
    extras: &'a mut Extras,
    /// The root's /etc, unless it has none.
    etc: Option<OwnedFd>,
}

impl Names<'_> {
    fn resolver(&mut self, resolver: &Resolver) -> Result<(), Problem> {
        const NAME: &str = "resolv.conf";
        match resolver {
            Resolver::Off => Ok(()),
            Resolver::Delete => self.remove(NAME),
            Resolver::Host { how: ResolverUse::Copy, .. } if self.is_link(NAME) => {
                let note = "resolv_conf: the image's /etc/resolv.conf is a symbolic link, so it \
                            stays; \"replace-…\" would take its place";
                self.extras.notes.push(note.to_owned());
                Ok(())
            }
            Resolver::Host { how: ResolverUse::Bind, which } => self.bind(host_file(*which)?, NAME),
            Resolver::Host { which, .. } => {
                let path = host_file(*which)?;
                let content = read(File::open(path).at(path.display())?).at(path.display())?;
                self.put(NAME, &content)
            }
            Resolver::Own { servers, searches, options } => {
                let mut text = String::new();
                for server in servers {
                    text.push_str(&format!("nameserver {server}\n"));
                }
                for (key, words) in [("search", words(searches)), ("options", words(options))] {
                    if !words.is_empty() {
                        text.push_str(&format!("{key}{words}\n"));
                    }
                }
                self.put(NAME, text.as_bytes())
            }
        }
    }

    fn hosts(&mut self, entries: &[HostEntry]) -> Result<(), Problem> {
        const NAME: &str = "hosts";
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let image = self
            .etc
            .as_ref()
            .and_then(|etc| open::beneath(etc.as_fd(), Path::new(NAME), flags, Mounts::Stay).ok());
        let mut content = match image.map(File::from) {
            // An empty one may be an earlier run's mount point.
            Some(file) if file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0) => {
                read(file).at("/etc/hosts of the image")?
            }
            _ => b"127.0.0.1 localhost\n::1 localhost\n".to_vec(),
        };
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        for entry in entries {
            content.extend(format!("{} {}\n", entry.address, entry.name).bytes());
        }
        self.put(NAME, &content)
    }

    fn timezone(&mut self, timezone: Timezone) -> Result<(), Problem> {
        const NAME: &str = "localtime";
        match timezone {
            Timezone::Off => Ok(()),
            Timezone::Delete => self.remove(NAME),
            Timezone::Bind => self.bind(Path::new(LOCALTIME), NAME),
            Timezone::Copy => {
                let content = read(File::open(LOCALTIME).at(LOCALTIME)?).at(LOCALTIME)?;
                // A bind would go to the zone that the link names, and change that one.
                if self.is_link(NAME) {
                    self.remove(NAME)?;
                }
                self.put(NAME, &content)
            }
            Timezone::Symlink => {
                let link = fs::read_link(LOCALTIME).ok();
                let zone = link.as_deref().and_then(zone);
                if !zone.map(|zone| self.link_zone(zone)).transpose()?.unwrap_or(false) {
                    self.bind(Path::new(LOCALTIME), NAME)?;
                }
                Ok(())
            }
        }
    }

    /// Whether the image has the zone, so that the link could be made.
    fn link_zone(&self, zone: &Path) -> Result<bool, Problem> {
        let Some(etc) = &self.etc else { return Ok(false) };
        let path = Path::new(ZONES).join(zone);
        if open::in_root(self.root.folder.as_fd(), &path).is_err() {
            return Ok(false);
        }
        self.remove("localtime")?;
        let target = Path::new("..").join(path.strip_prefix("/").unwrap_or(&path));
        symlinkat(&target, etc, "localtime").at(LOCALTIME)?;
        let (uid, gid) = (Some(self.root.owner.into()), Some(self.root.owner.into()));
        fchownat(etc, "localtime", uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).at(LOCALTIME)?;
        Ok(true)
    }

    fn is_link(&self, name: &str) -> bool {
        self.etc.as_ref().is_some_and(|etc| {
            open::beneath(etc.as_fd(), Path::new(name), OFlag::O_PATH, Mounts::Stay)
                .and_then(|file| open::metadata(&file))
                .is_ok_and(|meta| meta.is_symlink())
        })
    }

    fn remove(&self, name: &str) -> Result<(), Problem> {
        let Some(etc) = &self.etc else { return Ok(()) };
        match unlinkat(etc, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            other => other.at(format!("/etc/{name} of the image")),
        }
    }

    /// A file with this content, container root's, in the place of the image's.
    fn put(&mut self, name: &str, content: &[u8]) -> Result<(), Problem> {
        if !self.plan.root.mode.writes_image() && self.is_link(name) {
            self.remove(name)?;
        }
        let file = Path::new(STAGE).join(name);
        fs::write(&file, content).at(file.display())?;
        let owner = self.plan.users.map(|range| range.base);
        chown(&file, owner, owner).at(file.display())?;
        self.mount(name)
    }

    /// One of the host's files, read-only, in the place of the image's.
    fn bind(&mut self, file: &Path, name: &str) -> Result<(), Problem> {
        let file = File::open(file).at(file.display())?;
        let clone = sys::clone_mount(file.as_fd(), false).at(name)?;
        let attributes = sys::NO_DEV | sys::NO_SUID | sys::NO_EXEC | sys::READ_ONLY;
        sys::set_mount_attributes(clone.as_fd(), attributes, None).at(name)?;
        attach_at(clone.as_fd(), &Path::new(STAGE).join(name), MountPoint::File)?;
        self.mount(name)
    }

    fn mount(&mut self, name: &str) -> Result<(), Problem> {
        let path = format!("/etc/{name}");
        let target =
            Target::parse(&path).map_err(|rule| Problem::refused(&path, rule.to_string()))?;
        self.extras.mount(Path::new(STAGE).join(name), &target, MountPoint::File);
        Ok(())
    }
}

/// The words, each after a blank.
fn words(words: &[impl std::fmt::Display]) -> String {
    words.iter().map(|word| format!(" {word}")).collect()
}

/// The file of the host that systemd-nspawn would take.
fn host_file(which: ResolverFile) -> Result<&'static Path, Problem> {
    const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
    const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";
    let (path, hint) = match which {
        ResolverFile::Static => ("/usr/lib/systemd/resolv.conf", "it comes with systemd-resolved"),
        ResolverFile::Stub => (STUB, "systemd-resolved does not run"),
        ResolverFile::Uplink if Path::new(UPLINK).exists() => (UPLINK, "it is no regular file"),
        _ => ("/etc/resolv.conf", "the host itself resolves no names"),
    };
    let path = Path::new(path);
    if path.is_file() {
        return Ok(path);
    }
    let reason = format!(
        "is no file on this host ({hint}); use a \"…-host\" mode or dns servers of the job"
    );
    Err(Problem::refused(path.display(), reason))
}

/// The zone that a link at /etc/localtime names (timezone_from_path() of systemd).
fn zone(link: &Path) -> Option<&Path> {
    link.strip_prefix(ZONES).or_else(|_| link.strip_prefix(Path::new("..").join(&ZONES[1..]))).ok()
}

fn read(file: File) -> io::Result<Vec<u8>> {
    open::read_all(file, HOSTS_FILE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_those_below_the_zone_folder() {
        for link in ["/usr/share/zoneinfo/Europe/Berlin", "../usr/share/zoneinfo/Europe/Berlin"] {
            assert_eq!(zone(Path::new(link)), Some(Path::new("Europe/Berlin")), "{link}");
        }
        for link in ["/etc/zone", "Europe/Berlin", "/usr/share/zoneinfos/x"] {
            assert_eq!(zone(Path::new(link)), None, "{link}");
        }
    }

    #[test]
    fn a_long_file_is_not_read() {
        let zeros = || File::open("/dev/zero").unwrap();
        assert!(read(zeros()).unwrap_err().to_string().contains("longer"));
    }
}
