//! The unit that cleans up after a task whose own unit could not.

use proto::unit_id::UnitId;
use zbus::Variant;

use crate::systemd::bus::{Bus, is_named};
use crate::systemd::confinement::{self, Needs};
use crate::systemd::units::stop::{TIMEOUT, await_end};
use crate::systemd::units::{names, transient};
use kernel::hook;
use kernel::layout::{LOCKS, UPPERS};

/// Memory of a clean-up: its work is bounded, the tree is not.
const MEMORY: u64 = 256 << 20;
/// CAP_DAC_OVERRIDE and CAP_FOWNER (capabilities(7)): directories of any mode, sticky ones, and
/// owners of any uid range.
const CAPABILITIES: u64 = 0b1010;

/// Runs `clean` for a task, and waits for its end.
pub(crate) async fn run(bus: &Bus, unit: UnitId) -> Result<(), String> {
    let id = unit.to_string();
    let name = names::cleanup(unit);
    let clean = transient::command(&["clean", &id], false)?;
    let done = bus.job_of(&name).await;
    let mut writable = vec![UPPERS.to_owned(), format!("-{LOCKS}")];
    writable.extend(hook::DIRECTORY.map(|directory| format!("-{directory}")));
    let needs = Needs { writable, capabilities: CAPABILITIES, families: Vec::new(), home: "yes" };
    let mut properties = confinement::properties(needs);
    properties.extend([
        ("Description", Variant::from("Clean-up after a Nomad task")),
        ("Slice", Variant::from(transient::SLICE)),
        ("Type", Variant::from("oneshot")),
        ("DevicePolicy", Variant::from("closed")),
        ("MemoryMax", Variant::from(MEMORY)),
        ("CollectMode", Variant::from("inactive-or-failed")),
        ("ExecStart", Variant::from(clean)),
    ]);
    let done = match transient::start(bus, &name, properties).await {
        Ok(()) => Some(done),
        // That of an earlier removal, which waited as long as we do now. Its job may be over.
        Err(e) if is_named(&e, transient::EXISTS) => None,
        Err(e) => return Err(e.to_string()),
    };
    tokio::time::timeout(TIMEOUT, await_end(bus, &name, done))
        .await
        .map_err(|_| "the clean-up takes long: it goes on".to_owned())
}
