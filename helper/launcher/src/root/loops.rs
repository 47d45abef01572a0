//! Loop devices: a new one for a disk image, one for all tasks for a layer.
//!
//! Each goes with its last use, however that ends. Trusts the files, which its callers have judged,
//! and nothing that a device's name or the text in /sys leads to. Never configures a device twice.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::fcntl::{Flock, FlockArg, OFlag};

use crate::stage::OwnPath;
use crate::step::{At, Problem};
use kernel::syscalls;

/// Times that others may take a free loop device before us.
const TRIES: u32 = 1000;

/// A new loop device with this file, and its descriptor.
pub(super) fn attach(file: &File) -> Result<(OwnPath, OwnedFd), Problem> {
    let all = OwnPath::constant("/dev/loop-control");
    let control = all.open(OFlag::O_RDWR).at(&all)?;
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let number = syscalls::free_loop(control.as_fd()).at(&all)?;
        let device = OwnPath::constant("/dev").join(format!("loop{number}"));
        let open = device.open(OFlag::O_RDWR).at(&device)?;
        match syscalls::configure_loop(open.as_fd(), file.as_fd()) {
            // Somebody else took it between the two calls: LOOP_CTL_GET_FREE reserves nothing.
            Err(e) if e.kind() == ErrorKind::ResourceBusy && tries > 0 => {}
            other => return other.at(&device).map(|()| (device, open)),
        }
    }
}

/// The loop device that has this file, which is open for reading alone; a new one where none has it.
/// `name`: the file's last name.
///
/// One device for all: each has pages of its own in memory.
pub(super) fn share(file: File, name: &str) -> Result<OwnedFd, Problem> {
    if let Some(device) = find(&file, name)? {
        return Ok(device);
    }
    // A launcher beside this one may be about to make it. The device keeps the open file, and would
    // keep a lock of it: it is given another opening of the same file.
    let again = File::from(OwnPath::of_handle(&file).open(OFlag::O_RDONLY).at(name)?);
    let _lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| e).at(name)?;
    match find(&again, name)? {
        Some(device) => Ok(device),
        None => attach(&again).map(|(_, device)| device),
    }
}

/// The loop device that has this file. As long as its descriptor is open, it keeps it.
fn find(file: &File, name: &str) -> Result<Option<OwnedFd>, Problem> {
    let wanted = file.metadata().at(name)?;
    let all = OwnPath::constant("/sys/block");
    for entry in all.entries().at(&all)? {
        let number = entry.at(&all)?.file_name();
        let number =
            number.to_str().and_then(|name| name.strip_prefix("loop")?.parse::<u32>().ok());
        let Some(number) = number else { continue };
        let loop_name = format!("loop{number}");
        // A hint alone: it saves opening each device. A device without file has none.
        let text = all.join(&loop_name).join("loop/backing_file").read().unwrap_or_default();
        if !text.trim_ascii_end().ends_with(name.as_bytes()) {
            continue;
        }
        // It may have lost its file since, or have no node here.
        let Ok(device) = OwnPath::constant("/dev").join(loop_name).open(OFlag::O_RDONLY) else {
            continue;
        };
        let Ok(status) = syscalls::loop_status(device.as_fd()) else { continue };
        if status.file == [wanted.dev(), wanted.ino(), 0]
            && status.part == [0, 0]
            && status.flags == syscalls::LOOP_SHARED
        {
            return Ok(Some(device));
        }
    }
    Ok(None)
}
