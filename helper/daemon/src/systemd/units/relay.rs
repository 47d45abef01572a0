//! The unit that relays a task's output to the journal and to Nomad. It ends by itself when the task
//! has ended.

use std::os::fd::OwnedFd;

use proto::task_spec::Label;
use zbus::Variant;

use crate::systemd::bus::Bus;
use crate::systemd::confinement::{self, Needs};
use crate::systemd::units::{names, transient};
use crate::tasks::record::Record;
use kernel::layout::upper;

/// Memory of a relay: two buffers and what its sockets hold.
const MEMORY: u64 = 32 << 20;
/// CAP_CHOWN and CAP_DAC_OVERRIDE (capabilities(7)): for the FIFOs of an agent that is not root.
const CAPABILITIES: u64 = 0b11;
/// Time in microseconds for a relay to hand over what its ended task has written.
const HAND_OVER_US: u64 = 3_000_000;

/// Asks PID 1 for the unit. Returns when the job is queued. `socket`: the relay's end.
pub(crate) async fn start(
    bus: &Bus,
    record: &Record,
    labels: &[Label],
    socket: OwnedFd,
) -> Result<(), String> {
    let unit = record.unit();
    let mut fields = transient::fields(record, labels);
    // Each is added to every line: those that identify the task, not the rest of the record.
    fields.retain(|field| !field.starts_with(b"NSPAWN_"));
    // Its lines are the task's: journalctl -u shows them with the task's unit.
    fields.push(format!("OBJECT_SYSTEMD_UNIT={}", names::task(unit)).into_bytes());
    let description = "Output of a Nomad task in systemd-nspawn";
    let mut properties = transient::service(description, "relay", socket, fields)?;
    properties.extend([
        ("Slice", Variant::from(transient::SLICE)),
        ("CollectMode", Variant::from("inactive-or-failed")),
        // A stop waits for its own end: SIGCONT changes nothing.
        ("KillSignal", Variant::from(libc::SIGCONT)),
        ("TimeoutStopUSec", Variant::from(HAND_OVER_US)),
        // At host shutdown it goes after its task.
        ("Before", Variant::from(vec![names::task(unit)])),
        ("MemoryMax", Variant::from(MEMORY)),
        ("TasksMax", Variant::from(8_u64)),
    ]);
    let needs = Needs {
        // Pipes are written to all the same; a socket of the container's journal is made there.
        writable: vec![upper(unit).display().to_string()],
        capabilities: CAPABILITIES,
        families: vec!["AF_UNIX"],
        // Below /home there may be allocations, and so the FIFOs that it writes to.
        home: "read-only",
    };
    properties.extend(confinement::properties(needs));
    transient::start(bus, &names::relay(unit), properties).await.map_err(|e| e.to_string())
}
