//! Files at /etc for name resolution and time zone: resolv.conf, hosts, localtime.
//!
//! systemd-nspawn's own options for them write into the root, which it cannot do in an ID-mapped
//! one. So each file is made on the stage, as container root's, and bound over the image's, which
//! stays as it is. A link in the image is taken away first where the root goes with the task; else
//! the bind goes to where it leads inside, as systemd-nspawn's does. /etc/hosts of a task in a zone
//! lies on the host instead, where the daemon keeps the names of the zone's tasks up to date.
//!
//! The contents are the driver's and are not looked at. The image is hostile: its links are
//! resolved inside it, and only a regular file of bounded size is read. Reads nothing of the host.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::{UnlinkatFlags, fchownat, symlinkat, unlinkat};
use proto::limits::{HOSTS_FILE_MAX, ZONE_HOSTS_MAX};
use proto::path::Relative;
use proto::plan::Plan;
use proto::target::Target;
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{Root, Volatile};

use super::open::{self, Mounts};
use super::prepared::{Extras, MountPoint};
use super::root::Mounted;
use super::stage::OwnPath;
use super::step::{At, Problem};
use kernel::layout::HOSTS_MARKER;
use kernel::syscalls;

/// Prepares the files on the stage, or in the root.
pub(super) fn prepare(plan: &Plan, root: &Mounted, extras: &mut Extras) -> Result<(), Problem> {
    // systemd-nspawn hides everything but /usr there.
    let hidden = plan.root.mode == Root::Volatile(Volatile::Yes);
    let etc =
        if hidden { None } else { open::in_root(root.directory.as_fd(), Path::new("etc")).ok() };
    let mut names = Names { plan, root, extras, etc };
    names.file("resolv.conf", &plan.names.resolver)?;
    let in_zone = plan.network.zone().is_some();
    if in_zone || !plan.names.hosts.is_empty() {
        names.hosts(&plan.names.hosts, in_zone)?;
    }
    match &plan.names.zone {
        Some(zone) if names.link_zone(zone)? => Ok(()),
        _ => names.file("localtime", &plan.names.localtime),
    }
}

struct Names<'a> {
    plan: &'a Plan,
    root: &'a Mounted,
    extras: &'a mut Extras,
    /// The root's /etc, unless it has none.
    etc: Option<OwnedFd>,
}

impl Names<'_> {
    fn file(&mut self, name: &str, file: &EtcFile) -> Result<(), Problem> {
        let (content, link, read_only) = match file {
            EtcFile::Keep => return Ok(()),
            EtcFile::Delete => return self.remove(name),
            EtcFile::Put { content, link, read_only } => (content, *link, *read_only),
        };
        if link == ImageLink::Keep && self.is_link(name) {
            self.extras.notes.push(format!(
                "/etc/{name} of the image is a symbolic link, so it stays; \"replace-…\" would \
                 take its place"
            ));
            return Ok(());
        }
        self.put(name, content, link, read_only)
    }

    /// The image's lines and these; in a zone the daemon adds the names of the other tasks.
    fn hosts(&mut self, lines: &[u8], in_zone: bool) -> Result<(), Problem> {
        const NAME: &str = "hosts";
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let image = self
            .etc
            .as_ref()
            .and_then(|etc| open::beneath(etc.as_fd(), Path::new(NAME), flags, Mounts::Stay).ok());
        let mut content = match image.map(File::from) {
            // An empty one may be an earlier run's mount point.
            Some(file) if file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0) => {
                open::read_all(file, HOSTS_FILE_MAX).at("/etc/hosts of the image")?
            }
            _ => b"127.0.0.1 localhost\n::1 localhost\n".to_vec(),
        };
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        content.extend(lines);
        if !in_zone {
            return self.put(NAME, &content, ImageLink::Cover, false);
        }
        if content.last().is_some_and(|last| *last != b'\n') {
            content.push(b'\n');
        }
        if content.len() > ZONE_HOSTS_MAX {
            let reason = format!(
                "{} bytes of the image and extra_hosts, but a task of a zone has at most \
                 {ZONE_HOSTS_MAX}; remove lines, or network_zone",
                content.len()
            );
            return Err(Problem::refused("/etc/hosts", reason));
        }
        content.extend(HOSTS_MARKER.as_bytes());
        // The host's own file, and root's: the daemon writes to it while the task runs, and the
        // task never.
        let file = OwnPath::zone_hosts(self.plan.unit);
        file.write_new(&content)?;
        file.set_mode(0o644).at(&file)?;
        self.mount(NAME, file, ImageLink::Cover, true)
    }

    /// Whether the image has the zone, so that the link could be made.
    fn link_zone(&self, zone: &Relative) -> Result<bool, Problem> {
        let Some(etc) = &self.etc else { return Ok(false) };
        let path = Path::new("usr/share/zoneinfo").join(zone.to_path());
        if open::in_root(self.root.directory.as_fd(), &path).is_err() {
            return Ok(false);
        }
        self.remove("localtime")?;
        let object = "/etc/localtime";
        symlinkat(&Path::new("..").join(path), etc, "localtime").at(object)?;
        let (uid, gid) = (Some(self.root.owner.into()), Some(self.root.owner.into()));
        fchownat(etc, "localtime", uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).at(object)?;
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
    fn put(
        &mut self,
        name: &str,
        content: &[u8],
        link: ImageLink,
        read_only: bool,
    ) -> Result<(), Problem> {
        let file = OwnPath::on_stage(name);
        file.write_new(content)?;
        file.set_mode(0o644).at(&file)?;
        file.set_owner(self.plan.users.map(|range| range.base)).at(&file)?;
        self.mount(name, file, link, read_only)
    }

    /// Shows a file in the place of the image's.
    fn mount(
        &mut self,
        name: &str,
        mut file: OwnPath,
        link: ImageLink,
        read_only: bool,
    ) -> Result<(), Problem> {
        let goes = match link {
            ImageLink::Keep | ImageLink::Follow => false,
            ImageLink::Cover => !self.plan.root.mode.writes_image(),
            ImageLink::Replace => true,
        };
        if goes && self.is_link(name) {
            self.remove(name)?;
        }
        if read_only {
            // A mount of its own: container root may write to its own file whatever the mode.
            let plain = file.open(OFlag::O_PATH).at(name)?;
            let clone = syscalls::clone_mount(plain.as_fd(), false).at(name)?;
            let attributes =
                syscalls::NO_DEV | syscalls::NO_SUID | syscalls::NO_EXEC | syscalls::READ_ONLY;
            syscalls::set_mount_attributes(clone.as_fd(), attributes, None).at(name)?;
            file = OwnPath::on_stage(format!("{name}.read-only"));
            file.attach(clone.as_fd(), MountPoint::File)?;
        }
        let path = format!("/etc/{name}");
        let target =
            Target::parse(&path).map_err(|rule| Problem::refused(&path, rule.to_string()))?;
        self.extras.mount(file, &target, MountPoint::File);
        Ok(())
    }
}
