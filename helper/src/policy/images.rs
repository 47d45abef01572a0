//! Where an image is, whether it may be changed, and which devices it takes to mount it.
//! Judged by path; what lies there is the launcher's to look at.

use proto::path::{Absolute, Component, Relative};
use proto::plan::Place;
use proto::spec::files::DeviceAccess;
use proto::spec::{Image, ImageKind, RootFs, TaskSpec};

use super::{Denial, Policy, devices, invalid, refuse};

/// The image's place.
pub(super) fn place(spec: &TaskSpec, policy: &Policy) -> Result<Place, Denial> {
    let writes = spec.root.mode.writes_image();
    let (place, writable) = match &spec.image {
        Image::Named(name) => {
            let disk = spec.root.kind == ImageKind::Disk && !name.as_str().ends_with(".raw");
            let file = if disk { format!("{name}.raw") } else { name.to_string() };
            let below = Component::new(file)
                .and_then(|file| Relative::new(vec![file]))
                .map_err(|e| invalid("image", name, e))?;
            let place = Place { root: policy.images_store.clone(), below };
            (place, entry(&policy.images_store, policy).is_some_and(|(_, writable)| writable))
        }
        Image::Path(path) => {
            let whole_host = path.components().is_empty() && !writes;
            entry(path, policy)
                .filter(|(place, _)| whole_host || !place.below.components().is_empty())
                .ok_or_else(|| {
                    let reason = "lies below no folder of [images] paths in the policy file; add \
                                  its parent folder there, or move the image";
                    refuse("images.paths", format!("image {path}"), reason)
                })?
        }
    };
    // Who may write to the tree around it could have made it, and change it under the kernel.
    let deep = place.below.components().len() > 1 && !place.root.components().is_empty();
    let disk = spec.root.kind == ImageKind::Disk && !place.to_path().starts_with("/dev");
    if disk && writable && deep {
        let reason = format!(
            "lies inside of a folder that tasks may change as an image; move it to {}, or \
             list its own folder in [images] paths of the policy file",
            place.root
        );
        return Err(refuse("images.paths", format!("disk image {place}"), reason));
    }
    if writes && !writable {
        let reason = format!(
            "may not be changed; use ephemeral = true, or the policy file would allow it with \
             {{ path = \"{}\", writable = true }} in [images] paths",
            place.root
        );
        return Err(refuse("images.paths", format!("image {place}"), reason));
    }
    Ok(place)
}

/// The longest entry of `images.paths` that is `path` or holds it, and whether it is writable.
fn entry(path: &Absolute, policy: &Policy) -> Option<(Place, bool)> {
    let holding = policy.images_paths.iter().filter_map(|entry| {
        let below = path.below(&entry.path)?;
        Some((Place { root: entry.path.clone(), below }, entry.writable))
    });
    holding.max_by_key(|(place, _)| place.root.components().len())
}

/// What the unit needs to mount the image: loop devices for a file, the device itself otherwise.
pub(super) fn devices(root: &RootFs, image: &Place) -> Result<Vec<(String, DeviceAccess)>, Denial> {
    if root.kind == ImageKind::Tree {
        return Ok(Vec::new());
    }
    let access = |write| DeviceAccess { read: true, write, mknod: false };
    let path = image.to_string();
    if path.starts_with("/dev/") {
        devices::check_name(&path)?;
        return Ok(vec![(path, access(root.mode.writes_image()))]);
    }
    Ok(["/dev/loop-control", "block-loop"].map(|name| (name.to_owned(), access(true))).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{COMPAT, Change, READ, check, devices, image, judged, row};
    use proto::spec::{ImageKind, Root};

    fn named(mode: Root) -> Change {
        Box::new(move |s| s.root.mode = mode)
    }

    #[test]
    fn images_lie_below_a_listed_folder_and_are_changed_where_it_says_so() {
        const TWO: &str = "[images]\npaths = [\"/srv\", { path = \"/srv/rw\", writable = true }]";
        const STORE: &str = "[images]\nstore = \"/srv/store\"\npaths = [\"/srv\"]";
        let rule = "images.paths";
        let words = "[images] paths";
        let good = || ("", image("/var/lib/machines/a/b", Root::Plain));
        check(vec![
            row(rule, words, ("", image("/", READ)), (COMPAT, image("/", READ))),
            row(rule, words, (COMPAT, image("/", Root::Plain)), (COMPAT, image("/x", Root::Plain))),
            row(rule, words, ("", image("/etc", READ)), (COMPAT, image("/etc", READ))),
            row(rule, words, ("", image("/var/lib/machines", READ)), good()),
            row(rule, words, ("", image("/var/lib/machines2/x", READ)), good()),
            row(
                rule,
                "writable = true",
                (TWO, image("/srv/a", Root::Plain)),
                (TWO, image("/srv/a", READ)),
            ),
            row(rule, words, (TWO, image("/srv/rw", READ)), (TWO, image("/srv/rw/a", Root::Plain))),
            row(rule, "may not be changed", (STORE, named(Root::Plain)), (STORE, named(READ))),
            row(
                rule,
                "may not",
                ("[images]\npaths = []", named(Root::Plain)),
                ("", named(Root::Plain)),
            ),
        ]);
    }

    /// A task that has the folder around it as its image could otherwise make the kernel mount
    /// any bytes, and change them meanwhile.
    #[test]
    fn a_disk_image_lies_in_no_image_that_tasks_write_to() {
        const OWN: &str = "[images]\npaths = [{ path = \"/srv\", writable = true }, \"/srv/a\"]";
        let disk = |path: &'static str| -> Change {
            Box::new(move |s| {
                image(path, READ)(s);
                s.root.kind = ImageKind::Disk;
            })
        };
        let words = "tasks may change";
        let good = || (OWN, disk("/srv/a/x.raw"));
        check(vec![
            row("images.paths", words, ("", disk("/var/lib/machines/a/x.raw")), good()),
            row("images.paths", words, (OWN, disk("/srv/b/x.raw")), (OWN, disk("/srv/x.raw"))),
            row("images.paths", words, (OWN, disk("/srv/b/x")), (COMPAT, disk("/srv/b/x"))),
        ]);
    }

    #[test]
    fn the_unit_gets_the_devices_that_are_needed() {
        let unit = |change: &dyn Fn(&mut TaskSpec)| {
            let decision = judged(COMPAT, change).unwrap();
            let all = decision.devices.into_iter();
            all.map(|(path, access)| (path, access.write, access.mknod)).collect::<Vec<_>>()
        };
        let disk = |mode, path: &'static str| {
            move |s: &mut TaskSpec| {
                image(path, mode)(s);
                s.root.kind = ImageKind::Disk;
            }
        };
        let loops =
            vec![("/dev/loop-control".into(), true, false), ("block-loop".into(), true, false)];
        assert_eq!(unit(&disk(READ, "/srv/a.raw")), loops);
        assert_eq!(unit(&disk(READ, "/dev/vg/a")), vec![("/dev/vg/a".into(), false, false)]);
        assert_eq!(unit(&disk(Root::Plain, "/dev/vg/a")), vec![("/dev/vg/a".into(), true, false)]);
        assert_eq!(unit(&devices("/dev/fuse", "wm")), vec![("/dev/fuse".into(), true, true)]);
        let raw = judged("", |s| s.root.kind = ImageKind::Disk).unwrap();
        assert_eq!(raw.image.to_string(), "/var/lib/machines/busybox.raw");
    }
}
