//! What a specification can be reduced to: each single wish taken out, then whole parts.
//!
//! Knows no rule of the policy: [`super::denials`] finds out which of these break none any more.

use proto::capability::Capabilities;
use proto::name::ImageName;
use proto::path::{Component, Relative};
use proto::target::Target;
use proto::task_spec::files::{Source, Upper};
use proto::task_spec::network::Private;
use proto::task_spec::process::Ready;
use proto::task_spec::resources::Swap;
use proto::task_spec::{
    Files, Image, Layer, Logs, Network, Ownership, Payload, Resources, Root, RootFs, TaskSpec,
    Users,
};

/// A specification that asks for less than another.
pub(super) struct Less {
    /// What is left.
    pub(super) spec: TaskSpec,
    /// Whether more was taken out than one thing.
    pub(super) coarse: bool,
}

/// What may break two rules at once comes first with one of them mended: a mount at a place of its
/// own, before the mount is dropped.
pub(super) fn with_less(spec: &TaskSpec, round: usize) -> Vec<Less> {
    // A field that is added to a specification must be thought of here.
    let TaskSpec {
        key: _,
        alloc_dir: _,
        image: _,
        root: _,
        payload: _,
        process: _,
        isolation,
        users: _,
        network,
        names: _,
        files,
        environment,
        logs: _,
        labels,
        stop_signal: _,
        kill_timeout_ms: _,
        resources,
    } = spec;
    let mut all = Variants { spec, all: Vec::new() };
    mounts(&mut all, files, round);
    all.entries(isolation.syscalls.len(), |s, n| drop(s.isolation.syscalls.remove(n)));
    all.entries(isolation.sysctls.len(), |s, n| drop(s.isolation.sysctls.remove(n)));
    for limit in &isolation.limits {
        all.one(|s| s.isolation.limits.retain(|it| it != limit));
    }
    ports(&mut all, network);
    all.one(|s| s.names.hosts.clear());
    all.entries(environment.len(), |s, n| drop(s.environment.remove(n)));
    all.entries(labels.len(), |s, n| drop(s.labels.remove(n)));
    process(&mut all);
    limits(&mut all, resources);
    whole_kinds(&mut all);
    all.all
}

fn ports(all: &mut Variants<'_>, network: &Network) {
    all.entries(network.ports().len(), |s, n| {
        if let Some(ports) = s.network.ports_mut() {
            ports.remove(n);
        }
    });
    let without = |change: fn(&mut Private)| {
        move |s: &mut TaskSpec| {
            if let Network::Private(wanted) = &mut s.network {
                change(wanted);
            }
        }
    };
    all.one(without(|wanted| wanted.mac = None));
    // Of a kind that is not allowed, the name is not looked at.
    all.coarse(without(|wanted| wanted.zone = None));
}

/// Capabilities, and how the payload is executed and stopped.
fn process(all: &mut Variants<'_>) {
    all.one(|s| s.isolation.add = Default::default());
    // What would go around a list of addresses.
    all.one(|s| {
        let evading = ["net_raw", "net_admin"].into_iter().filter_map(Capabilities::named);
        s.isolation.drop = evading.fold(s.isolation.drop, Capabilities::with);
    });
    all.one(|s| s.isolation.selinux = None);
    all.one(|s| s.process.ready = Ready::Started);
    all.one(|s| s.process.user = None);
    all.one(|s| s.logs = Logs::Fifos);
    all.one(|s| s.payload = Payload::Command { words: Vec::new() });
    all.one(|s| s.stop_signal = None);
}

fn limits(all: &mut Variants<'_>, resources: &Resources) {
    // A policy with a ceiling refuses a task that names no limit.
    all.one(|s| s.resources.memory_max = Some(proto::limits::MEMORY_MIN));
    all.one(|s| s.resources.memory_low = None);
    all.one(|s| s.resources.cpu_weight = None);
    all.one(|s| s.resources.tasks_max = None);
    all.one(|s| s.resources.swap = Swap::None);
    all.one(|s| s.resources.cpu_boost = None);
    all.one(|s| s.resources.cpu_quota_us = None);
    all.one(|s| s.resources.io_weight = None);
    all.one(|s| s.resources.oom_score = 0);
    all.one(|s| s.resources.slice = None);
    all.entries(resources.properties.len(), |s, n| drop(s.resources.properties.remove(n)));
    all.entries(resources.egress.iter().flatten().count(), |s, n| {
        if let Some(ranges) = &mut s.resources.egress {
            ranges.remove(n);
        }
    });
    // A policy that lists addresses refuses a task that lists none.
    all.one(|s| s.resources.egress = Some(Vec::new()));
}

/// What is left when nothing smaller helps: the root, the users, the network, and whole parts.
fn whole_kinds(all: &mut Variants<'_>) {
    all.one(|s| s.root.ownership = Ownership::Map);
    all.one(|s| s.root.pivot = None);
    all.one(|s| s.users = Users::Pick);
    all.one(|s| s.network = Network::Loopback);
    all.one(|s| s.root.mode = Root::Ephemeral(Layer::Disk));
    all.one(|s| {
        s.root = RootFs::tree(Root::Ephemeral(Layer::Disk));
        if let Ok(name) = ImageName::new("image") {
            s.image = Image::Named(name);
        }
    });
    all.coarse(|s| s.files = Files::default());
    all.coarse(|s| s.environment.clear());
    all.coarse(|s| s.labels.clear());
    all.coarse(|s| s.isolation = Default::default());
    all.coarse(|s| s.names = Default::default());
    all.coarse(|s| s.process = Default::default());
    all.coarse(|s| s.resources = Resources::default());
}

/// Mounts, each first at a place that is free, which differs from round to round; then without a
/// source, wherever it is used.
fn mounts(all: &mut Variants<'_>, files: &Files, round: usize) {
    let move_to = |target: Option<&mut Target>, kind: &str, n: usize| {
        let free = Target::parse(&format!("/mnt/explained-{round}-{kind}-{n}"));
        if let (Some(target), Ok(free)) = (target, free) {
            *target = free;
        }
    };
    all.entries(files.binds.len(), |s, n| {
        move_to(s.files.binds.get_mut(n).map(|it| &mut it.target), "bind", n);
    });
    all.entries(files.tmpfs.len(), |s, n| {
        move_to(s.files.tmpfs.get_mut(n).map(|it| &mut it.target), "tmpfs", n);
    });
    all.entries(files.overlays.len(), |s, n| {
        move_to(s.files.overlays.get_mut(n).map(|it| &mut it.target), "overlay", n);
    });
    all.entries(files.devices.len(), |s, n| {
        move_to(s.files.devices.get_mut(n).map(|it| &mut it.target), "device", n);
    });
    for source in sources(files) {
        all.one(|s| without(&mut s.files, source));
    }
    all.entries(files.tmpfs.len(), |s, n| drop(s.files.tmpfs.remove(n)));
    all.entries(files.overlays.len(), |s, n| drop(s.files.overlays.remove(n)));
    all.entries(files.inaccessible.len(), |s, n| drop(s.files.inaccessible.remove(n)));
    for device in &files.devices {
        all.one(|s| s.files.devices.retain(|it| it.host != device.host));
    }
    all.entries(files.credentials.len(), |s, n| drop(s.files.credentials.remove(n)));
}

fn sources(files: &Files) -> impl Iterator<Item = &Source> {
    let layers = files.overlays.iter().flat_map(|it| {
        let upper = match &it.upper {
            Upper::Directory(source) => Some(source),
            Upper::ReadOnly | Upper::Ephemeral => None,
        };
        it.lower.iter().chain(upper)
    });
    files.binds.iter().map(|it| &it.source).chain(layers)
}

fn without(files: &mut Files, source: &Source) {
    files.binds.retain(|it| it.source != *source);
    for overlay in &mut files.overlays {
        overlay.lower.retain(|it| it != source);
        if overlay.upper == Upper::Directory(source.clone()) {
            overlay.upper = Upper::Ephemeral;
        }
        // Without a layer it would break a rule that the job does not; every task has this one.
        let local = Component::new("local").and_then(|local| Relative::new(vec![local]));
        if let (true, Ok(local)) = (overlay.lower.is_empty(), local) {
            overlay.lower.push(Source::Task(local));
        }
    }
}

/// Variants of one specification.
struct Variants<'a> {
    spec: &'a TaskSpec,
    all: Vec<Less>,
}

impl Variants<'_> {
    fn push(&mut self, coarse: bool, change: impl FnOnce(&mut TaskSpec)) {
        let mut spec = self.spec.clone();
        change(&mut spec);
        self.all.push(Less { spec, coarse });
    }

    fn one(&mut self, change: impl FnOnce(&mut TaskSpec)) {
        self.push(false, change);
    }

    fn coarse(&mut self, change: impl FnOnce(&mut TaskSpec)) {
        self.push(true, change);
    }

    /// One variant for each entry of a list of this length.
    fn entries(&mut self, length: usize, change: impl Fn(&mut TaskSpec, usize)) {
        for n in 0..length {
            self.one(|less| change(less, n));
        }
    }
}
