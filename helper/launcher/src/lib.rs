//! The one-shot steps that run inside a task's unit, as root with every capability.
//!
//! `launch` makes the task's namespaces and mounts and becomes systemd-nspawn; `clean` runs after
//! the unit (ExecStopPost=); `relay` carries the output of a task that asks for it, in a unit of
//! its own; `enter` executes one command in a task that runs; `stop` passes a stop signal on. Whatever `launch` makes lives in
//! namespaces of the unit and goes with its last process; the upper layer's directory is what
//! `clean` takes away.
//!
//! Trusts the plan (it comes from the daemon over an inherited socket) and root-owned directories.
//! Trusts nothing below an allocation or an image: those are opened beneath their roots, without
//! following links, and used by descriptor. Calls that take a path are in `stage` alone.

mod clean;
mod daemon_link;
#[cfg(feature = "doctor")]
mod doctor;
mod ended;
mod enter;
mod etc_files;
mod files;
mod filters;
mod isolation;
mod launch;
mod machine_id;
mod messages;
mod mount_points;
mod namespaces;
mod network;
mod nspawn;
mod open;
mod output;
mod overlay;
mod payload_limits;
mod prepared;
mod relay;
mod root;
mod settings;
mod stage;
mod step;
mod stop;
mod task_dirs;
#[cfg(feature = "test-door")]
pub mod test_access;
mod user;
mod warnings;

#[cfg(feature = "doctor")]
pub use doctor::{CachedFilters, cached_filters, can_be_mapped};

use std::process::ExitCode;

/// Runs the verb on the command line.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["launch"] => launch::main(),
        ["relay"] => relay::main(),
        ["enter"] => enter::seal::main(),
        ["enter", enter::seal::SEALED] => enter::worker::main(),
        ["clean", unit] => clean::main(unit),
        ["stop", signal] => stop::main(signal),
        ["filters", options @ ..] => filters::fill::main(options),
        ["filters-verify", options @ ..] => filters::fill::verify(options),
        [filters::fill::TRACED, options @ ..] => filters::fill::traced(options),
        _ => {
            eprintln!(
                "usage: nomad-nspawn-task launch | relay | enter | clean UNIT | stop SIGNAL | \
                 filters [BOUNDING [RULE…]] | filters-verify BOUNDING [RULE…] \
                 (started by systemd alone)"
            );
            ExitCode::from(64)
        }
    }
}
