//! Random policy files and specifications: most are close to what is allowed, some are far off.

use super::file::{File, ImagePath, PROPERTIES, Preset, Settings};
use super::random::Random;
use super::texts::{self, OWN, path, relative};
use super::{twists, wire, zones};
use proto::capability::Capabilities;
use proto::name::{AllocId, ImageName, Instance, TaskKey, TaskName, VariableName};
use proto::secret::Secret;
use proto::task_spec::files::{Bind, Mapping, Source, Tmpfs};
use proto::task_spec::network::Port;
use proto::task_spec::{
    Image, ImageKind, Layer, Network, Ownership, Payload, Root, RootFs, TaskSpec, Users, Variable,
    Volatile,
};
use std::num::NonZeroU16;

fn owned(of: Vec<&str>) -> Vec<String> {
    of.into_iter().map(str::to_owned).collect()
}

fn given<T>(random: &mut Random, percent: u64, make: impl FnOnce(&mut Random) -> T) -> Option<T> {
    random.chance(percent).then(|| make(random))
}

fn image_paths(random: &mut Random) -> Vec<ImagePath> {
    let mut all: Vec<ImagePath> = Vec::new();
    for path in random.some(&texts::IMAGES, 3) {
        let table = random.chance(60);
        let writable = table && random.chance(60);
        if all.iter().all(|entry| entry.path != path) {
            all.push(ImagePath { path: path.to_owned(), writable, table });
        }
    }
    // One inside of the last, or inside of an image there; mostly with the other right.
    if let (Some(last), true) = (all.last(), random.chance(60)) {
        let path = format!("{}/{}", last.path, random.pick(&["web", "web/gold"]));
        let writable = last.writable != random.chance(70);
        all.push(ImagePath { path: path.replace("//", "/"), writable, table: true });
    }
    all
}

/// A policy file.
pub fn policy(random: &mut Random) -> File {
    let directories = |random: &mut Random| owned(random.some(&texts::DIRECTORIES, 3));
    let alloc_dirs: [&[&str]; 3] = [
        &["/var/lib/nomad/alloc"],
        &["/data/alloc", "/opt/nomad/data/alloc"],
        &["/srv/nomad/alloc", "/var/lib/nomad/alloc"],
    ];
    let netns: [&[&str]; 3] = [&["/run/netns", "/run/docker/netns"], &["/srv/netns"], &[]];
    let kinds = ["private", "group", "host", "veth", "zone", "none", "bridge:br0", "bridge:b*"];
    let kinds = [&kinds[..], &["macvlan:eth0", "macvlan:*", "container", "container"]].concat();
    let memory: [(u64, Option<&str>); 5] = [
        (2 << 30, Some("2g")),
        (512 << 20, Some("512m")),
        (65_536 << 10, Some("65536k")),
        (256 << 20, None),
        (64 << 20, Some("67108864")),
    ];
    File {
        preset: given(random, 60, |r| r.pick(&[Preset::Strict, Preset::Compat])),
        images_store: given(random, 20, |r| {
            r.pick(&["/var/lib/machines", "/srv/images", "/home/user/store"]).to_owned()
        }),
        images_paths: given(random, 40, image_paths),
        alloc_dirs: given(random, 20, |r| owned(r.pick(&alloc_dirs).to_vec())),
        userns_require: given(random, 30, |r| r.chance(40)),
        userns_except: given(random, 30, |r| owned(r.some(&texts::IMAGE_PATHS, 3))),
        binds_read_only: given(random, 60, directories),
        binds_read_write: given(random, 50, directories),
        binds_deny: given(random, 30, directories),
        binds_unmapped: given(random, 30, |r| r.chance(50)),
        devices_allow: given(random, 50, |r| owned(r.some(&texts::DEVICE_RULES, 4))),
        caps_allow: given(random, 40, |r| owned(r.some(&texts::CAPS, 4))),
        network_allow: given(random, 30, |r| {
            let mut all = owned(r.some(&kinds, 5));
            all.extend(r.chance(80).then(|| "private".to_owned()));
            all
        }),
        netns_paths: given(random, 20, |r| owned(r.pick(&netns).to_vec())),
        network_zones: given(random, 40, |r| owned(r.some(&zones::PATTERNS, 3))),
        network_ports: given(random, 40, |r| r.some(&texts::PORTS, 3)),
        container_admin: given(random, 30, |r| r.chance(50)),
        limits_memory: given(random, 30, |r| {
            let (bytes, text) = r.pick(&memory);
            (bytes, text.map(str::to_owned))
        }),
        limits_tasks: given(random, 35, |r| r.pick(&[1, 100, 16_384, 20_000])),
        limits_ulimit: given(random, 40, |r| {
            let names = ["core", "nofile", "nice", "rtprio"].into_iter();
            let listed: Vec<_> = names.filter(|_| r.chance(40)).collect();
            let most = |name: &str| (name.to_owned(), r.pick(&[0, 1, 1024, 1 << 40]));
            listed.into_iter().map(most).collect()
        }),
        limits_swap: given(random, 40, |r| r.pick(&[0, 1 << 20, 64 << 20, u64::MAX])),
        limits_oom_score: given(random, 40, |r| r.pick(&[-1000, -100, -1, 0, 500])),
        properties_allow: given(random, 30, |r| owned(r.some(&PROPERTIES, 4))),
        systemd_slices: given(random, 50, |r| owned(r.some(&texts::SLICE_RULES, 2))),
        network_egress: given(random, 20, |r| {
            let listed = r.some(&texts::RANGES, 3);
            listed.into_iter().map(|(address, bits)| (address.to_owned(), bits)).collect()
        }),
        exec_allow: given(random, 40, |r| r.chance(50)),
        exec_max_sessions: given(random, 30, |r| r.pick(&[1, 64, 65, 1024])),
        syscalls_allow_extra: given(random, 40, |r| {
            let mut all = owned(r.some(&texts::SYSCALLS, 3));
            all.extend(r.chance(10).then(|| "*".to_owned()));
            all
        }),
        sysctl_allow: given(random, 40, |r| owned(r.some(&texts::SYSCTL_RULES, 3))),
        lsm_profiles: given(random, 40, |r| {
            let mut all = owned(r.some(&texts::CONTEXTS, 2));
            all.extend(r.chance(10).then(|| "*".to_owned()));
            all
        }),
    }
}

fn image(random: &mut Random, policy: &Settings) -> (Image, bool) {
    let writable = |directory: &str| {
        policy.images_paths.iter().any(|entry| entry.path == directory && entry.writable)
    };
    let entry = random.pick(&policy.images_paths);
    if entry.path.is_empty() || random.chance(50) {
        #[allow(clippy::expect_used, reason = "constants")]
        let name = ImageName::new(random.pick(&["busybox", "web.raw"])).expect("a name");
        return (Image::Named(name), writable(&policy.images_store));
    }
    let name = random.pick(&["web", "web/a", "busybox"]);
    (Image::Path(path(&format!("{}/{name}", entry.path))), entry.writable)
}

/// A way to use an image; `plain` may come out only where wanted.
pub(super) fn mode(random: &mut Random, plain: bool) -> Root {
    match random.below(if plain { 8 } else { 7 }) {
        0 => Root::ReadOnly,
        1 => Root::Ephemeral(Layer::Disk),
        2 => Root::Ephemeral(Layer::Memory),
        3 => Root::Ephemeral(Layer::Kept),
        4 => Root::Volatile(Volatile::Yes),
        5 => Root::Volatile(Volatile::State),
        6 => Root::Volatile(Volatile::Overlay),
        _ => Root::Plain,
    }
}

/// Command words or arguments of init.
pub(super) fn payload(random: &mut Random) -> Payload {
    let words = vec![Secret::new("run"); random.below(3)];
    match random.below(3) {
        0 => Payload::Boot { arguments: words },
        1 => Payload::Command { words },
        _ => Payload::ProcessTwo { words },
    }
}

fn extras(random: &mut Random, spec: &mut TaskSpec) {
    if random.chance(30) {
        spec.files.binds.push(Bind {
            source: Source::Task(relative(&["local", "x"])),
            target: wire::target(&path("/mnt/own")),
            read_only: random.chance(50),
            recursive: random.chance(50),
            mapping: random.pick(&[Mapping::Automatic, Mapping::None, Mapping::Identity]),
            propagated: random.chance(50),
        });
    }
    if random.chance(20) {
        spec.files.tmpfs.push(Tmpfs {
            target: wire::target(&path("/mnt/memory")),
            size: given(random, 50, |r| r.next()),
            inodes: None,
            mode: given(random, 50, |r| r.pick(&[0, 0o755, 0o7777])),
            read_only: random.chance(50),
            executable: random.chance(50),
        });
    }
    if random.chance(20) {
        #[allow(clippy::expect_used, reason = "a constant")]
        let name = VariableName::new("NAME").expect("a name");
        spec.environment.push(Variable { name, value: Secret::new("value") });
    }
    spec.isolation.no_new_privileges = random.chance(50);
    spec.kill_timeout_ms = random.next();
}

/// A port of the host that leads to the task.
#[allow(clippy::expect_used, reason = "constants")]
pub(super) fn port(address: &str, host: u16) -> Port {
    Port {
        address: address.parse().expect("an address"),
        host: NonZeroU16::new(host).unwrap_or(NonZeroU16::MAX),
        task: NonZeroU16::MIN,
    }
}

/// A specification for this policy, and which twists made it.
#[allow(clippy::expect_used, reason = "constants")]
pub fn spec(random: &mut Random, policy: &Settings) -> (TaskSpec, Vec<&'static str>) {
    let (image, writable) = image(random, policy);
    let own = |dir: String| if dir.is_empty() { "/none".to_owned() } else { dir };
    let alloc_dir = path(&format!("{}/{OWN}", own(random.pick(&policy.alloc_dirs))));
    let task = TaskName::new("web").expect("a name");
    let key = TaskKey { alloc: AllocId([7; 16]), task, instance: Instance(1) };
    let mut spec = TaskSpec::new(key, alloc_dir, image);
    spec.root = RootFs::tree(mode(random, writable));
    spec.payload = payload(random);
    spec.network = if policy.network_allow.iter().any(|kind| kind == "veth") && random.chance(50) {
        let listed = policy.network_ports.iter();
        Network::with_ports(listed.map(|(low, _)| port("192.0.2.1", *low)).take(1).collect())
    } else if policy.network_allow.iter().any(|kind| kind == "private") {
        Network::Loopback
    } else {
        Network::Host
    };
    if random.chance(30) {
        let base = 524_288 + 65_536 * random.pick(&[0_u32, 1, 20_000]);
        spec.users = Users::Fixed { base, width: random.pick(&[1, 65_536]) };
    }
    if spec.root.mode == Root::Plain {
        spec.root.ownership = [Ownership::Map, Ownership::Chown, Ownership::Off]
            .get(random.below(3))
            .copied()
            .unwrap_or(Ownership::Map);
    } else if random.chance(20) {
        spec.root.kind = ImageKind::Disk;
    } else if random.chance(20) && matches!(spec.image, Image::Named(_)) {
        spec.root.kind = ImageKind::Layers;
    }
    spec.resources.memory_max = policy.limits_memory;
    spec.resources.egress = policy.network_egress.is_some().then(Vec::new);
    // Such a policy refuses most networks to whoever keeps these.
    if policy.network_egress.is_some() && random.chance(70) {
        let of_networks = ["net_raw", "net_admin"].into_iter().filter_map(Capabilities::named);
        spec.isolation.drop = of_networks.fold(Capabilities::default(), Capabilities::with);
    }
    spec.resources.tasks_max = policy.limits_tasks.filter(|_| random.chance(50));
    extras(random, &mut spec);
    let twists = match random.below(100) {
        0..25 => 0,
        25..85 => 1,
        85..95 => 2,
        _ => 4,
    };
    let names = (0..twists).map(|_| twists::apply(random, policy, &mut spec)).collect();
    (spec, names)
}
