//! The directory of the gRPC socket: made while still root, owned by the account, closed to others.
//!
//! The path is kept by the agent for reattaching, so it lies where no cleaner and no private
//! temporary mount of the agent's unit touches it. Directories of ended plugins are swept at start.
//! This module trusts the directory above its own only when nobody but root can write there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::handshake::Request;
use super::privilege::Standing;

/// Directory for the sockets of all plugin processes of an agent that is root.
const BASE: &str = "/run/nomad-nspawn-plugin";
/// Name of the socket in its directory.
const SOCKET: &str = "plugin.sock";
/// Longest path that the kernel takes for a socket, without the closing NUL (unix(7)).
const PATH_MAX: usize = 107;

/// The directory of this process's socket.
#[derive(Debug)]
pub(crate) struct SocketDirectory {
    path: PathBuf,
    shared: bool,
}

impl SocketDirectory {
    /// Makes the directory. Call it before root is given up.
    ///
    /// # Errors
    /// A sentence that names the directory and what is wrong.
    pub(crate) fn make(request: &Request, standing: &Standing) -> Result<Self, String> {
        let base = match (&request.socket_dir, standing.target()) {
            (Some(dir), _) => dir.clone(),
            (None, Some(_)) => {
                make_base().map_err(|e| format!("directory {BASE}: {e}"))?;
                PathBuf::from(BASE)
            }
            (None, None) => request.temporary.clone(),
        };
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        let name = format!("{}-{:08x}", std::process::id(), hasher.finish() & 0xffff_ffff);
        let path = base.join(name);
        if path.join(SOCKET).as_os_str().len() > PATH_MAX {
            return Err(format!("directory {}: too long for a socket's path", base.display()));
        }
        let group = request.socket_group.as_deref().map(group_id).transpose()?;
        prepare(&path, standing, group)
            .map_err(|e| format!("directory {}: {e}", path.display()))?;
        Ok(Self { path, shared: group.is_some() })
    }

    /// Binds the socket. Call it after root is given up.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn bind(&self) -> io::Result<tokio::net::UnixListener> {
        let path = self.socket();
        let listener = tokio::net::UnixListener::bind(&path)?;
        let mode = if self.shared { 0o660 } else { 0o600 };
        fs::set_permissions(&path, Permissions::from_mode(mode))?;
        Ok(listener)
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Takes the socket away, and the directory where the account may; the next start sweeps it
    /// otherwise.
    pub(crate) fn remove(&self) {
        fs::remove_file(self.socket()).ok();
        fs::remove_dir(&self.path).ok();
    }
}

fn group_id(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("PLUGIN_UNIX_SOCKET_GROUP = {text}: there is no such group")),
        Err(e) => Err(format!("PLUGIN_UNIX_SOCKET_GROUP = {text}: {e}")),
    }
}

/// Makes one directory for the account; with a group, a set-group-id directory, so that the socket
/// gets the group although the account is not in it.
fn prepare(path: &Path, standing: &Standing, group: Option<u32>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    let directory = open_directory(path)?;
    let owner = standing.target().map(|(uid, _)| uid);
    let own_group = group.or(standing.target().map(|(_, gid)| gid));
    std::os::unix::fs::fchown(&directory, owner, own_group)?;
    let mode = if group.is_some() { 0o2710 } else { 0o700 };
    directory.set_permissions(Permissions::from_mode(mode))
}

fn open_directory(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

fn make_base() -> io::Result<()> {
    match DirBuilder::new().mode(0o711).create(BASE) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let base = open_directory(Path::new(BASE))?;
    let found = base.metadata()?;
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("must belong to root and be writable by nobody else"));
    }
    // The umask of the agent may have closed it to the account.
    base.set_permissions(Permissions::from_mode(0o711))?;
    sweep(Path::new(BASE))
}

/// Removes the directories of processes that are gone. Only a socket is taken out of them, by name:
/// the account owns them, so nothing in them is trusted.
fn sweep(base: &Path) -> io::Result<()> {
    for entry in fs::read_dir(base)?.flatten() {
        let name = entry.file_name();
        let pid = name
            .to_str()
            .and_then(|name| name.split_once('-'))
            .and_then(|(pid, _)| pid.parse::<u32>().ok());
        let Some(pid) = pid else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            fs::remove_file(entry.path().join(SOCKET)).ok();
            fs::remove_dir(entry.path()).ok();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_dead_are_swept_and_others_left() {
        let base = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        let dead = base.join("4294967295-00000000");
        let alive = base.join(format!("{}-00000000", std::process::id()));
        let foreign = base.join("notes");
        for directory in [&dead, &alive, &foreign] {
            fs::create_dir_all(directory).unwrap();
        }
        fs::write(dead.join(SOCKET), "").unwrap();
        sweep(&base).unwrap();
        assert!(!dead.exists() && alive.exists() && foreign.exists());
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused() {
        let request = Request {
            socket_dir: Some(PathBuf::from(format!("/tmp/{}", "x".repeat(120)))),
            ..Request::default()
        };
        let refused = SocketDirectory::make(&request, &Standing::Agent { uid: 1 }).unwrap_err();
        assert!(refused.contains("too long"), "{refused}");
    }
}
