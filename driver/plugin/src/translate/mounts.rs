//! File systems in memory, overlay mounts and `mount` blocks.

use proto::limits;
use proto::task_spec::Files;
use proto::task_spec::files::{Overlay, Tmpfs, Upper};

use super::binds;
use super::node::Node;
use super::place::{Targets, source, split};
use crate::config::Problem;
use crate::config::block_keys::MountKeys;
use crate::config::task::TaskKeys;
use crate::config::value::Size;
use crate::config::words::{MountType, Propagation};

/// Where every distribution lets all users write, and nobody remove what is another's.
const OPEN_TO_ALL: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Adds what `tmpfs`, `overlay`, `overlay_ro`, `inaccessible` and `mount` ask for.
pub(crate) fn add(
    keys: &TaskKeys,
    node: &Node<'_>,
    files: &mut Files,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) {
    for text in &keys.tmpfs {
        let key = format!("tmpfs {text:?}");
        let parts = split(text);
        let (target, options) = match parts.as_slice() {
            [target] => (target, ""),
            [target, options] => (target, options.as_str()),
            _ => {
                problems.push(Problem::new(key, "must be a path, and options behind one colon"));
                continue;
            }
        };
        let options = options.split(',').filter(|option| !option.is_empty());
        files.tmpfs.extend(tmpfs(&key, target, options, targets, problems));
    }
    for (key, read_only, list) in
        [("overlay", false, &keys.overlay), ("overlay_ro", true, &keys.overlay_ro)]
    {
        for text in list {
            let key = format!("{key} {text:?}");
            let mut parts = split(text);
            let Some(target) = parts.pop().filter(|_| !parts.is_empty()) else {
                problems.push(
                    Problem::new(key, "must be at least two paths joined by colons").remedy(
                        "lower:upper:target, or lower:target where the upper is the target",
                    ),
                );
                continue;
            };
            // With two paths the second is both the highest layer and the place inside.
            if parts.len() == 1 {
                parts.push(target.clone());
            }
            files.overlays.extend(overlay(&key, &parts, &target, read_only, targets, problems));
        }
    }
    for path in &keys.inaccessible {
        files.inaccessible.extend(targets.take("inaccessible", path, problems));
    }
    add_blocks(keys, node, files, targets, problems);
}

fn add_blocks(
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
                let bind = binds::mount(&key, mount, keys.bind_idmap, node, targets, problems);
                files.binds.extend(bind);
            }
            MountType::Tmpfs => {
                unused(&key, mount, mount.source.is_some(), problems);
                let options = mount.options.iter().map(String::as_str);
                let tmpfs = tmpfs(&key, &mount.target, options, targets, problems);
                let read_only = mount.readonly;
                files
                    .tmpfs
                    .extend(tmpfs.map(|it| Tmpfs { read_only: it.read_only || read_only, ..it }));
            }
            MountType::Overlay => {
                unused(&key, mount, !mount.options.is_empty(), problems);
                let layers = split(mount.source.as_deref().unwrap_or_default());
                files.overlays.extend(overlay(
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
fn unused(key: &str, mount: &MountKeys, more: bool, problems: &mut Vec<Problem>) {
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

fn tmpfs<'a>(
    key: &str,
    target: &str,
    options: impl Iterator<Item = &'a str>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Tmpfs> {
    let target = targets.take(key, target, problems)?;
    let mut tmpfs = Tmpfs {
        mode: OPEN_TO_ALL.contains(&target.to_string().as_str()).then_some(0o1777),
        target,
        size: None,
        inodes: None,
        read_only: false,
        executable: true,
    };
    let before = problems.len();
    for option in options {
        if apply(&mut tmpfs, option).is_none() {
            problems.push(Problem::new(key, "knows no such option").value(option).remedy(
                "size=BYTES (also with k, m, g), nr_inodes=N, mode=OCTAL, ro, rw, exec, noexec",
            ));
        }
    }
    (problems.len() == before).then_some(tmpfs)
}

/// Takes one option over; `None` when it is not known or its value is wrong.
fn apply(tmpfs: &mut Tmpfs, option: &str) -> Option<()> {
    let (name, value) = option.split_once('=').unwrap_or((option, ""));
    match name {
        "ro" => tmpfs.read_only = true,
        "rw" => tmpfs.read_only = false,
        "exec" => tmpfs.executable = true,
        "noexec" => tmpfs.executable = false,
        // They hold anyway.
        "nosuid" | "nodev" => {}
        "size" => tmpfs.size = Some(size(value)?),
        "nr_inodes" => tmpfs.inodes = Some(size(value)?),
        "mode" => {
            let mode = u16::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
            tmpfs.mode = Some(mode?);
        }
        _ => return None,
    }
    Some(())
}

fn size(text: &str) -> Option<u64> {
    Size::parse(text).map(|size| size.0).filter(|size| *size > 0)
}

/// An overlay of these layers, the highest last.
fn overlay(
    key: &str,
    layers: &[String],
    target: &str,
    read_only: bool,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Overlay> {
    let target = targets.take(key, target, problems);
    let (lower, upper) = if read_only {
        (layers, Some(Upper::ReadOnly))
    } else {
        let (upper, lower) = layers.split_last()?;
        let upper = if upper.is_empty() {
            Some(Upper::Ephemeral)
        } else {
            source(key, upper, problems).map(Upper::Folder)
        };
        (lower, upper)
    };
    if lower.is_empty() {
        problems.push(
            Problem::new(key, "lacks a lower layer").remedy("lower:upper, the upper may be empty"),
        );
    }
    if lower.len() > limits::LAYERS_MAX {
        problems.push(Problem::new(key, format!("at most {} lower layers", limits::LAYERS_MAX)));
    }
    let lower: Option<Vec<_>> = lower.iter().map(|path| source(key, path, problems)).collect();
    Some(Overlay { lower: lower?, upper: upper?, target: target? })
}
