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

pub use nspawn::{LOCKS, binary as nspawn_binary};
pub use root::{has_orphans, is_gone, kept_base};

use std::process::ExitCode;

/// Folder on which each launcher mounts a private tmpfs, in its own mount namespace.
const STAGE: &str = "/run/nomad-nspawn/stage";
/// Folder of the upper layers, one sub-folder a task; root's, 0700.
pub const UPPERS: &str = "/var/lib/nomad-nspawn";

/// Folder of the sockets on which systemd-nspawn says that a task is ready.
pub const READY: &str = "/run/nomad-nspawn";

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
