//! The unit of a worker: executes one command in a task that runs, or clears up after another
//! worker. Its process ends with its one piece of work.

use std::os::fd::OwnedFd;

use proto::exec::SessionId;
use zbus::Variant;

use crate::systemd::bus::Bus;
use crate::systemd::units::{names, transient};

/// Memory of a worker: a command's words and environment several times, and the filters.
const MEMORY: u64 = 32 << 20;
/// Processes of a worker: those of a session are in the task's cgroup.
const TASKS: u64 = 4;
/// CAP_DAC_OVERRIDE, CAP_SYS_ADMIN and CAP_SYS_RESOURCE (capabilities(7)): the worker makes mounts
/// of its own, the payload's cgroup belongs to container root, its network namespace may be one of
/// the host's own (setns(2)), and a task's limits may be higher than the unit's. All else that a worker needs it gets from the
/// kernel when it enters a user namespace that root of the host has made (user_namespaces(7)).
const CAPABILITIES: u64 = 0x0120_0002;

/// In which tasks a worker can execute commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reach {
    /// In those that have a user namespace.
    UserNamespace,
    /// In those that have none: they keep capabilities of the host, so the worker has them all.
    Host,
}

/// Asks PID 1 for the unit. Returns when the job is queued. `socket`: the worker's end.
pub(crate) async fn start(
    bus: &Bus,
    id: SessionId,
    reach: Reach,
    socket: OwnedFd,
) -> Result<(), String> {
    let description = "Commands in Nomad tasks in systemd-nspawn";
    let mut properties = transient::service(description, "enter", socket, Vec::new())?;
    // No system call filter, no_new_privs or restriction of namespaces: the command would inherit
    // the first two, and a worker could not enter a namespace. No ProtectSystem= and the like: the
    // worker makes its mounts itself (`enter/seal.rs` of the launcher), which costs a fraction.
    properties.extend([
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("Slice", Variant::from(transient::SLICE)),
        ("MemoryMax", Variant::from(MEMORY)),
        ("TasksMax", Variant::from(TASKS)),
        ("IgnoreSIGPIPE", Variant::from(false)),
    ]);
    if reach == Reach::UserNamespace {
        properties.push(("CapabilityBoundingSet", Variant::from(CAPABILITIES)));
    }
    transient::start(bus, &names::worker(id), properties).await.map_err(|e| e.to_string())
}
