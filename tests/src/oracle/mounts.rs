//! Changes of the files of a specification, and lists that are as long as they may be, or longer.

use super::file::Settings;
use super::random::Random;
use super::texts::{self, path, relative};
use super::twists::constant;
use super::wire;
use proto::limits;
use proto::path::Absolute;
use proto::secret::Secret;
use proto::target::Target;
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, CredentialName, Device, DeviceAccess, Mapping, Overlay,
    Source, Tmpfs, Upper,
};
use proto::task_spec::output::{LabelName, LabelValue};
use proto::task_spec::process::{
    LimitName, ProcessLimit, SyscallName, SyscallRule, Sysctl, SysctlName, SysctlValue,
};
use proto::task_spec::{Label, Pivot, TaskSpec};

/// A place of the allocation, of every kind: the shared directory's, the task's own, another's.
fn of_alloc(random: &mut Random, alloc_dir: &Absolute) -> Absolute {
    let mut text = alloc_dir.to_string();
    for names in [&texts::ALLOC_FIRST[..], &texts::ALLOC_SECOND, &texts::ALLOC_THIRD] {
        let name = random.pick(names);
        if name.is_empty() {
            break;
        }
        text = format!("{text}/{name}");
    }
    path(&text)
}

/// A place below the task's own directory.
fn of_task(random: &mut Random) -> Source {
    let second = random.pick(&texts::ALLOC_SECOND);
    let names = [second, random.pick(&texts::ALLOC_THIRD)];
    let names: Vec<_> = names.into_iter().take_while(|name| !name.is_empty()).collect();
    Source::Task(relative(&names))
}

fn source(random: &mut Random, policy: &Settings, alloc_dir: &Absolute) -> Source {
    let listed = [policy.binds_read_only.as_slice(), policy.binds_read_write.as_slice()].concat();
    match random.below(10) {
        0 => of_task(random),
        3..6 => Source::Host(of_alloc(random, alloc_dir)),
        1 | 2 if !listed.is_empty() => {
            let rest = random.pick(&["", "/x", "x", "/OWN/x"]);
            Source::Host(path(&format!("{}{rest}", random.pick(&listed))))
        }
        _ => Source::Host(path(random.pick(&texts::PATHS))),
    }
}

/// A place inside; half of them are fine beyond doubt, so that other rules decide.
pub(super) fn place(random: &mut Random) -> Absolute {
    match random.below(8) {
        0..4 => path(&format!("/mnt/{}", random.next())),
        4 => path(random.pick(&["/mnt/own", "/mnt/memory"])),
        _ => path(random.pick(&texts::TARGETS)),
    }
}

/// The same as a mount point.
fn target(random: &mut Random) -> Target {
    wire::target(&place(random))
}

fn bind_at(source: Source, target: Target, read_only: bool) -> Bind {
    let mapping = Mapping::Automatic;
    Bind { source, target, read_only, recursive: false, mapping, propagated: false }
}

pub(super) fn bind(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..random.pick(&[1, 1, 1, 2]) {
        let bind =
            bind_at(source(random, policy, &spec.alloc_dir), target(random), random.chance(50));
        spec.files.binds.push(bind);
    }
}

pub(super) fn overlay(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let most = limits::LAYERS_MAX;
    let layers = random.pick(&[1, 1, 1, 2, 0, most, most + 1]);
    let mut lower = vec![Source::Task(relative(&["local"])); layers];
    let number = random.below(layers);
    if let (Some(one), true) = (lower.get_mut(number), random.chance(60)) {
        *one = source(random, policy, &spec.alloc_dir);
    }
    let upper = match random.below(4) {
        0 => Upper::ReadOnly,
        1 => Upper::Ephemeral,
        _ => Upper::Directory(source(random, policy, &spec.alloc_dir)),
    };
    spec.files.overlays.push(Overlay { lower, upper, target: target(random) });
}

pub(super) fn tmpfs(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    let mode = random.pick(&[0o755, 0o7777, 0o10000, u16::MAX]);
    spec.files.tmpfs.push(Tmpfs {
        target: target(random),
        size: Some(random.next()),
        inodes: Some(random.next()),
        mode: random.chance(70).then_some(mode),
        read_only: random.chance(50),
        executable: random.chance(50),
    });
}

pub(super) fn device(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let mut host = path(random.pick(&texts::DEVICES));
    if random.chance(40) {
        let rule = random.pick(&policy.devices_allow);
        let text = rule.split(':').next().unwrap_or_default().replace("**", "a/b");
        let text = text.replace('*', random.pick(&["", "x", "card0", "a/b"]));
        host = path(&format!("/{text}"));
    }
    let access = DeviceAccess {
        read: random.chance(70),
        write: random.chance(50),
        mknod: random.chance(30),
    };
    spec.files.devices.push(Device { host, target: target(random), access });
}

pub(super) fn hidden(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    spec.files.inaccessible.push(target(random));
}

pub(super) fn pivot(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    let new = match random.below(3) {
        0 => path(random.pick(&texts::TARGETS)),
        1 => path(random.pick(&texts::PATHS)),
        _ => path("/usr"),
    };
    let old = random.chance(80).then(|| target(random));
    spec.root.pivot = Some(Pivot { new, old });
}

pub(super) fn credential(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..random.pick(&[1, 1, 2]) {
        let name = constant!(CredentialName, random.pick(&["a", "b"]));
        let content = match random.below(6) {
            0 => CredentialContent::File(relative(random.pick(&texts::CREDENTIALS))),
            3 => match of_task(random) {
                Source::Task(below) => CredentialContent::File(below),
                Source::Host(_) => CredentialContent::Value(Secret::new("x")),
            },
            1 | 2 => {
                let length = limits::CREDENTIAL_MAX + random.below(2);
                CredentialContent::Value(Secret::new("x".repeat(length)))
            }
            _ => CredentialContent::Value(Secret::new("x")),
        };
        spec.files.credentials.push(Credential { name, content, encrypted: random.chance(50) });
    }
}

pub(super) fn count(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let over = random.below(2);
    let mounts = limits::MOUNTS_MAX + over;
    let at = |n: usize| wire::target(&path(&format!("/mnt/{n}")));
    let own = || Source::Task(relative(&["local"]));
    let files = &mut spec.files;
    match random.below(12) {
        0 => files.binds = (0..mounts).map(|n| bind_at(own(), at(n), false)).collect(),
        1 => {
            let (size, inodes, mode) = (None, None, None);
            let one =
                |n| Tmpfs { target: at(n), size, inodes, mode, read_only: false, executable: true };
            files.tmpfs = (0..mounts).map(one).collect();
        }
        2 => {
            let one = |n| Overlay { lower: vec![own()], upper: Upper::Ephemeral, target: at(n) };
            files.overlays = (0..mounts).map(one).collect();
        }
        3 => files.inaccessible = (0..mounts).map(at).collect(),
        4 => {
            let rule = random.pick(&policy.devices_allow);
            let host = rule.split(':').next().unwrap_or_default().replace('*', "x");
            let access = DeviceAccess { read: rule.contains("r"), write: false, mknod: false };
            let one = |n| Device { host: path(&format!("/{host}")), target: at(n), access };
            files.devices = (0..mounts).map(one).collect();
        }
        5 => {
            let one = |n: usize| Credential {
                name: constant!(CredentialName, format!("c{n}")),
                content: CredentialContent::Value(Secret::new("x")),
                encrypted: false,
            };
            files.credentials = (0..mounts).map(one).collect();
        }
        6 => {
            // Half of the bound in layers, the other half in upper directories and targets.
            let part = limits::PATHS_MAX / limits::MOUNTS_MAX / 4;
            let deep = |n| Source::Task(relative(&vec!["local"; n]));
            let one = |n: usize| Overlay {
                lower: vec![deep(part), deep(part)],
                upper: Upper::Directory(deep(part)),
                target: wire::target(&path(&format!("/{n}{}", "/x".repeat(part - 1)))),
            };
            files.overlays = (0..limits::MOUNTS_MAX).map(one).collect();
            files.binds.clear();
            files.inaccessible = (0..over).map(at).collect();
        }
        _ => count_rules(random, spec, limits::RULES_MAX + over),
    }
}

/// Lists of rules of this length.
fn count_rules(random: &mut Random, spec: &mut TaskSpec, rules: usize) {
    match random.below(4) {
        0 => {
            let name = constant!(SyscallName, "bpf");
            spec.isolation.syscalls = vec![SyscallRule { allow: false, name }; rules];
        }
        1 => {
            let one = |n| Sysctl {
                name: constant!(SysctlName, format!("kernel.shm{n}")),
                value: constant!(SysctlValue, "1"),
            };
            spec.isolation.sysctls = (0..rules).map(one).collect();
        }
        2 => {
            let one = ProcessLimit { resource: LimitName::Core, soft: None, hard: None };
            spec.isolation.limits = vec![one; rules];
        }
        _ => {
            // As many as there may be, or one more; in half of all cases just as long, or one byte
            // more: 31 of "L10=" and 124 bytes leave 128 for the last.
            let over = rules - limits::RULES_MAX;
            let (count, last) = match random.below(2) {
                0 => (limits::LABELS_MAX + over, None),
                _ => (limits::LABELS_MAX, Some(124 + over)),
            };
            let one = |n| {
                let length =
                    if n + 1 == count { last.unwrap_or(0) } else { last.map_or(0, |_| 124) };
                Label {
                    name: constant!(LabelName, format!("L{}", 10 + n)),
                    value: constant!(LabelValue, "x".repeat(length)),
                }
            };
            spec.labels = (0..count).map(one).collect();
        }
    }
}
