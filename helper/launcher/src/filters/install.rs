//! The last step of a start with filters of the cache: filters, then systemd-nspawn without its own.
//!
//! `SYSTEMD_SECCOMP=0` is set here and nowhere else, behind the filters. What fails after the first
//! of them ends the process.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;

use nix::unistd::execve;
use proto::step::Step;

use super::entry::Filters;
use super::find::confinement;
use crate::step::{At, Problem};
use kernel::{hook, syscalls};

/// Puts the process under the filters and executes systemd-nspawn.
pub(super) fn execute(
    filters: &Filters,
    binary: &CString,
    arguments: &[CString],
    mut environment: Vec<CString>,
) -> Result<Infallible, Problem> {
    // systemd-nspawn does it for its payload, but under the filters it could not.
    hook::run(Step::Keyring, syscalls::join_new_session_keyring).at("session keyring")?;
    for filter in filters {
        hook::run(Step::Filter, || syscalls::install_filter(filter)).at("system call filter")?;
    }
    if confinement()? != (filters.len(), false) {
        return Err(Problem::refused("system call filters", "are not those of the cache"));
    }
    environment.push(c"SYSTEMD_SECCOMP=0".to_owned());
    let Err(error) = execve(binary, arguments, &environment);
    Err(io::Error::from(error)).at("systemd-nspawn")
}
