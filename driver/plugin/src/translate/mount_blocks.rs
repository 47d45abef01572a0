//! `mount` blocks, each a bind, an overlay or a file system in memory.

use proto::task_spec::Files;
use proto::task_spec::files::Tmpfs;

use super::node::Node;
use super::paths::split;
use super::targets::Targets;
use super::{binds, overlays, tmpfs};
use crate::config::Problem;
use crate::config::block_keys::MountKeys;
use crate::config::task::TaskKeys;
use crate::config::words::{MountType, Propagation};

/// Adds what the blocks ask for.
pub(crate) fn add(
    keys: &TaskKeys,
    node: &Node<'_>,
    files: &mut Files,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) {
    for (index, mount) in keys.mount.0.iter().enumerate() {
        let key = format!("mount[{index}]");
        match mount.r#type {
            MountType::Bind => {
                let bind = binds::build(&key, mount, keys.bind_idmap, node, targets, problems);
                files.binds.extend(bind);
            }
            MountType::Tmpfs => {
                refuse_unused(&key, mount, mount.source.is_some(), problems);
                let options = mount.options.iter().map(String::as_str);
                let tmpfs = tmpfs::build(&key, &mount.target, options, targets, problems);
                let read_only = mount.readonly;
                files
                    .tmpfs
                    .extend(tmpfs.map(|it| Tmpfs { read_only: it.read_only || read_only, ..it }));
            }
            MountType::Overlay => {
                refuse_unused(&key, mount, !mount.options.is_empty(), problems);
                let layers = split(mount.source.as_deref().unwrap_or_default());
                files.overlays.extend(overlays::build(
                    &key,
                    &layers,
                    &mount.target,
                    mount.readonly,
                    targets,
                    problems,
                ));
            }
        }
    }
}

/// Refuses keys of a `mount` block that its type has no use for.
fn refuse_unused(key: &str, mount: &MountKeys, more: bool, problems: &mut Vec<Problem>) {
    let word = mount.r#type.word();
    if more {
        let name = if mount.r#type == MountType::Tmpfs { "source" } else { "options" };
        problems.push(
            Problem::new(
                format!("{key}.{name}"),
                format!("has no meaning for a mount of type {word}"),
            )
            .remedy("remove it"),
        );
    }
    if mount.propagation != Propagation::Private {
        problems.push(
            Problem::new(
                format!("{key}.propagation"),
                format!("has no meaning for a mount of type {word}"),
            )
            .remedy("remove it"),
        );
    }
}
