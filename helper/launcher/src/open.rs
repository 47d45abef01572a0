//! Opening what the job or Nomad names: [`kernel::open`], with words for people.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::{AtFlags, OFlag};
use nix::unistd::fchownat;
use proto::plan::Place;

pub(crate) use kernel::open::*;

use super::step::{At, Problem};

/// Opens any object but a link, with a word for people about links.
pub(crate) fn object(place: &Place) -> Result<(OwnedFd, fs::Metadata), Problem> {
    let link = || {
        let reason = "is a symbolic link or leads over one, and none is followed: give the path \
                      that it leads to (readlink -f)";
        Problem::refused(place, reason)
    };
    let handle = match kernel::open::place(place, OFlag::O_PATH) {
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => return Err(link()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Problem::refused(place, "does not exist on this host"));
        }
        other => other.at(place)?,
    };
    let meta = metadata(&handle).at(place)?;
    // The last one is opened itself: a handle of it could even be mounted.
    if meta.is_symlink() { Err(link()) } else { Ok((handle, meta)) }
}

/// Gives the object of a handle to somebody else.
pub(crate) fn set_owner(handle: &OwnedFd, uid: u32, gid: u32) -> nix::Result<()> {
    // With an empty path: fchown(2) takes no handle that only names an object (O_PATH).
    fchownat(handle, "", Some(uid.into()), Some(gid.into()), AtFlags::AT_EMPTY_PATH)
}
