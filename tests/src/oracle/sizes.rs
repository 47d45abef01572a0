//! Bounds, ranges, doubled names and contradictions: what is refused whatever the policy says.

use super::file::Settings;
use super::places::{image, is_plain, within};
use super::{Broken, grants, places, wire};
use proto::limits;
use proto::path::Relative;
use proto::task_spec::files::{CredentialContent, Source, Upper};
use proto::task_spec::network::{Attached, ContainerLink, Parent, Private};
use proto::task_spec::process::Ready;
use proto::task_spec::resolver::EtcFile;
use proto::task_spec::resources::{Property, Swap};
use proto::task_spec::{ImageKind, Logs, Network, Ownership, Payload, Root, TaskSpec, Users};

fn doubled<T: PartialEq>(of: impl Iterator<Item = T>) -> bool {
    let all: Vec<T> = of.collect();
    all.iter().enumerate().any(|(n, one)| all.iter().skip(n + 1).any(|other| one == other))
}

fn check_counts(spec: &TaskSpec, broken: &mut Broken) {
    let (files, rules) = (&spec.files, &spec.isolation);
    broken.invalid("many-binds", files.binds.len() > limits::MOUNTS_MAX);
    broken.invalid("many-tmpfs", files.tmpfs.len() > limits::MOUNTS_MAX);
    broken.invalid("many-overlays", files.overlays.len() > limits::MOUNTS_MAX);
    broken.invalid("many-inaccessible", files.inaccessible.len() > limits::MOUNTS_MAX);
    broken.invalid("many-devices", files.devices.len() > limits::MOUNTS_MAX);
    broken.invalid("many-credentials", files.credentials.len() > limits::MOUNTS_MAX);
    broken.invalid("many-syscalls", rules.syscalls.len() > limits::RULES_MAX);
    broken.invalid("many-sysctls", rules.sysctls.len() > limits::RULES_MAX);
    broken.invalid("many-limits", rules.limits.len() > limits::RULES_MAX);
    broken.invalid("many-labels", spec.labels.len() > 32);
    let fields = spec.labels.iter().map(|l| format!("{}={}", l.name, l.value).len());
    broken.invalid("long-labels", fields.sum::<usize>() > 4096);
    broken.invalid("many-ports", places::ports(spec).len() > limits::PORTS_MAX);
    for overlay in &files.overlays {
        let layers = overlay.lower.len();
        broken.invalid("layers", layers == 0 || layers > limits::LAYERS_MAX);
    }
    broken.invalid("many-components", components(spec) > limits::PATHS_MAX);
    for file in [&spec.names.resolver, &spec.names.localtime] {
        if let EtcFile::Put { content, .. } = file {
            broken.invalid("etc-long", content.len() > limits::ETC_FILE_MAX);
        }
    }
    broken.invalid("hosts-long", spec.names.hosts.len() > limits::ETC_FILE_MAX);
}

/// How long all paths of files are together, by the text of each.
fn components(spec: &TaskSpec) -> usize {
    let files = &spec.files;
    let mut all: Vec<String> = wire::targets(spec).into_iter().map(wire::place).collect();
    let mut sources: Vec<&Source> = files.binds.iter().map(|bind| &bind.source).collect();
    all.extend(files.devices.iter().map(|device| device.host.to_string()));
    for overlay in &files.overlays {
        sources.extend(&overlay.lower);
        if let Upper::Directory(directory) = &overlay.upper {
            sources.push(directory);
        }
    }
    let mut below: Vec<&Relative> = Vec::new();
    for source in sources {
        match source {
            Source::Host(path) => all.push(path.to_string()),
            Source::Task(path) => below.push(path),
        }
    }
    below.extend(files.credentials.iter().filter_map(|credential| match &credential.content {
        CredentialContent::File(path) => Some(path),
        CredentialContent::Value(_) => None,
    }));
    let names = |text: &String| text.split('/').filter(|name| !name.is_empty()).count();
    let absolute: usize = all.iter().map(names).sum();
    absolute + below.iter().map(|path| path.components().len()).sum::<usize>()
}

fn check_texts(spec: &TaskSpec, broken: &mut Broken) {
    let words = match &spec.payload {
        Payload::Boot { arguments: words }
        | Payload::Command { words }
        | Payload::ProcessTwo { words } => words,
    };
    broken.invalid("many-words", words.len() > limits::ARGUMENTS_MAX);
    broken.invalid("many-variables", spec.environment.len() > limits::VARIABLES_MAX);
    for word in words {
        broken.invalid("word-long", word.reveal().len() > limits::ARGUMENT_MAX);
        broken.invalid("word-nul", word.reveal().contains('\0'));
    }
    for variable in &spec.environment {
        let length = variable.name.as_str().len() + variable.value.reveal().len() + 1;
        broken.invalid("variable-long", length > limits::VARIABLE_MAX);
        broken.invalid("variable-nul", variable.value.reveal().contains('\0'));
    }
    // A set, because there may be thousands.
    let names: std::collections::BTreeSet<_> =
        spec.environment.iter().map(|variable| variable.name.as_str()).collect();
    broken.invalid("variable-twice", names.len() < spec.environment.len());
    for credential in &spec.files.credentials {
        if let CredentialContent::Value(value) = &credential.content {
            broken.invalid("credential-long", value.reveal().len() > limits::CREDENTIAL_MAX);
        }
    }
}

fn check_numbers(spec: &TaskSpec, broken: &mut Broken) {
    for limit in &spec.isolation.limits {
        // The kernel's infinity is the largest number (getrlimit(2)).
        let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        broken.invalid("limit-order", number(limit.soft) > number(limit.hard));
    }
    let is_loopback = spec.network == Network::Loopback;
    if let Ready::Network { timeout_s } = spec.process.ready {
        broken.invalid("ready-network", is_loopback);
        broken.invalid("ready-timeout", timeout_s == 0 || timeout_s > 3600);
    }
    if let Ready::Notify { timeout_s } = spec.process.ready {
        let good = (1..=limits::READY_TIMEOUT_MAX_S).contains(&timeout_s);
        broken.invalid("ready-timeout", !good);
    }
    for tmpfs in &spec.files.tmpfs {
        broken.invalid("tmpfs-mode", tmpfs.mode.is_some_and(|mode| mode > 0o7777));
    }
    let signal = spec.stop_signal.is_some_and(|n| n == 0 || n == 32 || n == 33 || n > 64);
    broken.invalid("signal", signal);
    check_resources(spec, broken);
}

/// Limits of the unit.
fn check_resources(spec: &TaskSpec, broken: &mut Broken) {
    let wanted = &spec.resources;
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    broken.invalid("memory-max", wanted.memory_max.is_some_and(|n| !memory.contains(&n)));
    broken.invalid("memory-low", wanted.memory_low.is_some_and(|n| !memory.contains(&n)));
    broken
        .invalid("cpu-weight", wanted.cpu_weight.is_some_and(|n| !limits::CPU_WEIGHT.contains(&n)));
    broken
        .invalid("tasks-max", wanted.tasks_max.is_some_and(|n| !limits::TASKS_LIMIT.contains(&n)));
    const MOST: u64 = 64 << 40;
    broken.invalid("swap", matches!(wanted.swap, Swap::Bytes(n) if n > MOST));
    broken.invalid("cpu-boost", wanted.cpu_boost.is_some_and(|n| !(2..=100).contains(&n)));
    let quota = wanted.cpu_quota_us;
    broken.invalid("cpu-quota", quota.is_some_and(|n| !(10_000..=8_192_000_000).contains(&n)));
    broken.invalid("cores", wanted.cores.as_ref().is_some_and(|set| set.mask().is_empty()));
    broken.invalid("io-weight", wanted.io_weight.is_some_and(|n| n == 0 || n > 10_000));
    broken.invalid("oom-score", wanted.oom_score.unsigned_abs() > 1000);
    broken.invalid("many-properties", wanted.properties.len() > 64);
    let places = wanted.properties.iter().map(|property| match property {
        Property::MemoryHigh(_) => ("MemoryHigh".to_owned(), String::new()),
        Property::Io { limit, device, .. } => (format!("{limit:?}"), device.to_string()),
    });
    broken.invalid("property-twice", doubled(places));
    for property in &wanted.properties {
        let number = match property {
            Property::MemoryHigh(number) => *number,
            Property::Io { device, most, .. } => {
                let device = device.to_string();
                broken.invalid("property-device", !is_plain(&device));
                broken.invalid("property-device", !device.starts_with("/dev/"));
                *most
            }
        };
        broken.invalid("property-number", number == 0 || number > MOST);
    }
    let egress = wanted.egress.as_deref().unwrap_or_default();
    broken.invalid("many-ranges", egress.len() > 128);
    for range in egress {
        broken.invalid("range-of-addresses", grants::bits(range).is_none());
    }
}

fn check_range(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let Users::Fixed { base, width } = spec.users else { return };
    broken.invalid("range-width", width == 0 || width > limits::RANGE_WIDTH);
    let end = u64::from(base) + u64::from(width);
    broken.invalid("range-end", end > u64::from(u32::MAX));
    if policy.userns_require && base >= 65_536 {
        let inside = (limits::RANGE_FIRST..=limits::RANGE_LAST).contains(&base);
        broken.invalid("range-place", !inside || !base.is_multiple_of(65_536));
    }
}

fn check_contradictions(spec: &TaskSpec, broken: &mut Broken) {
    let isolates = matches!(spec.users, Users::Pick | Users::Fixed { .. });
    let boots = matches!(spec.payload, Payload::Boot { .. });
    let notifies = matches!(spec.process.ready, Ready::Notify { .. });
    let stub = matches!(spec.payload, Payload::ProcessTwo { .. });
    broken.invalid("notify-stub", notifies && stub);
    broken.invalid("user-boot", spec.process.user.is_some() && boots);
    match spec.root.ownership {
        Ownership::Chown => {
            broken.invalid("chown-mode", spec.root.mode != Root::Plain);
            broken.invalid("chown-users", !isolates);
            broken.invalid("chown-kind", spec.root.kind != ImageKind::Tree);
        }
        Ownership::Off => broken.invalid("off-users", !isolates),
        Ownership::Map => {}
    }
    if let Logs::Container { priority } = spec.logs {
        broken.invalid("journal-boot", !boots);
        broken.invalid("priority", priority > 7);
    }
}

/// A port is at one address of the host, which nothing else of the task has.
fn check_ports(spec: &TaskSpec, broken: &mut Broken) {
    if let Network::Private(Private { mac: Some(mac), .. }) = &spec.network {
        let [first, ..] = mac.0;
        broken.invalid("mac-of-one", mac.0 == [0; 6] || first % 2 == 1);
    }
    let all = places::ports(spec);
    for port in all {
        let text = port.address.to_string();
        let first = text.split('.').next().and_then(|first| first.parse::<u8>().ok());
        let several = first.is_some_and(|first| (224..=239).contains(&first))
            || text == "255.255.255.255"
            || text.split(':').next().is_some_and(|it| it.len() == 4 && it.starts_with("ff"));
        let any = text == "0.0.0.0" || text == "::";
        broken.invalid("port-address", any || several || text.starts_with("::ffff:"));
    }
    broken.invalid("port-twice", doubled(all.iter().map(|port| (port.address, port.host))));
    match &spec.network {
        Network::Attached(wanted) => check_attached(wanted, broken),
        Network::Container(wanted) => {
            broken.invalid("address-wait", wanted.wait_s > 600);
            let is_macvlan = matches!(wanted.link, ContainerLink::Macvlan(_));
            broken.invalid("port-macvlan", is_macvlan && !all.is_empty());
        }
        _ => {}
    }
}

/// An interface's own addresses, by their texts; a port needs one of its family.
fn check_attached(wanted: &Attached, broken: &mut Broken) {
    let v4 = wanted.v4.map(|it| (it.address.to_string(), it.bits));
    let v6 = wanted.v6.map(|it| (it.address.to_string(), it.bits));
    if let Some((text, bits)) = &v4 {
        let parts: Vec<u8> = text.split('.').filter_map(|part| part.parse().ok()).collect();
        let (first, second) = (parts.first(), parts.get(1));
        let odd = text == "0.0.0.0"
            || text == "255.255.255.255"
            || first.is_some_and(|it| *it == 127 || (224..=239).contains(it))
            || (first, second) == (Some(&169), Some(&254));
        broken.invalid("attached-address", odd);
        broken.invalid("attached-bits", bits.is_some_and(|bits| bits == 0 || bits > 32));
    }
    if let Some((text, bits)) = &v6 {
        let first = text.split(':').next().unwrap_or_default();
        let long = first.len() == 4;
        let local = long && ["fe8", "fe9", "fea", "feb"].iter().any(|it| first.starts_with(it));
        let odd = text == "::" || text == "::1" || text.starts_with("::ffff:");
        broken.invalid("attached-address", odd || local || (long && first.starts_with("ff")));
        broken.invalid("attached-bits", bits.is_some_and(|bits| bits == 0 || bits > 128));
    }
    if let Some(mac) = wanted.mac {
        let [first, ..] = mac.0;
        broken.invalid("mac", first % 2 == 1 || mac.0.iter().all(|byte| *byte == 0));
    }
    for port in &wanted.ports {
        let is_macvlan = matches!(wanted.parent, Parent::Macvlan(_));
        broken.invalid("port-macvlan", is_macvlan);
        let is_v6 = port.address.to_string().contains(':');
        let has_one = if is_v6 { v6.is_some() } else { v4.is_some() };
        broken.invalid("port-nowhere", !is_macvlan && !has_one);
    }
}

/// Devices of the host become words of the unit.
fn check_devices(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    for device in &spec.files.devices {
        let access = device.access;
        broken.invalid("device-nothing", !access.read && !access.write && !access.mknod);
        broken.invalid("device-name", !is_plain(&device.host.to_string()));
    }
    let image = image(spec, policy);
    let device = spec.root.kind == ImageKind::Disk && image.starts_with("/dev/");
    broken.invalid("device-name", device && !is_plain(&image));
}

fn check_doubled(spec: &TaskSpec, broken: &mut Broken) {
    let (files, rules) = (&spec.files, &spec.isolation);
    broken.invalid("label-twice", doubled(spec.labels.iter().map(|l| l.name.as_str())));
    broken.invalid("credential-twice", doubled(files.credentials.iter().map(|c| c.name.as_str())));
    broken.invalid("sysctl-twice", doubled(rules.sysctls.iter().map(|s| s.name.as_str())));
    broken.invalid("limit-twice", doubled(rules.limits.iter().map(|l| l.resource)));
}

fn check_targets(spec: &TaskSpec, broken: &mut Broken) {
    let targets: Vec<_> = wire::targets(spec).into_iter().map(wire::place).collect();
    broken.invalid("target-twice", doubled(targets.iter()));
    for target in &targets {
        check_target(target, broken);
    }
}

/// Whether a mount may be there.
pub(super) fn is_free(target: &str) -> bool {
    let mut broken = Broken::default();
    check_target(target, &mut broken);
    broken.invalid.is_empty()
}

/// Where no mount may be.
fn check_target(target: &str, broken: &mut Broken) {
    let kernels = ["/proc", "/sys", "/run/host"].iter().any(|directory| within(target, directory));
    broken.invalid("target-kernel", kernels);
    broken.invalid("target-root", target == "/");
    let own = ["/dev", "/run", "/alloc", "/local", "/secrets"];
    broken.invalid("target-own", own.contains(&target));
}

/// All rules of this kind.
pub(super) fn check(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    check_counts(spec, broken);
    check_texts(spec, broken);
    check_numbers(spec, broken);
    check_range(spec, policy, broken);
    check_contradictions(spec, broken);
    check_ports(spec, broken);
    check_devices(spec, policy, broken);
    check_doubled(spec, broken);
    check_targets(spec, broken);
}
