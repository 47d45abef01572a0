//! The cgroup of a session: a leaf below that of the task's payload, so that all processes of a
//! session can be killed at once, whatever they have become.
//!
//! It is root's and its mode shows what it is: 0555 while its session lasts, 0755 when the session
//! has ended and processes were left behind, as a command may do. Trusts PID 1 for the unit's
//! cgroup and the kernel. Container root may make groups beside it and move processes there, also
//! those of the session: what leaves the leaf is the payload's from then on, and ends with the
//! task. So the worker kills the command's own process by its descriptor as well.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use kernel::layout::{PAYLOAD, SESSION_LASTS};
use nix::sys::stat::fstat;

use proto::exec::SessionId;
use proto::path::Absolute;

use crate::open::if_there;
use crate::stage::OwnPath;
use crate::step::{At as _, Problem};

/// Mode of a leaf whose session has ended.
const LEFT: u32 = 0o755;
/// Time between two tries to remove it: killed processes take a moment to be gone.
const PAUSE: Duration = Duration::from_millis(5);
/// Tries after all processes were killed.
const TRIES: u32 = 400;
/// Tries for the last processes of a command that has ended.
const FEW: u32 = 4;
/// Groups beside the leaf that are looked at: the payload may have made any number.
const LOOKS: usize = 4096;

/// A session's cgroup.
pub(super) struct Leaf {
    payload: OwnPath,
    own: OwnPath,
}

impl Leaf {
    /// That of a session, whether it is there or not.
    pub(super) fn of(unit: &Absolute, session: SessionId) -> Self {
        let payload = OwnPath::cgroup(unit).join(PAYLOAD);
        Self { own: payload.join(session.leaf()), payload }
    }

    /// Makes it; returns a handle for clone3(2).
    pub(super) fn make(&self) -> Result<OwnedFd, Problem> {
        self.remove_left();
        let missing = self.payload.join("cgroup.kill").metadata().is_err();
        if missing {
            let reason = "the task's processes are not in a cgroup of version 2 that can be killed \
                          (Linux 5.14): commands cannot be executed in tasks of this host";
            return Err(Problem::refused(&self.payload, reason));
        }
        self.own.create_dir(SESSION_LASTS).at(&self.own)?;
        let leaf = self.own.open_dir()?;
        // Container root may have put a group of its own in the place meanwhile.
        if fstat(&leaf).at(&self.own)?.st_uid != 0 {
            let reason = "is not the group that was made: a process of the task has replaced it";
            return Err(Problem::held(&self.own, reason));
        }
        // The umask may have taken bits away.
        OwnPath::of_handle(&leaf).set_mode(SESSION_LASTS).at(&self.own)?;
        Ok(leaf)
    }

    /// Removes those of earlier sessions whose last processes have ended meanwhile.
    fn remove_left(&self) {
        for entry in self.payload.entries().into_iter().flatten().flatten().take(LOOKS) {
            let name = entry.file_name();
            let Some(session) = name.to_str().and_then(SessionId::parse_leaf) else { continue };
            let leaf = self.payload.join(session.leaf());
            let is_left = leaf
                .metadata()
                .is_ok_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o7777 == LEFT);
            if is_left {
                // Fails as long as processes are in it.
                drop(leaf.remove_dir());
            }
        }
    }

    /// After the command's own end: takes it away, unless processes were left behind.
    pub(super) fn finish(&self) {
        if !self.remove(FEW)
            && let Err(error) = self.own.set_mode(LEFT)
            && self.own.metadata().is_ok()
        {
            eprintln!("{}: {error}", self.own);
        }
    }

    /// Kills all that is in it and removes it.
    pub(super) fn clear(&self) -> Result<(), Problem> {
        let kill = self.own.join("cgroup.kill");
        if_there(kill.write_existing("1")).at(kill)?;
        if self.remove(TRIES) {
            return Ok(());
        }
        Err(Problem::held(&self.own, "its processes were killed and are not gone"))
    }

    /// Whether it is gone.
    fn remove(&self, tries: u32) -> bool {
        for _ in 0..tries {
            match if_there(self.own.remove_dir()) {
                Ok(_) => return true,
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        false
    }
}
