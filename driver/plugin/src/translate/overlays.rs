//! Overlay mounts: which directories are their layers, and which of them is written.

use proto::limits;
use proto::task_spec::files::{Overlay, Upper};

use super::paths::{source, split};
use super::targets::Targets;
use crate::config::Problem;
use crate::config::task::TaskKeys;

/// Those of the job's `overlay` and `overlay_ro`.
pub(crate) fn read_lists(
    keys: &TaskKeys,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Vec<Overlay> {
    let mut overlays = Vec::new();
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
            overlays.extend(build(&key, &parts, &target, read_only, targets, problems));
        }
    }
    overlays
}

/// An overlay of these layers, the highest last.
pub(crate) fn build(
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
            source(key, upper, problems).map(Upper::Directory)
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
