//! Where an image is, whether it may be changed, and which devices it takes to mount it.

use proto::path::{Absolute, Component, Relative};
use proto::plan::Place;
use proto::spec::files::DeviceAccess;
use proto::spec::{Image, ImageKind, RootFs, TaskSpec};

use super::{Denial, Policy, UnitDevice, devices, invalid, refuse};

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
                    refuse(
                        "images.paths",
                        format!("image {path}"),
                        "lies below no folder of [images] paths in the policy file; add its \
                         parent folder there, or move the image",
                    )
                })?
        }
    };
    if writes && !writable {
        return Err(refuse(
            "images.paths",
            format!("image {place}"),
            format!(
                "may not be changed; use ephemeral = true, or the policy file would allow it with \
                 {{ path = \"{}\", writable = true }} in [images] paths",
                place.root
            ),
        ));
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
pub(super) fn devices(root: &RootFs, image: &Place) -> Result<Vec<UnitDevice>, Denial> {
    if root.kind == ImageKind::Tree {
        return Ok(Vec::new());
    }
    let device = |path: String, write| UnitDevice {
        path,
        access: DeviceAccess { read: true, write, mknod: false },
    };
    let path = image.to_string();
    if path.starts_with("/dev/") {
        devices::check_name(&path)?;
        return Ok(vec![device(path, root.mode.writes_image())]);
    }
    Ok(vec![device("/dev/loop-control".to_owned(), true), device("block-loop".to_owned(), true)])
}
