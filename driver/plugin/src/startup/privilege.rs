//! Gives root up for good, before any thread exists, and proves it by reading back.
//!
//! Order, because each step needs rights that the next takes away: supplementary groups, group
//! ids, bounding set, user ids, capability sets, no_new_privs. Nothing is trusted to have worked:
//! `/proc/self/status` is read afterwards, and becoming root again must fail. This module never
//! keeps a way back.

use std::collections::HashMap;
use std::fmt;

use caps::CapSet;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, User};

use super::sys;

/// Account that the plugin runs as when Nomad starts it as root.
pub(crate) const ACCOUNT: &str = "nomad-nspawn";

/// Uids for a plugin whose account is missing, first one that the user database does not hold.
///
/// systemd leaves 60706 to 61183 unassigned (UIDS-GIDS.md): outside its dynamic users
/// (61184..=65519), its home areas (60001..=60513) and the container ranges (524288 and above).
const UNASSIGNED: std::ops::RangeInclusive<u32> = 61_000..=61_183;

/// As whom the plugin runs, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The account made for it.
    Account { uid: u32, gid: u32 },
    /// The account is missing: an unassigned uid, which can do nothing.
    Nobody { uid: u32 },
    /// The agent is not root: its own user.
    Agent { uid: u32 },
}

impl Standing {
    /// Ids to change to, when the process is root.
    pub(crate) fn target(&self) -> Option<(u32, u32)> {
        match *self {
            Self::Account { uid, gid } => Some((uid, gid)),
            Self::Nobody { uid } => Some((uid, uid)),
            Self::Agent { .. } => None,
        }
    }

    /// The uid that the process has in the end.
    pub(crate) fn uid(&self) -> u32 {
        match *self {
            Self::Account { uid, .. } | Self::Nobody { uid } | Self::Agent { uid } => uid,
        }
    }
}

/// A step that failed; the process must not go on as root.
#[derive(Debug)]
pub(crate) struct Failed {
    step: &'static str,
    reason: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot give up root: {}: {}", self.step, self.reason)
    }
}

fn step<T, E: fmt::Display>(step: &'static str, result: Result<T, E>) -> Result<T, Failed> {
    result.map_err(|e| Failed { step, reason: e.to_string() })
}

/// Looks up who the plugin is to be. Asks the user database; changes nothing.
///
/// # Errors
/// The account exists with uid or gid 0, or no unassigned uid is free.
pub(crate) fn find_standing() -> Result<Standing, Failed> {
    let own = Uid::effective();
    if !own.is_root() {
        return Ok(Standing::Agent { uid: own.as_raw() });
    }
    match User::from_name(ACCOUNT) {
        Ok(Some(user)) if user.uid.is_root() || user.gid.as_raw() == 0 => {
            Err(Failed { step: "account", reason: format!("account {ACCOUNT} has uid or gid 0") })
        }
        Ok(Some(user)) => Ok(Standing::Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        // A user database that cannot be read is as good as a missing account.
        Ok(None) | Err(_) => find_unassigned(),
    }
}

fn find_unassigned() -> Result<Standing, Failed> {
    UNASSIGNED
        .clone()
        .find(|uid| !matches!(User::from_uid(Uid::from_raw(*uid)), Ok(Some(_))))
        .map(|uid| Standing::Nobody { uid })
        .ok_or_else(|| Failed {
            step: "account",
            reason: format!(
                "account {ACCOUNT} is missing and the uids {} to {} are all taken",
                UNASSIGNED.start(),
                UNASSIGNED.end()
            ),
        })
}

/// Becomes `standing` for good. A process that is not root only gives up what it can.
///
/// # Errors
/// The step that failed. The caller must end the process.
pub(crate) fn drop_to(standing: &Standing) -> Result<(), Failed> {
    if let Some((uid, gid)) = standing.target() {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        step("setgroups", nix::unistd::setgroups(&[]))?;
        step("setresgid", nix::unistd::setresgid(gid, gid, gid))?;
        step("bounding set", sys::drop_bounding_set())?;
        step("setresuid", nix::unistd::setresuid(uid, uid, uid))?;
    }
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        step("capability sets", caps::clear(None, set))?;
    }
    step("no_new_privs", nix::sys::prctl::set_no_new_privs())?;
    step("dumpable", nix::sys::prctl::set_dumpable(false))?;
    let status = step("read back", std::fs::read_to_string("/proc/self/status"))?;
    step("read back", check(&status, standing))?;
    match nix::unistd::setuid(Uid::from_raw(0)) {
        Err(Errno::EPERM) => Ok(()),
        Ok(()) => {
            Err(Failed { step: "proof", reason: "the process could become root again".to_owned() })
        }
        Err(e) => step("proof", Err(e)),
    }
}

/// Compares `/proc/self/status` with what must hold.
fn check(status: &str, standing: &Standing) -> Result<(), String> {
    let fields: HashMap<&str, &str> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let expect = |name: &str, wanted: &[String]| {
        let found: Vec<String> = fields
            .get(name)
            .map(|value| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default();
        if found == wanted { Ok(()) } else { Err(format!("{name} is {found:?}, not {wanted:?}")) }
    };
    let none = ["0".repeat(16)];
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        expect(set, &none)?;
    }
    expect("NoNewPrivs", &["1".to_owned()])?;
    expect("Threads", &["1".to_owned()])?;
    if let Some((uid, gid)) = standing.target() {
        expect("Uid", &[uid.to_string(), uid.to_string(), uid.to_string(), uid.to_string()])?;
        expect("Gid", &[gid.to_string(), gid.to_string(), gid.to_string(), gid.to_string()])?;
        expect("Groups", &[])?;
        expect("CapBnd", &none)?;
    }
    Ok(())
}

/// Why a plugin without account does nothing, and the remedy.
pub(crate) fn account_missing() -> String {
    format!(
        "account \"{ACCOUNT}\" is missing on this node; create it with: systemd-sysusers \
         /usr/lib/sysusers.d/nomad-nspawn.conf, then restart the Nomad agent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Name:\tx\nUid:\t997\t997\t997\t997\nGid:\t996\t996\t996\t996\n\
        Groups:\t \nThreads:\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n\
        CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n\
        NoNewPrivs:\t1\n";

    fn account() -> Standing {
        Standing::Account { uid: 997, gid: 996 }
    }

    #[test]
    fn every_line_of_the_read_back_counts() {
        assert_eq!(check(GOOD, &account()), Ok(()));
        for (from, to) in [
            ("Uid:\t997", "Uid:\t0"),
            ("996\nGroups", "0\nGroups"),
            ("Groups:\t ", "Groups:\t0"),
            ("Threads:\t1", "Threads:\t2"),
            ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000001"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000400"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("NoNewPrivs:\t1\n", ""),
        ] {
            assert!(check(&GOOD.replace(from, to), &account()).is_err(), "{to}");
        }
    }

    #[test]
    fn an_unprivileged_agent_keeps_its_user_only() {
        let status = GOOD.replace("CapBnd:\t0000000000000000", "CapBnd:\t000001ffffffffff");
        assert_eq!(check(&status, &Standing::Agent { uid: 1000 }), Ok(()));
        assert!(check(&status, &account()).is_err());
    }
}
