//! Descriptors that systemd passes at start (sd_listen_fds(3)): the socket, and what an earlier
//! process put into the descriptor store.

use std::collections::HashMap;
use std::env;
use std::os::fd::OwnedFd;

use kernel::syscalls;

/// First passed descriptor.
const FIRST: i32 = 3;

/// Takes all passed descriptors, by name. Call once, first.
pub(crate) fn take() -> Result<HashMap<String, OwnedFd>, String> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).ok();
    let mut passed = HashMap::new();
    if number("LISTEN_PID") != own {
        return Ok(passed);
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let count = number("LISTEN_FDS").unwrap_or(0);
    for (offset, name) in (0..count).zip(names.split(':')) {
        let fd = syscalls::take_passed_fd(FIRST + offset);
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
            .map_err(|e| format!("passed descriptor {name}: {e}"))?;
        passed.insert(name.to_owned(), fd);
    }
    Ok(passed)
}
