//! Device nodes of the host.
//! Judged by path; the launcher looks at the node itself.

use proto::path::Absolute;
use proto::plan::Place;
use proto::task_spec::files::{Device, DeviceAccess};

use super::glob::matches;
use super::{Denial, Policy, invalid, place_below, refuse, unlisted};

/// A device's place.
pub(super) fn plan(
    device: &Device,
    dev: &Absolute,
    policy: &Policy,
) -> Result<Device<Place>, Denial> {
    let path = device.host.to_string();
    let object = format!("device {path}");
    let place = place_below(&device.host, [dev]).filter(|p| !p.below.components().is_empty());
    let host = place.ok_or_else(|| {
        refuse("devices.allow", &object, "lies outside /dev; no policy allows that")
    })?;
    let covers = |allowed: DeviceAccess| {
        let DeviceAccess { read, write, mknod } = device.access;
        (!read || allowed.read) && (!write || allowed.write) && (!mknod || allowed.mknod)
    };
    let mut rules = policy.devices.allow.iter();
    if rules.any(|rule| matches(&rule.pattern, &path, Some(b'/')) && covers(rule.access)) {
        return Ok(Device { host, target: device.target.clone(), access: device.access });
    }
    Err(unlisted("devices.allow", object, format!("{path}:{}", device.access)))
}

/// Checks a device without regard to the policy.
pub(super) fn check(device: &Device) -> Result<(), Denial> {
    if device.access.to_string().is_empty() {
        let object = format!("device {}", device.host);
        return Err(invalid("device-access", object, "ask for some of r, w and m"));
    }
    check_name(&device.host.to_string())
}

/// The path becomes a word of a unit file.
pub(super) fn check_name(path: &str) -> Result<(), Denial> {
    if path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._:+@,=-".contains(&b)) {
        return Ok(());
    }
    let rule = "letters, digits and /._:+@,=- only (it becomes DeviceAllow= of the unit)";
    Err(invalid("device-name", format!("device {path}"), rule))
}
