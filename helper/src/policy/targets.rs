//! Mount points inside, which no policy is about: each once, and none of systemd-nspawn's own.

use std::collections::HashSet;

use proto::path::Absolute;
use proto::spec::Files;

use super::{Denial, invalid};

/// What the task has there already.
const TAKEN: [&str; 6] = ["/", "/dev", "/run", "/alloc", "/local", "/secrets"];

/// Every mount point of these files.
pub(super) fn all(files: &Files) -> impl Iterator<Item = &Absolute> {
    let binds = files.binds.iter().map(|bind| &bind.target);
    let tmpfs = files.tmpfs.iter().map(|tmpfs| &tmpfs.target);
    let overlays = files.overlays.iter().map(|overlay| &overlay.target);
    let devices = files.devices.iter().map(|device| &device.target);
    binds.chain(tmpfs).chain(overlays).chain(devices).chain(&files.inaccessible)
}

pub(super) fn check(files: &Files) -> Result<(), Denial> {
    let mut seen = HashSet::new();
    for target in all(files) {
        check_target(target)?;
        if !seen.insert(target) {
            return Err(invalid("target", target, "two mounts at one place; leave one out"));
        }
    }
    Ok(())
}

fn check_target(target: &Absolute) -> Result<(), Denial> {
    target_rule(target).map_or(Ok(()), |rule| Err(invalid("target", target, rule)))
}

/// Why nothing is mounted there. Links of the image are no way around it.
pub(crate) fn target_rule(target: &Absolute) -> Option<&'static str> {
    let names: Vec<_> = target.components().iter().map(|part| part.as_str()).collect();
    if let ["proc" | "sys", ..] | ["run", "host", ..] = names[..] {
        // Host root writes into the last one by path.
        return Some("nothing is mounted at or below /proc, /sys and /run/host");
    }
    let taken = TAKEN.contains(&target.to_string().as_str());
    taken.then_some("the task has a mount of its own there; choose a place below it, or another")
}

#[cfg(test)]
mod tests {
    use crate::policy::tests::{Change, absolute, bind, change, check_invalid, device};
    use proto::spec::files::{Bind, Device};

    fn at(one: &'static str, other: &'static str) -> Change {
        change(move |s| {
            s.files.binds = vec![Bind { target: absolute(one), ..bind("/srv", true) }];
            s.files.devices = vec![Device { target: absolute(other), ..device("/dev/null", "r") }];
        })
    }

    fn hidden(path: &'static str) -> Change {
        change(move |s| s.files.inaccessible = vec![absolute(path)])
    }

    #[test]
    fn mounts_have_places_of_their_own() {
        check_invalid(vec![
            ("two mounts at one place", at("/a/b", "/a//b/"), at("/a", "/a/b")),
            ("/proc, /sys and /run/host", at("/proc", "/a"), at("/procs", "/a")),
            ("/proc, /sys and /run/host", at("/a", "/sys/kernel/x"), at("/a", "/srv/sys")),
            ("/proc, /sys and /run/host", at("/run/host", "/a"), at("/run/hosts", "/a")),
            ("/proc, /sys and /run/host", at("/run/host/x", "/a"), at("/host/x", "/a")),
            ("/proc, /sys and /run/host", hidden("/proc/kcore"), hidden("/etc/shadow")),
            ("mount of its own", at("/", "/a"), at("/b", "/a")),
            ("mount of its own", at("/dev", "/a"), at("/dev/a", "/a")),
            ("mount of its own", at("/run", "/a"), at("/run/a", "/a")),
            ("mount of its own", at("/alloc", "/a"), at("/alloc/a", "/a")),
            ("mount of its own", at("/local", "/a"), at("/local/a", "/a")),
            ("mount of its own", hidden("/secrets"), hidden("/secrets/a")),
        ]);
    }
}
