//! Mount points inside, which no policy is about: each once, and none of systemd-nspawn's own.

use std::collections::HashSet;

use proto::path::Absolute;
use proto::spec::Files;

use super::{Denial, invalid};

/// What the task has there already.
const TAKEN: [&str; 6] = ["/", "/dev", "/run", "/alloc", "/local", "/secrets"];

pub(super) fn check(files: &Files) -> Result<(), Denial> {
    let binds = files.binds.iter().map(|bind| &bind.target);
    let tmpfs = files.tmpfs.iter().map(|tmpfs| &tmpfs.target);
    let overlays = files.overlays.iter().map(|overlay| &overlay.target);
    let devices = files.devices.iter().map(|device| &device.target);
    let mut seen = HashSet::new();
    for target in binds.chain(tmpfs).chain(overlays).chain(devices).chain(&files.inaccessible) {
        check_target(target)?;
        if !seen.insert(target) {
            return Err(invalid("target", target, "two mounts at one place; leave one out"));
        }
    }
    Ok(())
}

fn check_target(target: &Absolute) -> Result<(), Denial> {
    let first = target.components().first().map(|part| part.as_str());
    if matches!(first, Some("proc" | "sys")) {
        return Err(invalid("target", target, "nothing is mounted at or below /proc and /sys"));
    }
    if TAKEN.contains(&target.to_string().as_str()) {
        let rule = "the task has a mount of its own there; choose a place below it, or another";
        return Err(invalid("target", target, rule));
    }
    Ok(())
}
