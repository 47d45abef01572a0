//! The folder of the gRPC socket: made while still root, owned by the account, closed to others.
//!
//! The path is kept by the agent for reattaching, so it lies where no cleaner and no private
//! temporary mount of the agent's unit touches it. Folders of ended plugins are swept at start.
//! This module trusts the folder above its own only when nobody but root can write there.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::Group;

use super::handshake::Request;
use super::privilege::Standing;

/// Folder for the sockets of all plugin processes of an agent that is root.
const BASE: &str = "/run/nomad-nspawn-plugin";
/// Name of the socket in its folder.
const SOCKET: &str = "plugin.sock";
/// Longest path that the kernel takes for a socket, without the closing NUL (unix(7)).
const PATH_MAX: usize = 107;

/// The folder of this process's socket.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    shared: bool,
}

impl Folder {
    /// Makes the folder. Call it before root is given up.
    ///
    /// # Errors
    /// A sentence that names the folder and what is wrong.
    pub(crate) fn make(request: &Request, standing: &Standing) -> Result<Self, String> {
        let base = match (&request.socket_dir, standing.target()) {
            (Some(dir), _) => dir.clone(),
            (None, Some(_)) => {
                make_base().map_err(|e| format!("folder {BASE}: {e}"))?;
                PathBuf::from(BASE)
            }
            (None, None) => request.temporary.clone(),
        };
        let mut hasher = std::hash::RandomState::new().build_hasher();
        hasher.write_u32(std::process::id());
        let name = format!("{}-{:08x}", std::process::id(), hasher.finish() & 0xffff_ffff);
        let path = base.join(name);
        if path.join(SOCKET).as_os_str().len() > PATH_MAX {
            return Err(format!("folder {}: too long for a socket's path", base.display()));
        }
        let group = request.socket_group.as_deref().map(group_id).transpose()?;
        prepare(&path, standing, group).map_err(|e| format!("folder {}: {e}", path.display()))?;
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

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Path of the socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// Takes the socket away, and the folder where the account may; the next start sweeps it
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

/// Makes one folder for the account; with a group, a set-group-id folder, so that the socket gets
/// the group although the account is not in it.
fn prepare(path: &Path, standing: &Standing, group: Option<u32>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    let folder = open_folder(path)?;
    let owner = standing.target().map(|(uid, _)| uid);
    let own_group = group.or(standing.target().map(|(_, gid)| gid));
    std::os::unix::fs::fchown(&folder, owner, own_group)?;
    let mode = if group.is_some() { 0o2710 } else { 0o700 };
    folder.set_permissions(Permissions::from_mode(mode))
}

fn open_folder(path: &Path) -> io::Result<File> {
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
    let base = open_folder(Path::new(BASE))?;
    let found = base.metadata()?;
    if found.uid() != 0 || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("must belong to root and be writable by nobody else"));
    }
    // The umask of the agent may have closed it to the account.
    base.set_permissions(Permissions::from_mode(0o711))?;
    sweep(Path::new(BASE))
}

/// Removes the folders of processes that are gone. Only a socket is taken out of them, by name:
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
    fn folders_of_the_dead_are_swept_and_others_left() {
        let base = std::env::temp_dir().join(format!("sweep-{}", std::process::id()));
        let dead = base.join("4294967295-00000000");
        let alive = base.join(format!("{}-00000000", std::process::id()));
        let foreign = base.join("notes");
        for folder in [&dead, &alive, &foreign] {
            fs::create_dir_all(folder).unwrap();
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
        let refused = Folder::make(&request, &Standing::Agent { uid: 1 }).unwrap_err();
        assert!(refused.contains("too long"), "{refused}");
    }
}
