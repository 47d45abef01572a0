//! The task's own unit, which the launcher and then systemd-nspawn run in.

use std::os::fd::OwnedFd;

use proto::task_spec::files::DeviceAccess;
use proto::task_spec::process::{LimitName, ProcessLimit};
use proto::unit_id::UnitId;
use zbus::Variant;

use crate::systemd::bus::{Bus, MANAGER};
use crate::systemd::units::{names, resources, transient};
use crate::tasks::record::Record;
use policy::UnitSettings;

/// The rules for DeviceAllow=. The closed policy itself allows the standard nodes and /dev/pts.
///
/// PID 1 drops a rule for a node that is not there; the launcher, which opens each node, refuses
/// then. The host's nodes are not seen from here (PrivateDevices=).
fn devices(settings: &UnitSettings, make: bool) -> Vec<(&str, String)> {
    let asked = settings.devices.iter().map(|(path, access)| {
        (path.as_str(), DeviceAccess { mknod: make || access.mknod, ..*access }.to_string())
    });
    std::iter::once(("/dev/net/tun", "rwm".to_owned())).chain(asked).collect()
}

/// Takes the right to make nodes, which the launcher needed, away where the policy did not give it.
/// Only for a task without user namespace: in one the kernel lets nobody make a node.
pub(crate) async fn restrict_devices(
    bus: &Bus,
    unit: UnitId,
    settings: &UnitSettings,
) -> Result<(), String> {
    let none: Vec<(&str, String)> = Vec::new();
    // The empty list takes the earlier rules away: 252 would keep them beside the new ones.
    let rules = [none, devices(settings, false)].map(|rules| ("DeviceAllow", Variant::from(rules)));
    let body = (names::task(unit), true, Vec::from(rules));
    bus.call(MANAGER, "SetUnitProperties", &body).await.map(drop).map_err(|e| e.to_string())
}

/// Asks PID 1 for the unit. Returns when the job is queued. `socket`: the launcher's end. `stop`: the
/// signal for a command below the stub init.
pub(crate) async fn start(
    bus: &Bus,
    record: &Record,
    settings: &UnitSettings,
    limits: &[ProcessLimit],
    stop: Option<u8>,
    socket: OwnedFd,
    systemd: u32,
) -> Result<(), String> {
    let unit = record.unit();
    let id = unit.to_string();
    let clean = transient::command(&["clean", &id], true)?;
    // Always with `m`: the launcher makes the node.
    let devices = devices(settings, true);
    // Room for what systemd-nspawn sets from inside the user namespace, where no hard limit can be
    // raised. Without bound, so that none of them is too low for the launcher and systemd-nspawn; of
    // nice the kernel's most, since PID 1 of systemd 257 fails at an unlimited one.
    let room = |limit: &ProcessLimit| {
        let nice = limit.resource == LimitName::Nice;
        (format!("Limit{}", limit.resource.name()), if nice { 40 } else { u64::MAX })
    };
    let rooms: Vec<_> = limits.iter().map(room).collect();
    let fields = transient::fields(record, &settings.labels);
    let mut properties =
        transient::service("Nomad task in systemd-nspawn", "launch", socket, fields)?;
    properties.extend([
        ("Slice", Variant::from(resources::slice(&settings.resources))),
        ("NotifyAccess", Variant::from("none")),
        // Keeps the exit status until it is read, also that of exit 0.
        ("RemainAfterExit", Variant::from(true)),
        ("CollectMode", Variant::from("inactive")),
        ("KillMode", Variant::from("mixed")),
        ("KillSignal", Variant::from(15_i32)),
        ("Delegate", Variant::from(true)),
        ("DeviceAllow", Variant::from(devices)),
        ("TimeoutStopUSec", Variant::from(settings.kill_timeout_ms.saturating_mul(1000))),
        ("ExecStopPost", Variant::from(clean)),
    ]);
    properties.extend(rooms.iter().map(|(name, room)| (name.as_str(), Variant::from(*room))));
    if let Some(signal) = stop {
        let stop = transient::command(&["stop", &signal.to_string()], true)?;
        properties.push(("ExecStop", Variant::from(stop)));
    }
    if systemd >= 254 {
        properties.push(("DelegateSubgroup", Variant::from("supervisor")));
    }
    properties.extend(resources::properties(&settings.resources));
    transient::start(bus, &names::task(unit), properties).await.map_err(|e| e.to_string())
}
