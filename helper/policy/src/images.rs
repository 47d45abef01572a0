//! Where an image is, whether it may be changed, and which devices it takes to mount it.
//! Judged by path; what lies there is the launcher's to look at.

use proto::layer::{IMAGES, IMPORTS};
use proto::path::{Absolute, Component, Relative};
use proto::plan::Place;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::{Image, ImageKind, RootFs, TaskSpec};

use super::binds::touches;
use super::model::ImagePath;
use super::{Denial, Policy, devices, invalid, refuse};

/// The image's place.
pub(super) fn place(spec: &TaskSpec, policy: &Policy) -> Result<Place, Denial> {
    if spec.root.kind == ImageKind::Layers {
        return imported(spec);
    }
    let writes = spec.root.mode.writes_image();
    let (place, writable) = listed(spec, policy, writes)?;
    let path = Absolute::parse(&place.to_string()).map_err(|e| invalid("image", &place, e))?;
    check_shown(&path, &place, policy)?;
    let bad = |reason| Err(refuse("images.paths", format!("image {place}"), reason));
    // Who may write to the tree around it could have made it, and change it under the kernel. Where
    // the entry that decides is not writable, nothing that holds it may be changed.
    let around = |entry: &&ImagePath| {
        let depth = path.below(&entry.path).map_or(0, |below| below.components().len());
        entry.writable && depth > 1 && !entry.path.components().is_empty()
    };
    let is_made =
        spec.root.kind == ImageKind::Disk && !path.to_path().starts_with("/dev") && writable;
    if is_made && let Some(entry) = policy.images.paths.iter().find(around) {
        return bad(format!(
            "lies inside of a directory that tasks may change as an image; move it to {}, or list \
             its own directory in [images] paths of the policy file, not writable",
            entry.path
        ));
    }
    if writes && !writable {
        return bad(format!(
            "may not be changed; use ephemeral = true, or the policy file would allow it with \
             {{ path = \"{}\", writable = true }} in [images] paths",
            place.root
        ));
    }
    let kept = |entry: &&ImagePath| !entry.writable && entry.path.below(&path).is_some();
    if writes && let Some(kept) = policy.images.paths.iter().find(kept) {
        return bad(format!(
            "may not be changed: it is or holds {}, which [images] paths lists as not writable; \
             use ephemeral = true, or move one of them",
            kept.path
        ));
    }
    Ok(place)
}

/// The place of an imported image, which stands for its layers. What lies in the store of layers was
/// brought there by root for tasks, so no list has it; and it shows nothing of the host.
fn imported(spec: &TaskSpec) -> Result<Place, Denial> {
    let (Image::Named(name) | Image::NamedOr(name, _)) = &spec.image else {
        return Err(invalid("image-layers", "image", "an imported image has a name, no path"));
    };
    let bad = |e| invalid("image-layers", format!("image {name}"), e);
    let root = Absolute::parse(IMAGES).map_err(bad)?;
    let below = [IMPORTS, name.as_str()].map(Component::new).into_iter().collect::<Result<_, _>>();
    let place = Place { root, below: below.and_then(Relative::new).map_err(bad)? };
    if spec.root.mode.writes_image() {
        let reason = "was imported, and the layers of such an image cannot be changed: use \
                      ephemeral = true, with persist = \"alloc\" where changes are to outlive a \
                      restart";
        return Err(invalid("image-layers", format!("image {name}"), reason));
    }
    Ok(place)
}

/// The image's place by the policy's lists, and whether it may be changed there.
fn listed(spec: &TaskSpec, policy: &Policy, writes: bool) -> Result<(Place, bool), Denial> {
    match &spec.image {
        // Which of the two it is was settled before.
        Image::Named(name) | Image::NamedOr(name, _) => {
            let disk = spec.root.kind == ImageKind::Disk && !name.as_str().ends_with(".raw");
            let file = if disk { format!("{name}.raw") } else { name.to_string() };
            let below = Component::new(file)
                .and_then(|file| Relative::new(vec![file]))
                .map_err(|e| invalid("image", name, e))?;
            let place = Place { root: policy.images.store.0.clone(), below };
            let holding = entry(&policy.images.store.0, policy);
            Ok((place, holding.is_some_and(|(_, writable)| writable)))
        }
        Image::Path(path) => {
            let whole_host = path.components().is_empty() && !writes;
            entry(path, policy)
                .filter(|(place, _)| whole_host || !place.below.components().is_empty())
                .ok_or_else(|| {
                    let reason = "lies below no directory of [images] paths in the policy file; \
                                  add its parent directory there, or move the image";
                    refuse("images.paths", format!("image {path}"), reason)
                })
        }
    }
}

/// An image shows all of itself: none is, holds or lies below what tasks may not see.
fn check_shown(path: &Absolute, place: &Place, policy: &Policy) -> Result<(), Denial> {
    let kept = |rule, directory: Option<&Absolute>, why: &str| {
        let reason = format!("is, holds or lies below {}, {why}", directory?);
        Some(refuse(rule, format!("image {path}"), reason))
    };
    // The whole host is given as such, where the policy lists it.
    let whole = path.components().is_empty();
    let mut allocs = policy.nomad.alloc_dirs.iter().chain(&policy.derived.alloc_mounts);
    let alloc = allocs.find(|directory| !whole && touches(path, directory));
    // What the operator lists within such a directory is meant.
    let broad =
        |directory: &&Absolute| touches(path, directory) && place.root.below(directory).is_none();
    let (denied, never) =
        (policy.binds.deny.iter().find(broad), policy.derived.images_never.iter().find(broad));
    let denial = kept("nomad.alloc_dirs", alloc, "where Nomad keeps allocations; move the image")
        .or_else(|| {
            let why = "which [binds] deny lists; move the image, or add its own directory to \
                       [images] paths";
            kept("binds.deny", denied, why)
        })
        .or_else(|| {
            let why = "which is shown only below a directory of its own in [images] paths, or, as good \
                       as root, with preset = \"compat\"";
            kept("preset", never, why)
        });
    denial.map_or(Ok(()), Err)
}

/// The longest entry of `images.paths` that is `path` or holds it, and whether it is writable.
fn entry(path: &Absolute, policy: &Policy) -> Option<(Place, bool)> {
    let holding = policy.images.paths.iter().filter_map(|entry| {
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
    use crate::tests::{COMPAT, Change, READ, check, devices, image, judged, row};
    use proto::task_spec::{ImageKind, Root};

    fn named(mode: Root) -> Change {
        Box::new(move |s| s.root.mode = mode)
    }

    #[test]
    fn images_lie_below_a_listed_directory_and_are_changed_where_it_says_so() {
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

    /// What is read-only by its own entry is no part of an image that a task changes.
    #[test]
    fn an_image_that_is_changed_holds_no_entry_that_is_not() {
        const GOLD: &str = "[images]\npaths = [{ path = \"/var/lib/machines\", writable = true }, \
                            \"/var/lib/machines/a/gold\", \"/var/lib/machines/busybox\"]";
        let words = "lists as not writable";
        let (rule, plain) = ("images.paths", Root::Plain);
        let at = |path| image(path, Root::Plain);
        check(vec![
            row(
                rule,
                words,
                (GOLD, at("/var/lib/machines/a")),
                (GOLD, image("/var/lib/machines/a", READ)),
            ),
            row(rule, words, (GOLD, named(plain)), (GOLD, named(READ))),
            row(rule, words, (GOLD, at("/var/lib/machines/a")), (GOLD, at("/var/lib/machines/ab"))),
            row(
                rule,
                "may not be changed",
                (GOLD, at("/var/lib/machines/a/gold/x")),
                (GOLD, at("/var/lib/machines/a/b")),
            ),
        ]);
    }

    /// What a broad entry holds beside images.
    #[test]
    fn an_image_shows_nothing_that_is_kept_from_tasks() {
        const ALL: &str = "[images]\npaths = [\"/\"]";
        const DENY: &str = "preset = \"compat\"\n[binds]\ndeny = [\"/srv/a\"]";
        const MEANT: &str = "[images]\npaths = [\"/dev/vg\", \"/var/lib/nomad/plugins\", \
                             \"/srv/a/b\", \"/etc\"]\n[binds]\ndeny = [\"/srv/a\"]";
        const STORE: &str = "[binds]\ndeny = [\"/var\"]";
        let read = |path| image(path, READ);
        let never =
            |path, good| row("preset", "of its own", (ALL, read(path)), (MEANT, read(good)));
        let deny = |path, good| row("binds.deny", "/srv/a, ", (DENY, read(path)), good);
        check(vec![
            never("/", "/etc/x"),
            never("/dev/vg/a", "/dev/vg/a"),
            never("/var/lib/nomad/x", "/etc/x"),
            never("/var/lib/nomad/plugins/x", "/var/lib/nomad/plugins/x"),
            never("/etc/nomad-nspawn", "/etc/x"),
            deny("/", (COMPAT, read("/"))),
            deny("/srv", (DENY, read("/srv/ab"))),
            deny("/srv/a/b/c", (MEANT, read("/srv/a/b/c"))),
            deny("/srv/a", (STORE, named(READ))),
        ]);
    }

    /// Not even a preset or an entry of its own makes an image of what tasks and Nomad write there.
    #[test]
    fn nothing_of_an_allocation_is_an_image() {
        const ALLOCS: &str = "[images]\npaths = [\"/var/lib/nomad/alloc\", \"/var/lib/machines\"]";
        let kept = "keeps allocations";
        for file in [COMPAT, ALLOCS] {
            let good = || (file, image("/var/lib/machines/x", READ));
            let at = |path| row("nomad.alloc_dirs", kept, (file, image(path, READ)), good());
            check(vec![at("/var/lib/nomad/alloc/other"), at("/var/lib/nomad/alloc/a/alloc/x.raw")]);
        }
        for path in ["/var", "/opt/nomad", "/opt/nomad/alloc_mounts/x", "/var/lib/nomad/alloc"] {
            let good = (COMPAT, image("/", READ));
            check(vec![row("nomad.alloc_dirs", kept, (COMPAT, image(path, READ)), good)]);
        }
    }

    /// A task that has the directory around it as its image could otherwise make the kernel mount
    /// any bytes, and change them meanwhile.
    #[test]
    fn a_disk_image_lies_in_no_image_that_tasks_write_to() {
        const OWN: &str = "[images]\npaths = [{ path = \"/srv\", writable = true }, \"/srv/a\"]";
        const NESTED: &str = "[images]\npaths = [{ path = \"/srv\", writable = true }, \
                              { path = \"/srv/a\", writable = true }]";
        const STORE: &str = "[images]\npaths = [{ path = \"/var/lib\", writable = true }]";
        const KEPT: &str = "[images]\npaths = [{ path = \"/var/lib\", writable = true }, \
                            \"/var/lib/machines\"]";
        let disk = |path: &'static str| -> Change {
            Box::new(move |s| {
                image(path, READ)(s);
                s.root.kind = ImageKind::Disk;
            })
        };
        let store = || -> Change { Box::new(|s| s.root.kind = ImageKind::Disk) };
        let words = "tasks may change";
        let good = || (OWN, disk("/srv/a/x.raw"));
        check(vec![
            row("images.paths", words, ("", disk("/var/lib/machines/a/x.raw")), good()),
            row("images.paths", words, (OWN, disk("/srv/b/x.raw")), (OWN, disk("/srv/x.raw"))),
            row("images.paths", words, (OWN, disk("/srv/b/x")), (COMPAT, disk("/srv/b/x"))),
            row(
                "images.paths",
                words,
                (NESTED, disk("/srv/a/x.raw")),
                (NESTED, disk("/srv/x.raw")),
            ),
            row("images.paths", words, (STORE, store()), (KEPT, store())),
        ]);
    }

    /// No list of the policy file has the store of layers, and its whole tree is kept from binds.
    #[test]
    fn an_imported_image_is_named_and_never_changed() {
        const NONE: &str = "[images]\npaths = []\n[binds]\ndeny = [\"/var\"]";
        let layers = |mode| -> Change {
            Box::new(move |s| {
                s.root.mode = mode;
                s.root.kind = ImageKind::Layers;
            })
        };
        for file in [NONE, COMPAT] {
            let judged = judged(file, layers(READ)).unwrap();
            let place = judged.plan().image.to_string();
            assert_eq!(place, "/var/lib/nomad-nspawn/images/imports/busybox");
            let devices: Vec<_> = judged.unit().devices.iter().map(|(path, _)| path).collect();
            assert_eq!(devices, ["/dev/loop-control", "block-loop"]);
            let path = |s: &mut TaskSpec| {
                image("/srv/a", READ)(s);
                s.root.kind = ImageKind::Layers;
            };
            let changed = crate::tests::judged(file, layers(Root::Plain)).unwrap_err();
            assert!(changed.refusal.reason.contains("ephemeral = true"), "{changed:?}");
            let path = crate::tests::judged(file, path).unwrap_err();
            assert_eq!((changed.rule, path.rule), ("image-layers", "image-layers"));
        }
    }

    #[test]
    fn the_unit_gets_the_devices_that_are_needed() {
        let unit = |change: &dyn Fn(&mut TaskSpec)| {
            let decision = judged(COMPAT, change).unwrap();
            let all = decision.unit().devices.iter().cloned();
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
        assert_eq!(raw.plan().image.to_string(), "/var/lib/machines/busybox.raw");
    }
}
