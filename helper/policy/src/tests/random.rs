//! Random specifications under random files: whatever they hold, there is an answer, and a good one
//! places everything below a directory of the policy.

use super::{ALLOC, COMPAT, absolute, bind, device, spec};
use crate::*;
use proptest::collection::vec as list;
use proptest::prelude::*;
use proptest::sample::select;
use proto::capability::Capabilities;
use proto::error::Code;
use proto::link::Mac;
use proto::name::{ParentName, ZoneName};
use proto::path::{Absolute, Relative};
use proto::plan::Place;
use proto::target::Target;
use proto::task_spec::files::{Bind, Device, Overlay, Source, Tmpfs, Upper};
use proto::task_spec::network::{
    Address, Attached, Container, ContainerLink, Parent, Port, Private,
};
use proto::task_spec::process::{Ready, Sysctl, SysctlName, SysctlValue};
use proto::task_spec::{
    Files, Image, ImageKind, Layer, Network, Ownership, Payload, Root, RootFs, TaskSpec, Users,
    Volatile,
};

const FILES: [&str; 6] = [
    "",
    COMPAT,
    "[binds]\nread_only = [\"/\"]\nread_write = [\"/srv\"]\n[limits]\ntasks = 5",
    "[binds]\nread_write = [\"/\"]\ndeny = [\"/srv/a\"]\n[devices]\nallow = [\"/dev/*:rw\"]",
    "preset = \"compat\"\n[images]\npaths = [\"/srv\", \"/srv/a\"]\n[limits]\nmemory = \"2g\"",
    "[userns]\nrequire = false\n[network]\nallow = [\"host\", \"zone\", \"bridge:*\", \"macvlan:*\"]\nzones = [\"db*\"]\n[nomad]\nalloc_dirs = [\"/var/lib/nomad/alloc\"]",
];

fn path() -> impl Strategy<Value = Absolute> {
    let part = select(vec!["srv", "a", "b", "dev", "proc", "var", "lib", "nomad", "alloc", ALLOC]);
    let any = list(part, 0..6);
    let known = select(vec![
        vec!["var", "lib", "machines", "a"],
        vec!["var", "lib", "nomad", "alloc", ALLOC],
        vec!["var", "lib", "nomad", "client", "csi", ALLOC],
    ]);
    prop_oneof![any, known].prop_map(|parts| absolute(&format!("/{}", parts.join("/"))))
}

/// A place inside, mostly one that may be mounted on.
fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        8 => "/m/[a-z]{8}".prop_map(|text| Target::parse(&text).unwrap()),
        1 => path().prop_filter_map("refused", |path| Target::new(path).ok()),
    ]
}

/// Six of seven times the first.
fn mostly<T: Clone + std::fmt::Debug + 'static>(
    good: T,
    others: Vec<T>,
) -> impl Strategy<Value = T> {
    prop_oneof![6 => Just(good), 1 => select(others)]
}

fn source() -> impl Strategy<Value = Source> {
    let task = list(select(vec!["local", "a"]), 0..64).prop_map(|parts| {
        let parts = parts.into_iter().map(|part| proto::path::Component::new(part).unwrap());
        Source::Task(Relative::new(parts.collect()).unwrap())
    });
    prop_oneof![8 => path().prop_map(Source::Host), 1 => task]
}

fn files() -> impl Strategy<Value = Files> {
    let binds = (source(), target(), any::<bool>()).prop_map(|(source, target, read_only)| Bind {
        source,
        target,
        ..bind("/", read_only)
    });
    let device = (
        prop_oneof![4 => Just(absolute("/dev/fuse")), 1 => path()],
        mostly("r", vec!["", "rw", "rwm"]),
    )
        .prop_map(|(host, letters)| Device { host, ..device("/", letters) });
    let upper = prop_oneof![Just(Upper::Ephemeral), source().prop_map(Upper::Directory)];
    let overlay = (list(source(), 1..4), upper, target())
        .prop_map(|(lower, upper, target)| Overlay { lower, upper, target });
    let tmpfs =
        (target(), mostly(Some(0o755), vec![None, Some(0o10000)])).prop_map(|(target, mode)| {
            Tmpfs { target, size: None, inodes: None, mode, read_only: false, executable: false }
        });
    (
        list(binds, 0..3),
        list(device, 0..2),
        list(overlay, 0..2),
        list(tmpfs, 0..2),
        list(target(), 0..2),
    )
        .prop_map(|(binds, devices, overlays, tmpfs, inaccessible)| Files {
            binds,
            tmpfs,
            overlays,
            inaccessible,
            devices,
            credentials: Vec::new(),
        })
}

fn root() -> impl Strategy<Value = RootFs> {
    let modes = select(vec![
        Root::Plain,
        Root::ReadOnly,
        Root::Ephemeral(Layer::Kept),
        Root::Volatile(Volatile::Yes),
    ]);
    let kinds = select(vec![ImageKind::Tree, ImageKind::Disk, ImageKind::Layers]);
    let owners = mostly(Ownership::Map, vec![Ownership::Chown, Ownership::Off]);
    (modes, kinds, owners).prop_map(|(mode, kind, ownership)| RootFs {
        kind,
        ownership,
        ..RootFs::tree(mode)
    })
}

fn users() -> impl Strategy<Value = Users> {
    let fixed = (select(vec![0, 65_535, 65_536, 524_288, u32::MAX]), any::<u32>());
    prop_oneof![
        4 => Just(Users::Pick),
        1 => Just(Users::Identity),
        1 => Just(Users::Host),
        1 => fixed.prop_map(|(base, width)| Users::Fixed { base, width: width % 65_538 }),
    ]
}

fn zone() -> impl Strategy<Value = Option<ZoneName>> {
    select(vec!["", "web", "db-1"]).prop_map(|name| ZoneName::new(name).ok())
}

fn mac() -> impl Strategy<Value = Option<Mac>> {
    mostly(None, vec![Some(Mac([2, 0, 0, 0, 0, 1])), Some(Mac([1, 0, 0, 0, 0, 1]))])
}

fn port() -> impl Strategy<Value = Port> {
    let address = mostly("192.0.2.1", vec!["::1", "0.0.0.0", "ff02::1"]);
    (address, mostly(8080, vec![22, 8081]))
        .prop_map(|(address, host)| super::port(address, host, 80))
}

fn attached() -> impl Strategy<Value = Network> {
    let name = |text: &str| ParentName::new(text).unwrap();
    let v4 = mostly(Some([192, 0, 2, 9]), vec![None, Some([127, 0, 0, 1]), Some([0; 4])]);
    (v4, select(vec![None, Some(0), Some(24), Some(33)]), list(port(), 0..2), 0..4_u32).prop_map(
        move |(v4, bits, ports, kind)| {
            let v4 = v4.map(|octets| Address { address: octets.into(), bits });
            let parent = match kind {
                0 => Parent::Bridge(name("br0")),
                1 => Parent::Macvlan(name("eth0")),
                _ => {
                    let link = ContainerLink::Bridge(name("br0"));
                    return Network::Container(Container { link, ports, wait_s: 599 + kind });
                }
            };
            Network::Attached(Attached { parent, v4, v6: None, mac: None, ports })
        },
    )
}

fn any_spec() -> impl Strategy<Value = TaskSpec> {
    let network = prop_oneof![
        8 => Just(Network::Loopback),
        1 => Just(Network::Host),
        2 => (list(port(), 0..3), zone(), mac()).prop_map(|(ports, zone, mac)| {
            Network::Private(Private { ports, zone, mac, ..Private::default() })
        }),
        1 => path().prop_map(Network::Join),
        1 => attached(),
    ];
    let sysctl = mostly("kernel.sem", vec!["net.a", "vm.x"]);
    let grants = (
        mostly(Some(1 << 30), vec![None, Some(0), Some(1 << 40)]),
        mostly("chown", vec!["bpf", "all"]),
        any::<bool>(),
    );
    let image = prop_oneof![4 => Just(None), 1 => path().prop_map(Some)];
    let process = (
        mostly(None, vec![Some(1), Some(33)]),
        mostly(None, vec![Some(0), Some(1), Some(3601)]),
        any::<bool>(),
    );
    (image, root(), users(), network, files(), sysctl, grants, process).prop_map(
        |(
            image,
            root,
            users,
            network,
            files,
            sysctl,
            (memory, cap, add),
            (signal, ready, boot),
        )| {
            let mut spec = spec();
            (spec.root, spec.users, spec.network, spec.files) = (root, users, network, files);
            if let Some(path) = image {
                spec.image = Image::Path(path);
            }
            if add {
                let (name, value) = (SysctlName::new(sysctl), SysctlValue::new("1"));
                spec.isolation.add = Capabilities::named(cap).unwrap();
                spec.isolation.sysctls =
                    vec![Sysctl { name: name.unwrap(), value: value.unwrap() }];
            }
            if boot {
                spec.payload = Payload::Boot { arguments: Vec::new() };
            }
            spec.process.ready =
                ready.map_or(Ready::Started, |timeout_s| Ready::Notify { timeout_s });
            (spec.resources.memory_max, spec.stop_signal) = (memory, signal);
            spec
        },
    )
}

/// Whether a place is one that the policy gives to this task.
fn is_given(place: &Place, decision: &Decision, policy: &Policy) -> bool {
    let alloc = &decision.plan().task_dirs.alloc_dir;
    if place.root == alloc.root && place.below.components().starts_with(alloc.below.components()) {
        return true;
    }
    let whole = absolute(&place.to_string());
    let mut never = policy.derived.binds_never.iter().chain(policy.binds.deny.iter());
    let mut listed = policy.binds.read_only.iter().chain(policy.binds.read_write.iter());
    listed.any(|root| *root == place.root)
        && !never.any(|it| whole.below(it).is_some() || it.below(&whole).is_some())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn every_specification_has_an_answer(spec in any_spec(), file in select(FILES.to_vec())) {
        let policy = parse(file).unwrap();
        let judged = judge(&spec, &policy).map(drop);
        let decided = decide(spec.clone(), &policy);
        prop_assert_eq!(judged.as_ref().err(), decided.as_ref().err());
        match decided {
            Err(Denial { rule, refusal }) => {
                prop_assert!(matches!(refusal.code, Code::Policy | Code::Invalid));
                prop_assert!(!rule.is_empty() && !refusal.reason.is_empty());
                prop_assert!(refusal.code != Code::Policy || rule == "preset" || rule.contains('.'));
            }
            Ok(decision) => {
                let files = &decision.plan().files;
                let uppers = files.overlays.iter().filter_map(|overlay| match &overlay.upper {
                    Upper::Directory(place) => Some(place),
                    _ => None,
                });
                let lower = files.overlays.iter().flat_map(|overlay| &overlay.lower);
                let binds = files.binds.iter().map(|bind| &bind.source);
                for place in binds.chain(lower).chain(uppers) {
                    prop_assert!(is_given(place, &decision, &policy), "{place}");
                }
                prop_assert_eq!(files.binds.len(), spec.files.binds.len());
                prop_assert_eq!(&files.tmpfs, &spec.files.tmpfs);
                prop_assert_eq!(&files.inaccessible, &spec.files.inaccessible);
                prop_assert!(!policy.userns.require || spec.users.isolates());
                prop_assert_eq!(spec.users, decision.users());
                let network = match &spec.network {
                    Network::Private(wanted) => Some(wanted),
                    _ => None,
                };
                prop_assert_eq!(network, decision.network());
            }
        }
    }
}
