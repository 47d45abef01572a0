//! The one-shot steps that run inside a task's unit, as root with every capability.
//!
//! `launch` makes the task's namespaces and mounts and becomes systemd-nspawn; `clean` runs after
//! the unit (ExecStopPost=); `follow` carries the output of a task that asks for it, in a unit of its
//! own. Whatever `launch` makes lives in namespaces of the unit and goes with
//! its last process; the upper layer's folder is what `clean` takes away.
//!
//! Trusts the plan (it comes from the daemon over an inherited socket) and root-owned folders.
//! Trusts nothing below an allocation or an image: those are opened beneath their roots, without
//! following links, and used by descriptor.

mod clean;
mod dirs;
#[cfg(feature = "test-door")]
pub mod door;
mod extras;
mod files;
mod follow;
mod hints;
mod isolation;
mod launch;
mod logs;
mod machine_id;
mod messages;
mod mount_points;
mod names;
mod namespace;
mod nspawn;
mod open;
mod orders;
mod overlay;
mod root;
mod settings;
mod step;
mod user;

pub use messages::JOURNAL;
pub use nspawn::{LOCKS, binary as nspawn_binary};
pub use root::{device, has_orphans, is_gone, kept_base};

use std::process::ExitCode;

/// Folder on which each launcher mounts a private tmpfs, in its own mount namespace.
const STAGE: &str = "/run/nomad-nspawn/stage";
/// Folder of the upper layers, one sub-folder a task; root's, 0700.
pub const UPPERS: &str = "/var/lib/nomad-nspawn";

/// Directory of the sockets on which systemd-nspawn reports that a task is ready, and of the marks
/// of launchers.
pub const READY: &str = "/run/nomad-nspawn";
const EXECUTED: &str = "executed-";

/// Mark that a launcher makes right before it executes systemd-nspawn: an end of the unit's main
/// process is a payload's then. No exit status could mean that, because a payload may end with any.
#[must_use]
pub fn executed_mark(unit: proto::plan::UnitId) -> std::path::PathBuf {
    std::path::Path::new(READY).join(format!("{EXECUTED}{unit}"))
}

/// The unit of such a mark.
#[must_use]
pub fn executed_unit(name: &str) -> Option<proto::plan::UnitId> {
    proto::plan::UnitId::parse(name.strip_prefix(EXECUTED)?)
}

/// Socket on which systemd-nspawn says that a task is ready ([`proto::spec::process::Ready`]).
#[must_use]
pub fn ready_socket(unit: proto::plan::UnitId) -> std::path::PathBuf {
    std::path::Path::new(READY).join(format!("ready-{unit}"))
}

/// Whether no other local user can make use of a set-uid file below the folder.
///
/// # Errors
/// It cannot be opened.
#[cfg(feature = "ctl")]
pub fn is_protected(folder: &std::path::Path) -> std::io::Result<bool> {
    open::is_protected(std::os::fd::AsFd::as_fd(&open::folder(folder)?))
}

/// Whether the kernel can ID-map the file system of a folder. The caller must be single-threaded and
/// have no children.
///
/// # Errors
/// It cannot be opened, or the caller is not root.
#[cfg(feature = "ctl")]
pub fn can_be_mapped(folder: &std::path::Path) -> std::io::Result<bool> {
    use std::os::fd::AsFd;
    let clone = crate::sys::clone_mount(open::folder(folder)?.as_fd(), false)?;
    let failed = |problem: step::Problem| std::io::Error::other(problem.reason().to_owned());
    let range =
        proto::plan::Range { base: proto::limits::RANGE_FIRST, width: proto::limits::RANGE_WIDTH };
    let users = namespace::user_namespace(range).map_err(failed)?;
    namespace::reap().map_err(failed)?;
    match crate::sys::set_mount_attributes(clone.as_fd(), 0, Some(users.as_fd())) {
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => Ok(false),
        other => other.map(|()| true),
    }
}

/// Folder of one task's upper layer.
#[must_use]
pub fn upper(unit: proto::plan::UnitId) -> std::path::PathBuf {
    std::path::Path::new(UPPERS).join(unit.to_string())
}

/// Runs the verb on the command line.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["launch"] => launch::main(),
        ["follow"] => follow::main(),
        ["clean", unit] => clean::main(unit),
        _ => {
            eprintln!(
                "usage: nomad-nspawn-task launch | follow | clean UNIT (started by systemd alone)"
            );
            ExitCode::from(64)
        }
    }
}
