//! From the host into the container: a copy of the worker joins the namespaces and confines itself
//! as the payload is confined, and only then makes the process that executes the command.
//!
//! It stays in the host's pid namespace itself, so nobody in the container can see it, send it a
//! signal or trace it. The process that it makes is seen there, and has no right by then that the
//! payload lacks. Both are out of reach for ptrace(2) and /proc/PID before execve(2):
//! PR_SET_DUMPABLE is 0, set again after each change of credentials, which sets it to the sysctl
//! fs.suid_dumpable (prctl(2)).
//!
//! Without a user namespace CAP_SYS_PTRACE of the payload reaches the second one all the same, so
//! that has no descriptor but its streams and the socket on which it reports: the worker takes no
//! number from that which is not its child's.
//!
//! Trusts what was read outside; from setns(2) on nothing that it finds.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::OwnedFd;

use kernel::{hook, syscalls};
use nix::fcntl::OFlag;
use nix::sched::setns;
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::resource::{getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{
    Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid,
};
use proto::capability::Capabilities;
use proto::exec::ExecPlan;
use proto::step::Step;
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use super::command::Command;
use super::filters::Found;
use super::payload::Payload;
use super::streams::Streams;
use super::user;
use crate::filters::find::count_in;
use crate::stage::OwnPath;
use crate::step::{At as _, Problem};

/// What goes in.
pub(super) struct Entrant {
    pub(super) plan: ExecPlan,
    pub(super) payload: Payload,
    pub(super) found: Found,
    pub(super) command: Command,
}

/// Ids of a process.
struct Ids {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// What the copy does; returns when the process of the command is made: its pid. In that process it
/// returns a problem alone.
pub(super) fn enter(entrant: Entrant, driver: OwnedFd, setup: &OwnedFd) -> Result<i32, Problem> {
    let Entrant { plan, payload, found, command } = entrant;
    // The worker's end is that of all.
    set_pdeathsig(Signal::SIGKILL).at("own process")?;
    prepare(&payload)?;
    let status = OwnPath::constant("/proc/self/status");
    let status = File::from(status.open(OFlag::O_RDONLY).at(&status)?);
    close_standard()?;
    hook::run(Step::SessionEnter, || setns(&payload.process, payload.namespaces))
        .at("namespaces of the task")?;
    // As container root: who was root of the host only is nobody here.
    let root = Ids { uid: 0, gid: 0, groups: Vec::new() };
    become_user(&root)?;
    let streams = Streams::make(plan.spec.terminal, &driver)?;
    drop(driver);
    let ids = match &plan.spec.user {
        None => root,
        Some(user) => {
            let found = user::find(user, plan.width)?;
            Ids { uid: found.uid, gid: found.gid, groups: found.groups }
        }
    };
    streams.set_owner(ids.uid)?;
    confine(&payload, &found, status, &ids)?;
    drop(payload);
    match syscalls::fork_sibling().at("process of the command")? {
        Some(pid) => Ok(pid),
        None => Err(command.execute(&streams, setup)),
    }
}

/// Puts nothing in the place of the standard streams: the daemon's socket and the journal.
fn close_standard() -> Result<(), Problem> {
    let null = OwnPath::constant("/dev/null");
    let opened = null.open(OFlag::O_RDWR).at(&null)?;
    dup2_stdin(&opened)
        .and_then(|()| dup2_stdout(&opened))
        .and_then(|()| dup2_stderr(&opened))
        .at(null)
}

/// What needs the host's rights or its /proc.
fn prepare(payload: &Payload) -> Result<(), Problem> {
    if let Some(score) = &payload.oom_score {
        let path = OwnPath::constant("/proc/self/oom_score_adj");
        path.write_existing(score).at(path)?;
    }
    if let Some(label) = &payload.label {
        // Takes effect at execve(2).
        let path = OwnPath::constant("/proc/self/attr/exec");
        path.write_existing(label).at(path)?;
    }
    // Only the host's root may raise hard limits. Soft ones, and those that are lower, come later:
    // they could hinder what is done until then.
    for (resource, _, hard) in &payload.limits {
        let (soft, own) = getrlimit(*resource).at("own limits")?;
        if *hard > own {
            setrlimit(*resource, soft, *hard).at(format!("limit {resource:?} of the task"))?;
        }
    }
    // The unit's would remain: a key in it is not the task's.
    syscalls::join_new_session_keyring().at("session keyring")
}

fn become_user(ids: &Ids) -> Result<(), Problem> {
    let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
    let groups: Vec<Gid> = ids.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups).at("supplementary groups of the command")?;
    setresgid(gid, gid, gid).at("group of the command")?;
    setresuid(uid, uid, uid).at("user of the command")?;
    set_dumpable(false).at("own process")
}

/// The order is systemd-nspawn's: the payload had these rights left when it was put under its
/// filters, so the filters let this pass.
fn confine(payload: &Payload, found: &Found, mut status: File, ids: &Ids) -> Result<(), Problem> {
    // Never more than the start has computed, whatever the payload's process is by now.
    let bounding = payload.bounding.both(found.bounding);
    let inheritable = payload.inheritable.both(bounding);
    drop_bounding(bounding)?;
    if payload.no_new_privileges {
        set_no_new_privs().at("no_new_privs")?;
    }
    for (resource, soft, hard) in &payload.limits {
        setrlimit(*resource, *soft, *hard).at(format!("limit {resource:?} of the task"))?;
    }
    for filter in &found.filters {
        syscalls::install_filter(filter).at("system call filter")?;
    }
    let mut text = String::new();
    status.rewind().and_then(|()| status.read_to_string(&mut text)).at("own status")?;
    if count_in(&text) != Some(found.count) {
        return Err(Problem::refused("system call filters", "are not those of the task"));
    }
    let set = |all: Capabilities| CapabilitySet::from_bits_retain(all.mask());
    // A user other than root has no right left by which it could add to its inheritable set.
    let own = capabilities(None).at("own capabilities")?;
    set_capabilities(None, CapabilitySets { inheritable: set(inheritable), ..own })
        .at("inheritable capabilities of the command")?;
    become_user(ids)?;
    let held = if ids.uid == 0 { bounding } else { Capabilities::default() };
    let sets = CapabilitySets {
        effective: set(held),
        permitted: set(held),
        inheritable: set(inheritable),
    };
    set_capabilities(None, sets).at("capabilities of the command")
}

/// Takes every capability that is not in the set out of the bounding set, also those that only a
/// later kernel knows.
fn drop_bounding(keep: Capabilities) -> Result<(), Problem> {
    use rustix::thread::remove_capability_from_bounding_set;
    for one in (0..u64::BITS).map(|number| 1_u64 << number).filter(|one| keep.mask() & one == 0) {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one)) {
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => {}
            result => result.at("bounding set of the command")?,
        }
    }
    Ok(())
}
