//! Files and directories of the host inside the task: `bind`, `bind_read_only`, `mount` blocks of
//! that type, Nomad's volumes and what its device plugins bring.

use nomad_proto::drivers::Mount;
use proto::task_spec::files::{Bind, Mapping};

use super::node::Node;
use super::paths::{absolute, source, split};
use super::targets::Targets;
use super::version;
use crate::config::Problem;
use crate::config::block_keys::MountKeys;
use crate::config::field::Pairs;
use crate::config::task::TaskKeys;
use crate::config::words::{BindMapping, Propagation};
use proto::task_spec::files::Source;

/// Binds of the job's own keys and of Nomad's volumes, in the order in which they are mounted.
pub(crate) fn binds(
    keys: &TaskKeys,
    volumes: &[Mount],
    node: &Node<'_>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Vec<Bind> {
    let mapping = mapping(keys.bind_idmap, "bind_idmap", node, problems);
    let mut binds = Vec::new();
    for (key, read_only, pairs) in
        [("bind", false, &keys.bind), ("bind_read_only", true, &keys.bind_read_only)]
    {
        let Pairs(pairs) = pairs;
        for (from, to) in pairs {
            let key = format!("{key} {from:?}");
            binds.extend(pair(&key, from, to, (read_only, mapping), node, targets, problems));
        }
    }
    if !volumes.is_empty() && !node.config.volumes {
        problems.push(Problem::new("volume_mount", "volumes are not enabled on this node").remedy(
            "remove volume_mount, or have the operator set volumes = true in the agent's \
                 plugin block",
        ));
        return binds;
    }
    for volume in volumes {
        binds.extend(self::volume(volume, mapping, targets, problems));
    }
    binds
}

/// One `source = "target:options"`.
fn pair(
    key: &str,
    from: &str,
    to: &str,
    (read_only, mapping): (bool, Mapping),
    node: &Node<'_>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Bind> {
    // The key is one path: a bare colon in it parts nothing.
    let from = split(from).join(":");
    let source = source(key, &from, problems);
    let parts = split(to);
    let (target, options) = match parts.as_slice() {
        [target] => (target, ""),
        [target, options] => (target, options.as_str()),
        _ => {
            let problem = Problem::new(key, "must be a target, and options behind one colon");
            problems.push(problem.value(to).remedy(r"a colon in a path is written \:"));
            return None;
        }
    };
    let target = targets.take(key, target, problems);
    let mut bind = Bind {
        source: source?,
        target: target?,
        read_only,
        recursive: true,
        mapping,
        propagated: false,
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply_option(&mut bind, key, option, node, problems);
    }
    Some(bind)
}

/// One option of a bind, in systemd-nspawn's words.
fn apply_option(
    bind: &mut Bind,
    key: &str,
    option: &str,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) {
    match option {
        "rbind" => bind.recursive = true,
        "norbind" => bind.recursive = false,
        "noidmap" => bind.mapping = Mapping::None,
        "idmap" => bind.mapping = Mapping::Identity,
        "rootidmap" => bind.mapping = Mapping::Root,
        "owneridmap" => {
            bind.mapping = self::mapping(BindMapping::Owneridmap, key, node, problems);
        }
        other => problems.push(Problem::new(key, "knows no such option").value(other).remedy(
            r"rbind, norbind, noidmap, idmap, rootidmap or owneridmap; a colon in a path is \:",
        )),
    }
}

fn mapping(word: BindMapping, key: &str, node: &Node<'_>, problems: &mut Vec<Problem>) -> Mapping {
    match word {
        BindMapping::Auto => Mapping::Automatic,
        BindMapping::None => Mapping::None,
        BindMapping::Idmap => Mapping::Identity,
        BindMapping::Rootidmap => Mapping::Root,
        BindMapping::Owneridmap => {
            version::need(256, key, "owneridmap", "write rootidmap", node, problems);
            Mapping::Owner
        }
    }
}

/// A `mount` block of type bind.
pub(crate) fn build(
    key: &str,
    keys: &MountKeys,
    default: BindMapping,
    node: &Node<'_>,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Bind> {
    let mapping = mapping(default, "bind_idmap", node, &mut Vec::new());
    let from = keys.source.as_deref().unwrap_or_default();
    let source = source(&format!("{key}.source"), from, problems);
    let target = targets.take(&format!("{key}.target"), &keys.target, problems);
    let propagated = parse_propagation(keys.propagation, &format!("{key}.propagation"), problems)
        .unwrap_or_default();
    let mut bind = Bind {
        source: source?,
        target: target?,
        read_only: keys.readonly,
        recursive: true,
        mapping,
        propagated,
    };
    for option in &keys.options {
        apply_option(&mut bind, &format!("{key}.options"), option, node, problems);
    }
    Some(bind)
}

/// Whether later mounts of the host show up; `None` when it was refused.
fn parse_propagation(mode: Propagation, key: &str, problems: &mut Vec<Problem>) -> Option<bool> {
    match mode {
        Propagation::Private => Some(false),
        Propagation::HostToTask => Some(true),
        Propagation::Bidirectional => {
            problems.push(
                Problem::new(
                    key,
                    "a container has a mount namespace of its own, whose mounts never reach the host",
                )
                .value(mode.word())
                .remedy("write private or host-to-task"),
            );
            None
        }
    }
}

/// A volume of Nomad's, or a directory that a device plugin wants inside.
fn volume(
    volume: &Mount,
    mapping: Mapping,
    targets: &mut Targets,
    problems: &mut Vec<Problem>,
) -> Option<Bind> {
    let key = match volume.request_name.as_str() {
        "" => format!("volume_mount {:?}", volume.task_path),
        name => format!("volume_mount of {name:?}"),
    };
    let host = absolute(&key, &volume.host_path, problems);
    // Nomad's own drivers join a relative one to the container's root.
    let inside = format!("/{}", volume.task_path.trim_start_matches('/'));
    let target = targets.take(&key, &inside, problems);
    let mode = match volume.propagation_mode.as_str() {
        "" => Some(Propagation::Private),
        word => Propagation::ALL.iter().copied().find(|mode| mode.word() == word),
    };
    let Some(mode) = mode else {
        problems.push(
            Problem::new(key, "propagation_mode is not known")
                .value(&volume.propagation_mode)
                .remedy("write private or host-to-task"),
        );
        return None;
    };
    let propagated = parse_propagation(mode, &format!("{key}: propagation_mode"), problems);
    if !volume.selinux_label.is_empty() {
        problems.push(
            Problem::new(
                format!("{key}: selinux_label"),
                "this version of the nspawn driver relabels no volumes",
            )
            .value(&volume.selinux_label)
            .remedy("remove it, and label the directory on the host with chcon"),
        );
        return None;
    }
    Some(Bind {
        source: Source::Host(host?),
        target: target?,
        read_only: volume.readonly,
        recursive: true,
        mapping,
        propagated: propagated?,
    })
}
