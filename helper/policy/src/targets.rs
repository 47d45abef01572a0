//! Mount points inside, which no policy is about: each once. Which places no mount may have is the
//! rule of [`Target`] itself.

use std::collections::HashSet;

use proto::target::Target;
use proto::task_spec::TaskSpec;

use super::{Denial, invalid};

/// Every mount point of a specification.
pub(super) fn all(spec: &TaskSpec) -> impl Iterator<Item = &Target> {
    let files = &spec.files;
    let binds = files.binds.iter().map(|bind| &bind.target);
    let tmpfs = files.tmpfs.iter().map(|tmpfs| &tmpfs.target);
    let overlays = files.overlays.iter().map(|overlay| &overlay.target);
    let devices = files.devices.iter().map(|device| &device.target);
    let pivot = spec.root.pivot.iter().filter_map(|pivot| pivot.old.as_ref());
    binds.chain(tmpfs).chain(overlays).chain(devices).chain(&files.inaccessible).chain(pivot)
}

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    let mut seen = HashSet::new();
    match all(spec).find(|target| !seen.insert(*target)) {
        Some(target) => Err(invalid("target", target, "two mounts at one place; leave one out")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::{Change, absolute, bind, change, check_invalid, device, target};
    use proto::task_spec::Pivot;
    use proto::task_spec::files::{Bind, Device};

    fn at(one: &'static str, other: &'static str) -> Change {
        change(move |s| {
            s.files.binds = vec![Bind { target: target(one), ..bind("/srv", true) }];
            s.files.devices = vec![Device { target: target(other), ..device("/dev/null", "r") }];
        })
    }

    fn hidden(path: &'static str, old: &'static str) -> Change {
        change(move |s| {
            s.files.inaccessible = vec![target(path)];
            s.root.pivot = Some(Pivot { new: absolute("/new"), old: Some(target(old)) });
        })
    }

    #[test]
    fn mounts_have_places_of_their_own() {
        check_invalid(vec![
            ("two mounts at one place", at("/a/b", "/a//b/"), at("/a", "/a/b")),
            ("two mounts at one place", hidden("/a", "/a"), hidden("/a", "/a/b")),
        ]);
    }
}
