//! Single changes of a specification, each around the edges of one group of rules.

use super::attached::{attached, container};
use super::file::Settings;
use super::generate::{mode, payload, port};
use super::mounts::{bind, count, credential, device, hidden, overlay, pivot, tmpfs};
use super::random::Random;
use super::texts::{self, OTHER, OWN, path};
use super::{units, zones};
use proto::capability::{Capabilities, NAMES};
use proto::limits;
use proto::name::{ImageName, VariableName};
use proto::secret::Secret;
use proto::task_spec::network::Port;
use proto::task_spec::output::{LabelName, LabelValue};
use proto::task_spec::process::{
    HostName, LimitName, ProcessLimit, Ready, SelinuxContext, SyscallName, SyscallRule, Sysctl,
    SysctlName, SysctlValue, User,
};
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{
    Image, ImageKind, Label, Logs, Network, Ownership, Payload, Root, TaskSpec, Users, Variable,
};
use std::num::NonZeroU16;

type Twist = fn(&mut Random, &Settings, &mut TaskSpec);

/// Those with many cases stand several times.
const ALL: [(&str, Twist); 56] = [
    ("image", image),
    ("image", image),
    ("image", image),
    ("image", image),
    ("root", root),
    ("root", root),
    ("pivot", pivot),
    ("pivot", pivot),
    ("users", users),
    ("users", users),
    ("start", start),
    ("start", start),
    ("network", network),
    ("network", network),
    ("ports", ports),
    ("zone", zones::twist),
    ("zone", zones::twist),
    ("ports", ports),
    ("alloc-dir", alloc_dir),
    ("bind", bind),
    ("bind", bind),
    ("bind", bind),
    ("bind", bind),
    ("overlay", overlay),
    ("overlay", overlay),
    ("tmpfs", tmpfs),
    ("device", device),
    ("device", device),
    ("hidden", hidden),
    ("hidden", hidden),
    ("credential", credential),
    ("credential", credential),
    ("caps", caps),
    ("syscall", syscall),
    ("sysctl", sysctl),
    ("sysctl", sysctl),
    ("limit", limit),
    ("selinux", selinux),
    ("label", label),
    ("logs", logs),
    ("resources", units::resources),
    ("resources", units::resources),
    ("resources", units::resources),
    ("unit-limits", units::numbers),
    ("unit-limits", units::numbers),
    ("unit-properties", units::properties),
    ("unit-properties", units::properties),
    ("egress", units::egress),
    ("egress", units::egress),
    ("signal", signal),
    ("texts", long_texts),
    ("texts", long_texts),
    ("count", count),
    ("count", count),
    ("count", count),
    ("names", names),
];

/// Applies one of them and tells its name.
pub(super) fn apply(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) -> &'static str {
    let Some((name, twist)) = ALL.get(random.below(ALL.len())) else { return "none" };
    twist(random, policy, spec);
    name
}

macro_rules! constant {
    ($kind:ident, $text:expr) => {{
        #[allow(clippy::expect_used, reason = "constants")]
        $kind::new($text).expect("a text of this file")
    }};
}

pub(super) use constant;

fn image(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let below = random.pick(&["", "web", "web/disk"]);
    spec.image = match random.below(12) {
        0..4 => Image::Path(path(random.pick(&texts::IMAGE_PATHS))),
        4 => Image::Path(path(random.pick(&texts::PATHS))),
        5 | 6 => {
            let entry = random.pick(&policy.images_paths).path;
            Image::Path(path(&format!("/{entry}/{below}")))
        }
        7..9 => Image::Path(path(&format!("/{}/{below}", random.pick(&policy.binds_deny)))),
        _ => Image::Named(constant!(ImageName, random.pick(&["busybox", "group", "web"]))),
    };
    if random.chance(20) {
        spec.root.kind = ImageKind::Disk;
    }
    if random.chance(15) {
        spec.image = Image::Path(path("/"));
        spec.root.mode = Root::Plain;
        return;
    }
    spec.root.mode = if random.chance(25) { Root::Plain } else { mode(random, true) };
}

fn root(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    spec.root.mode = if random.chance(40) { Root::Plain } else { mode(random, true) };
    spec.root.kind = match random.below(10) {
        0..3 => ImageKind::Disk,
        3..5 => ImageKind::Layers,
        _ => ImageKind::Tree,
    };
    spec.root.ownership = match random.below(3) {
        0 => Ownership::Map,
        1 => Ownership::Chown,
        _ => Ownership::Off,
    };
    if random.chance(20) {
        pivot(random, policy, spec);
    }
}

fn users(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    const LAST: u32 = limits::RANGE_LAST;
    let bases = [
        0,
        1,
        65_535,
        65_536,
        65_537,
        458_752,
        524_287,
        524_288,
        524_289,
        LAST,
        LAST + 1,
        LAST + 65_536,
        u32::MAX - 65_536,
        u32::MAX - 65_535,
        u32::MAX,
    ];
    let widths = [0, 1, 65_535, 65_536, 65_536, 65_536, 65_537, u32::MAX];
    spec.users = match random.below(8) {
        0 => Users::Host,
        1 => Users::Identity,
        2 => Users::Fixed { base: 0, width: 65_536 },
        _ => Users::Fixed { base: random.pick(&bases), width: random.pick(&widths) },
    };
    if !policy.userns_except.is_empty() && random.chance(60) {
        let below = random.pick(&["", "", "/x"]);
        spec.image = Image::Path(path(&format!("{}{below}", random.pick(&policy.userns_except))));
    }
    match random.below(8) {
        0 | 1 => spec.root.ownership = Ownership::Off,
        2 | 3 => spec.root.ownership = Ownership::Chown,
        _ => {}
    }
}

fn start(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    spec.payload = payload(random);
    if random.chance(60) {
        let max = limits::READY_TIMEOUT_MAX_S;
        let timeout_s = random.pick(&[0, 1, 30, max, max + 1, u32::MAX]);
        spec.process.ready = if random.chance(50) {
            Ready::Notify { timeout_s }
        } else {
            Ready::Network { timeout_s }
        };
    }
    if random.chance(60) {
        spec.process.user = User::parse("web").ok();
    }
    // Walked inside, by the payload's own rights: any path.
    let directory = path(random.pick(&texts::TARGETS));
    spec.process.directory = random.chance(30).then_some(directory);
    spec.process.hostname = random.chance(50).then(|| constant!(HostName, "web.example"));
}

fn network(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let places = [
        "/run/netns/OWN",
        "/var/run/netns/OWN",
        "/run/netns/OTHER",
        "/run/netns",
        "/run/netns/OWN/x",
        "/run/netns/x/OWN",
        "/run/docker/netns/abc",
        "/run/docker/netns/a/b",
        "/srv/netns/abc",
        "/proc/1/ns/net",
        "/run/netns2/OWN",
    ];
    spec.network = match random.below(10) {
        0 => Network::Loopback,
        1 => Network::Host,
        2 | 3 => attached(random, policy),
        4 | 5 => container(random, policy),
        _ => Network::Join(path(random.pick(&places))),
    };
}

fn ports(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let good = ["192.0.2.1", "127.0.0.1", "::1", "2001:db8::1", "ff::1", "254.255.255.255"];
    let bad = ["0.0.0.0", "::", "224.0.0.1", "239.255.255.255", "ff02::1", "ffff::1"]
        .into_iter()
        .chain(["255.255.255.255", "::ffff:192.0.2.1", "::ffff:255.255.255.255"])
        .collect::<Vec<_>>();
    let (low, high) = random.pick(&policy.network_ports);
    let edges = [low, high, low.max(2) - 1, high.max(1), high.saturating_add(1)];
    let numbers = [&edges[..], &[1, 22, 80, 1023, 1024, 8080, 65_535]].concat();
    let mut all: Vec<_> = (0..=random.below(3))
        .map(|_| {
            let address = if random.chance(15) { random.pick(&bad) } else { random.pick(&good) };
            port(address, random.pick(&numbers))
        })
        .collect();
    match (all.first().copied(), random.below(6)) {
        // The same place of the host, mostly with another port inside.
        (Some(first), 0) => {
            let task = NonZeroU16::new(random.pick(&[1, 2])).unwrap_or(first.task);
            all.push(Port { task, ..first });
        }
        (_, 1) => {
            let count = limits::PORTS_MAX + random.below(2);
            let first = u16::try_from(count).map_or(1, |count| u16::MAX - count);
            all = (first..).take(count).map(|host| port("192.0.2.1", host)).collect();
        }
        _ => {}
    }
    spec.network = Network::with_ports(all);
}

fn alloc_dir(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let dir = random.pick(&policy.alloc_dirs);
    let all = [
        format!("{dir}/{OWN}"),
        format!("{dir}/{OTHER}"),
        format!("{dir}/x/{OWN}"),
        format!("{dir}/{OWN}/x"),
        format!("{dir}2/{OWN}"),
        format!("{dir}/"),
        format!("/tmp/{OWN}"),
        "/".to_owned(),
    ];
    spec.alloc_dir = path(&random.pick(&all));
}

fn caps(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..=random.below(2) {
        let one = Capabilities::named(random.pick(&NAMES)).unwrap_or_default();
        spec.isolation.add = spec.isolation.add.with(one);
    }
    if random.chance(10) {
        spec.isolation.add = Capabilities::ALL;
    }
    spec.isolation.drop = Capabilities::named(random.pick(&NAMES)).unwrap_or_default();
}

fn syscall(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..=random.below(2) {
        let name = constant!(SyscallName, random.pick(&texts::SYSCALLS));
        spec.isolation.syscalls.push(SyscallRule { allow: random.chance(70), name });
    }
}

fn sysctl(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..random.pick(&[1, 1, 2]) {
        let name = constant!(SysctlName, random.pick(&texts::SYSCTLS));
        spec.isolation.sysctls.push(Sysctl { name, value: constant!(SysctlValue, "1") });
    }
    if let (Some(first), true) = (spec.isolation.sysctls.first().cloned(), random.chance(10)) {
        spec.isolation.sysctls.push(first);
    }
    if random.chance(30) {
        network(random, policy, spec);
    }
}

fn limit(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..random.pick(&[1, 1, 2]) {
        let number = |random: &mut Random| {
            let some = random.pick(&[0, 1, 1024, u64::MAX]);
            random.chance(75).then_some(some)
        };
        let resource = [
            LimitName::Core,
            LimitName::OpenFiles,
            LimitName::Stack,
            LimitName::Nice,
            LimitName::RealtimePriority,
        ]
        .get(random.below(5))
        .copied()
        .unwrap_or(LimitName::Core);
        let (soft, hard) = (number(random), number(random));
        spec.isolation.limits.push(ProcessLimit { resource, soft, hard });
    }
}

fn selinux(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    spec.isolation.selinux = Some(constant!(SelinuxContext, random.pick(&texts::CONTEXTS)));
}

fn label(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    for _ in 0..random.pick(&[1, 2, 3]) {
        let name = constant!(LabelName, random.pick(&["A", "B", "C", "A_B"]));
        spec.labels.push(Label { name, value: constant!(LabelValue, "x") });
    }
}

fn logs(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    spec.logs = match random.below(6) {
        0 => Logs::Discard,
        1 => Logs::Journal,
        2 => Logs::Both,
        _ => Logs::Container { priority: random.pick(&[0, 7, 7, 8, 255]) },
    };
    if random.chance(60) {
        spec.payload = Payload::Boot { arguments: Vec::new() };
    }
}

fn signal(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    spec.stop_signal = Some(random.pick(&[0, 1, 15, 31, 32, 33, 34, 37, 64, 65, 255]));
}

fn variable(name: &str, value: String) -> Variable {
    Variable { name: constant!(VariableName, name), value: Secret::new(value) }
}

fn words(spec: &mut TaskSpec) -> &mut Vec<Secret> {
    match &mut spec.payload {
        Payload::Boot { arguments: words }
        | Payload::Command { words }
        | Payload::ProcessTwo { words } => words,
    }
}

fn long_texts(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    let over = random.below(2);
    match random.below(7) {
        0 => words(spec).push(Secret::new("x".repeat(limits::ARGUMENT_MAX + over))),
        1 => words(spec).push(Secret::new("a\0b")),
        2 => *words(spec) = vec![Secret::new(""); limits::ARGUMENTS_MAX + over],
        3 => spec.environment.push(variable("A", "x".repeat(limits::VARIABLE_MAX - 2 + over))),
        4 => spec.environment.push(variable("A", "\0".to_owned())),
        5 => {
            let name = random.pick(&["A", "B"]);
            spec.environment.push(variable("A", String::new()));
            spec.environment.push(variable(name, String::new()));
        }
        _ => {
            let count = limits::VARIABLES_MAX + over;
            spec.environment =
                (0..count).map(|n| variable(&format!("V{n}"), String::new())).collect();
        }
    }
}

fn names(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    let content = vec![b'x'; limits::ETC_FILE_MAX + random.below(2)];
    let link = ImageLink::Cover;
    let file = |content| EtcFile::Put { content, link, read_only: false };
    match random.below(3) {
        0 => spec.names.resolver = file(content),
        1 => spec.names.localtime = file(content),
        _ => spec.names.hosts = content,
    }
}
