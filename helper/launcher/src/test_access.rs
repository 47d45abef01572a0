//! For the race harness and the fuzzers of the tests: the launcher's own functions, as they are.
//!
//! Compiled with feature `test-door` alone, never into a product. It decides and opens nothing by
//! itself.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use proto::path::Relative;
use proto::plan::{Place, Plan};
use proto::target::Target;

use super::prepared::{Extras, MountTarget};
use super::{files, nspawn, open, output, task_dirs};

/// Opens a place as images, bind sources, credentials and network namespaces are.
///
/// # Errors
/// The kernel's.
pub fn place(place: &Place, flags: OFlag) -> io::Result<OwnedFd> {
    open::place(place, flags)
}

/// Opens the task's three directories.
///
/// # Errors
/// The problem, for people.
pub fn directories(plan: &Plan) -> Result<[OwnedFd; 3], String> {
    task_dirs::handles(&plan.task_dirs).map_err(|problem| format!("{problem:?}"))
}

/// Finds and opens the task's two log streams.
///
/// # Errors
/// The problem, for people.
pub fn streams(plan: &Plan) -> Result<[OwnedFd; 2], String> {
    let found = output::find_fifos(plan, None).and_then(|found| found.open(None));
    found.map_err(|problem| format!("{problem:?}"))
}

/// Reads a credential's file below the task's directory.
///
/// # Errors
/// The problem, for people.
pub fn credential(plan: &Plan, below: &Relative) -> Result<Vec<u8>, String> {
    files::credentials::read(&plan.task_dirs, below).map_err(|problem| format!("{problem:?}"))
}

/// systemd-nspawn's arguments with a bind of each of these pairs.
#[must_use]
pub fn arguments(plan: &Plan, binds: &[(&Path, &Target)]) -> Vec<String> {
    let mut extras = Extras::default();
    for (source, target) in binds {
        extras.bind(source.display(), &MountTarget::Free((*target).clone()));
    }
    nspawn::arguments(plan, &extras)
}
