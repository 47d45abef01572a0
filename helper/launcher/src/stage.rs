//! Every call of the launcher that takes a path.
//!
//! Some system calls take nothing but a path, and so does systemd-nspawn. Each such path is an
//! [`OwnPath`]: made of constants, numbers and names that proto has checked, below directories that
//! only root can write. `clippy.toml` of this crate forbids those calls everywhere else. What a
//! job, a task or an image names is opened beneath a root ([`kernel::open`]) and used by
//! descriptor.
//!
//! Never takes a path that anybody else has spelled.
#![allow(clippy::disallowed_methods, reason = "this is the file that exists for them")]

use std::fmt::{self, Display};
use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chown, mkfifo};
use proto::name::{AllocId, TaskName};
use proto::path::Absolute;
use proto::unit_id::UnitId;

use super::prepared::MountPoint;
use super::step::{At, Problem};
use kernel::ended::{ENDED, ended_file};
use kernel::layout::{
    FILTERS, LOCKS, READY, UPPERS, executed_mark, filter_options, hosts_file, upper,
};
use kernel::{kept_layers, syscalls};

/// Directory on which each launcher mounts a private tmpfs, in its own mount namespace.
const STAGE: &str = "/run/nomad-nspawn/stage";
/// The OCI bundle that holds the job's environment.
const BUNDLE: &str = "/run/systemd/nspawn/bundle";
/// The cgroup of systemd-nspawn itself, below that of the unit (nspawn-cgroup.c).
pub(super) const SUPERVISOR: &str = "supervisor";
const NONE: Option<&str> = None;

/// A path that nobody but this project spells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnPath(PathBuf);

impl Display for OwnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// The places.
impl OwnPath {
    /// A constant.
    pub(super) fn constant(path: &'static str) -> Self {
        Self(path.into())
    }

    /// The stage itself.
    pub(super) fn stage() -> Self {
        Self::constant(STAGE)
    }

    /// An entry of the stage. `name`: a constant, which may hold a number.
    pub(super) fn on_stage(name: impl Display) -> Self {
        Self::stage().join(name)
    }

    /// Where systemd-nspawn finds the container's root.
    pub(super) fn root() -> Self {
        Self::on_stage("root")
    }

    /// The bundle, in the task's own runtime directory of systemd-nspawn.
    pub(super) fn bundle() -> Self {
        Self::constant(BUNDLE)
    }

    /// The unit's own directory, which `clean` takes away: its upper layers, pipes and notes.
    pub(super) fn of_unit(unit: UnitId) -> Self {
        Self(upper(unit))
    }

    /// The directory of all upper layers.
    pub(super) fn uppers() -> Self {
        Self::constant(UPPERS)
    }

    /// The cgroup of a task's unit, where this process is in it or below.
    pub(super) fn cgroup_around(unit: UnitId) -> io::Result<Option<Self>> {
        let name = format!("nomad-nspawn-{unit}.service");
        let around = |own: Self| {
            let mut above = own.0.ancestors();
            above
                .find(|path| path.file_name().is_some_and(|it| it == name.as_str()))
                .map(Into::into)
        };
        Ok(Self::own_cgroup()?.and_then(around).map(Self))
    }

    /// The directory of what is kept of ended tasks.
    pub(super) fn all_ended() -> Self {
        Self::constant(ENDED)
    }

    /// What is kept of an ended task.
    pub(super) fn ended(unit: UnitId) -> Self {
        Self(ended_file(unit))
    }

    /// The mark that an end of the unit's main process is the payload's.
    pub(super) fn executed_mark(unit: UnitId) -> Self {
        Self(executed_mark(unit))
    }

    /// The file that names the entry of the cache for the payload's filters.
    pub(super) fn filter_options(unit: UnitId) -> Self {
        Self(filter_options(unit))
    }

    /// Where such files are.
    pub(super) fn ready() -> Self {
        Self::constant(READY)
    }

    /// The file that a task of a zone sees as /etc/hosts.
    pub(super) fn zone_hosts(unit: UnitId) -> Self {
        Self(hosts_file(unit))
    }

    /// The layer that outlives a run of an allocation's task.
    pub(super) fn kept_layer(alloc: AllocId, base: u32, task: &TaskName) -> Self {
        let name = format!("{}{}-{base}-{task}", kept_layers::PREFIX, alloc.simple());
        Self::constant(UPPERS).join(name)
    }

    /// A lock file of systemd-nspawn's. `name`: made by root, in a directory that only root can
    /// write, so without a slash.
    pub(super) fn image_lock(name: &Path) -> Self {
        Self(Path::new(LOCKS).join(name))
    }

    /// A file of the kernel's about a process (proc_pid(5)).
    pub(super) fn of_process(pid: u32, name: &'static str) -> Self {
        Self(format!("/proc/{pid}/{name}").into())
    }

    /// The process's own cgroup of version 2, where it is in one (cgroups(7)).
    pub(super) fn own_cgroup() -> io::Result<Option<Self>> {
        let groups = fs::read_to_string("/proc/self/cgroup")?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"));
        Ok(own.map(|own| Self(format!("/sys/fs/cgroup{own}").into())))
    }

    /// A cgroup of version 2. `path`: as PID 1 has it.
    pub(super) fn cgroup(path: &Absolute) -> Self {
        Self(format!("/sys/fs/cgroup{path}").into())
    }

    /// What the kernel shows of a descriptor (proc_pid_fdinfo(5)).
    pub(super) fn descriptor_info(handle: impl AsFd) -> Self {
        Self(format!("/proc/self/fdinfo/{}", handle.as_fd().as_raw_fd()).into())
    }

    /// The cache of system call filters.
    pub(super) fn filters() -> Self {
        Self::constant(FILTERS)
    }

    /// A file that systemd-nspawn had mapped. `path`: the kernel's, from a file that root wrote.
    pub(super) fn recorded(path: &Path) -> Self {
        Self(path.into())
    }

    /// The unit's cgroup, which [`OwnPath::own_cgroup`] may be a part of: from systemd 254 on PID 1
    /// starts the launcher where systemd-nspawn would move itself to.
    pub(super) fn unit_cgroup() -> io::Result<Option<Self>> {
        let unit = |own: Self| match own.0.file_name() {
            Some(name) if name == SUPERVISOR => own.0.parent().map(|unit| Self(unit.into())),
            _ => Some(own),
        };
        Ok(Self::own_cgroup()?.and_then(unit))
    }

    /// The object of a descriptor itself, whatever lies at its own path now.
    pub(super) fn of_handle(handle: impl AsFd) -> Self {
        Self(kernel::open::link(handle.as_fd()))
    }

    /// An entry of this directory. `name`: as of [`OwnPath::on_stage`].
    pub(super) fn join(&self, name: impl Display) -> Self {
        Self(self.0.join(name.to_string()))
    }
}

/// Files and directories.
impl OwnPath {
    /// Opens what is there.
    pub(super) fn open(&self, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(open(&self.0, flags | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Opens a directory to walk from it.
    pub(super) fn open_dir(&self) -> Result<OwnedFd, Problem> {
        self.open(kernel::open::HANDLE).at(self)
    }

    /// Makes a directory with this mode, or less where the umask takes bits away.
    pub(super) fn create_dir(&self, mode: u32) -> io::Result<()> {
        DirBuilder::new().mode(mode).create(&self.0)
    }

    /// Makes a directory with exactly this mode.
    pub(super) fn make_dir(&self, mode: u32) -> Result<(), Problem> {
        self.create_dir(mode).at(self)?;
        // The umask may have taken bits away.
        self.set_mode(mode).at(self)
    }

    /// Makes a directory, and those above it, where they are missing.
    pub(super) fn make_dirs(&self, mode: u32) -> Result<(), Problem> {
        DirBuilder::new().recursive(true).mode(mode).create(&self.0).at(self)
    }

    /// The same for root alone.
    pub(super) fn make_private_dirs(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Makes an empty file that was not there; root's alone.
    pub(super) fn create(&self) -> io::Result<File> {
        kernel::open::create(&self.0)
    }

    /// The same with a content.
    pub(super) fn write_new(&self, content: &[u8]) -> Result<(), Problem> {
        self.create().and_then(|mut file| file.write_all(content)).at(self)
    }

    /// Writes to a file, which it makes where it is missing.
    pub(super) fn write(&self, content: &str) -> io::Result<()> {
        fs::write(&self.0, content)
    }

    /// Writes to a file of the kernel's, which must be there.
    pub(super) fn write_existing(&self, content: &str) -> io::Result<()> {
        File::from(self.open(OFlag::O_WRONLY)?).write_all(content.as_bytes())
    }

    /// Reads a file.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.0)
    }

    /// The text of a link; of a descriptor's: the kernel's path for its object.
    pub(super) fn read_link(&self) -> io::Result<PathBuf> {
        fs::read_link(&self.0)
    }

    /// The entries of a directory.
    pub(super) fn entries(&self) -> io::Result<fs::ReadDir> {
        fs::read_dir(&self.0)
    }

    /// What the kernel says of what is there, or of what a link leads to.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        fs::metadata(&self.0)
    }

    /// Gives a file to somebody else.
    pub(super) fn set_owner(&self, id: Option<u32>) -> io::Result<()> {
        Ok(chown(&self.0, id.map(Into::into), id.map(Into::into))?)
    }

    /// Sets a mode, whatever the umask says.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.0, Permissions::from_mode(mode & 0o7777))
    }

    /// Makes a symbolic link. Only its text is ever used.
    pub(super) fn make_link(&self, text: &Path) -> io::Result<()> {
        symlink(text, &self.0)
    }

    /// Makes a FIFO that root alone may open.
    pub(super) fn make_fifo(&self) -> nix::Result<()> {
        mkfifo(&self.0, Mode::S_IRUSR | Mode::S_IWUSR)
    }

    /// Makes a device node that nobody may open yet.
    pub(super) fn make_node(&self, kind: SFlag, number: libc::dev_t) -> nix::Result<()> {
        mknod(&self.0, kind, Mode::empty(), number)
    }

    /// Renames it.
    pub(super) fn rename(&self, to: &Self) -> io::Result<()> {
        fs::rename(&self.0, &to.0)
    }

    /// Removes a file.
    pub(super) fn remove_file(&self) -> io::Result<()> {
        fs::remove_file(&self.0)
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&self) -> io::Result<()> {
        fs::remove_dir(&self.0)
    }

    /// Makes a socket for datagrams.
    pub(super) fn bind_datagrams(&self) -> io::Result<UnixDatagram> {
        UnixDatagram::bind(&self.0)
    }

    /// Connects to a stream socket.
    pub(super) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.0)
    }
}

/// Mounts.
impl OwnPath {
    /// Mounts a file system that needs no device, such as a tmpfs.
    pub(super) fn mount(&self, kind: &str, flags: MsFlags, options: &str) -> nix::Result<()> {
        mount(Some(kind), &self.0, Some(kind), flags, Some(options))
    }

    /// Makes the directory and mounts such a file system on it.
    pub(super) fn mount_new(
        &self,
        kind: &str,
        flags: MsFlags,
        options: &str,
    ) -> Result<(), Problem> {
        self.make_dir(0o755)?;
        self.mount(kind, flags, options).at(self)
    }

    /// Mounts the file system of a device.
    pub(super) fn mount_device(
        &self,
        device: &Self,
        kind: &str,
        flags: MsFlags,
        options: &str,
    ) -> nix::Result<()> {
        mount(Some(&device.0), &self.0, Some(kind), flags, Some(options))
    }

    /// Shows another directory here as well.
    pub(super) fn bind_from(&self, from: &Self) -> nix::Result<()> {
        mount(Some(&from.0), &self.0, NONE, MsFlags::MS_BIND, NONE)
    }

    /// Sets how mounts travel between this tree and its clones.
    pub(super) fn set_propagation(&self, propagation: MsFlags) -> nix::Result<()> {
        mount(NONE, &self.0, NONE, propagation | MsFlags::MS_REC, NONE)
    }

    /// Attaches a detached mount on a new mount point; nothing of the host arrives below it later.
    pub(super) fn attach(&self, mounted: BorrowedFd<'_>, kind: MountPoint) -> Result<(), Problem> {
        self.attach_with(mounted, kind, MsFlags::MS_PRIVATE)
    }

    /// The same with another propagation: as a slave (`MS_SLAVE`), later mounts of the host arrive
    /// below it. Nothing goes the other way: it leaves the peers that it was cloned from.
    pub(super) fn attach_with(
        &self,
        mounted: BorrowedFd<'_>,
        kind: MountPoint,
        propagation: MsFlags,
    ) -> Result<(), Problem> {
        let point = match kind {
            MountPoint::Directory => {
                self.make_dir(0o755)?;
                self.open_dir()?
            }
            MountPoint::File => self.create().at(self)?.into(),
        };
        syscalls::attach_mount(mounted, point.as_fd()).at(self)?;
        // A clone is a peer of its original, and attaching it does not change that.
        self.set_propagation(propagation).at(self)
    }

    /// Bytes of the file system that anybody but root could still write.
    pub(super) fn free_space(&self) -> nix::Result<u64> {
        let about = statvfs(&self.0)?;
        Ok(about.blocks_available().saturating_mul(about.fragment_size()))
    }

    /// Whether what is mounted here came up read-only.
    pub(super) fn is_read_only(&self) -> nix::Result<bool> {
        Ok(statvfs(&self.0)?.flags().contains(FsFlags::ST_RDONLY))
    }
}
