//! The streams of a command, made inside of the container: its root owns them, so that the command
//! can open its own terminal or streams again.
//!
//! Runs as container root in the container's namespaces. Trusts nothing there: what is opened is
//! checked to be the kernel's before it is used.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::stat::{fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Uid, fchown, pipe2};
use proto::codec;
use proto::exec::{SessionReport, TerminalSize};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::stage::OwnPath;
use crate::step::{At as _, Problem};

const PTMX: &str = "dev/pts/ptmx";
/// Device number of every ptmx (devices.txt of the kernel).
const PTMX_NUMBER: (u64, u64) = (5, 2);
/// statfs(2).
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);

/// The ends of a session's streams.
pub(super) enum Streams {
    /// The command's end of a terminal.
    Terminal(OwnedFd),
    /// Standard input, output and error.
    Pipes([OwnedFd; 3]),
}

impl Streams {
    /// Makes them and sends the driver its ends.
    pub(super) fn make(terminal: Option<TerminalSize>, driver: &OwnedFd) -> Result<Self, Problem> {
        match terminal {
            Some(size) => {
                let (master, slave) = open_terminal(size)?;
                send(driver, &[&master])?;
                Ok(Self::Terminal(slave))
            }
            None => {
                let pipe = || pipe2(OFlag::O_CLOEXEC).at("pipe");
                let [(input, to), (from_output, output), (from_error, error)] =
                    [pipe()?, pipe()?, pipe()?];
                send(driver, &[&to, &from_output, &from_error])?;
                Ok(Self::Pipes([input, output, error]))
            }
        }
    }

    /// Gives them to the command's user, who may open them again by /dev/stdout.
    pub(super) fn set_owner(&self, uid: u32) -> Result<(), Problem> {
        let all = match self {
            Self::Terminal(slave) => std::slice::from_ref(slave),
            Self::Pipes(all) => all.as_slice(),
        };
        all.iter().try_for_each(|stream| {
            fchown(stream, Some(Uid::from_raw(uid)), None).at("streams of the command")
        })
    }

    /// The three descriptors that the command gets.
    pub(super) fn standard(&self) -> [&OwnedFd; 3] {
        match self {
            Self::Terminal(slave) => [slave, slave, slave],
            Self::Pipes([input, output, error]) => [input, output, error],
        }
    }
}

/// A terminal of the container's own: its number is one of the container's, and so is its name.
fn open_terminal(size: TerminalSize) -> Result<(OwnedFd, OwnedFd), Problem> {
    let object = format!("/{PTMX} of the container");
    let root = OwnPath::constant("/").open_dir()?;
    // Nothing that the payload may have put there instead waits for a reader, or becomes the
    // controlling terminal.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let master = openat2(&root, Path::new(PTMX), how).at(&object)?;
    let number = fstat(&master).at(&object)?.st_rdev;
    let kind = fstatfs(&master).at(&object)?.filesystem_type();
    if (major(number), minor(number)) != PTMX_NUMBER || kind != DEVPTS_SUPER_MAGIC {
        let reason = "is not the kernel's; the container has covered it";
        return Err(Problem::refused(object, reason));
    }
    unlockpt(&master).at(&object)?;
    // By the master, and not by a path that the payload could cover.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).at(&object)?;
    let TerminalSize { rows, columns } = size;
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).at(&object)?;
    Ok((master, slave))
}

fn send(driver: &OwnedFd, ends: &[&OwnedFd]) -> Result<(), Problem> {
    let bytes = codec::encode(&SessionReport::Streams);
    let bytes = bytes.map_err(|error| Problem::refused("report", error))?;
    let fds: Vec<_> = ends.iter().map(|end| end.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(driver.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, flags, None)
        .map(drop)
        .at("driver's socket")
}
