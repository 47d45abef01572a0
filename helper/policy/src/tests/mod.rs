//! One row a rule of the policy file: what is refused, under which file, with which words, and
//! what is allowed.

mod attached;
mod fields;
mod random;
mod visit;
mod zones;

use super::*;
use proto::error::Code;
use proto::name::{AllocId, ImageName, Instance, TaskKey, TaskName};
use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::target::Target;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::files::{Bind, Device, Mapping, Source};
use proto::task_spec::network::Port;
use proto::task_spec::{Image, Network, Root};
use proto::task_spec::{TaskSpec, Users};

pub(crate) const ALLOC: &str = "07070707-0707-0707-0707-070707070707";

pub(crate) fn absolute(path: &str) -> Absolute {
    Absolute::parse(path).unwrap()
}

pub(crate) fn target(path: &str) -> Target {
    Target::parse(path).unwrap()
}

pub(crate) fn spec() -> TaskSpec {
    let task = TaskName::new("web").unwrap();
    TaskSpec::new(
        TaskKey { alloc: AllocId([7; 16]), task, instance: Instance(1) },
        absolute(&format!("/var/lib/nomad/alloc/{ALLOC}")),
        Image::Named(ImageName::new("busybox").unwrap()),
    )
}

pub(crate) fn bind(path: &str, read_only: bool) -> Bind {
    Bind {
        source: Source::Host(absolute(&path.replace("OWN", ALLOC))),
        target: target("/mnt"),
        read_only,
        recursive: true,
        mapping: Mapping::Automatic,
        propagated: false,
    }
}

pub(crate) fn device(path: &str, letters: &str) -> Device {
    let has = |letter| letters.contains(letter);
    let access = DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') };
    Device { host: absolute(path), target: target("/dev/x"), access }
}

pub(crate) fn judged(file: &str, change: impl Fn(&mut TaskSpec)) -> Result<Decision, Denial> {
    let mut spec = spec();
    change(&mut spec);
    decide(spec, &parse(file).unwrap())
}

pub(crate) type Change = Box<dyn Fn(&mut TaskSpec)>;

/// Under `refused.0` the change `refused.1` is refused, under `allowed.0` `allowed.1` is not.
pub(crate) struct Row {
    rule: &'static str,
    words: &'static str,
    refused: (&'static str, Change),
    allowed: (&'static str, Change),
}

pub(crate) fn row(
    rule: &'static str,
    words: &'static str,
    refused: (&'static str, Change),
    allowed: (&'static str, Change),
) -> Row {
    Row { rule, words, refused, allowed }
}

pub(crate) fn check(rows: Vec<Row>) {
    for Row { rule, words, refused, allowed } in rows {
        let denial = judged(refused.0, refused.1).unwrap_err();
        let text = denial.refusal.to_string();
        assert!(text.contains(words), "{rule}: {words}: {text}");
        assert_eq!((denial.rule, denial.refusal.code), (rule, Code::Policy), "{text}");
        let allowed = judged(allowed.0, allowed.1);
        assert!(allowed.is_ok(), "{rule}: {words}: {allowed:?}");
    }
}

/// Code `Invalid` under either preset, under any file; words, what is refused, what is not.
pub(crate) fn check_invalid(rows: Vec<(&'static str, Change, Change)>) {
    for (words, refused, allowed) in rows {
        for preset in ["", COMPAT] {
            let denial = judged(preset, &refused).unwrap_err();
            let text = denial.refusal.to_string();
            assert!(text.contains(words), "{words}: {text}");
            assert_eq!(denial.refusal.code, Code::Invalid, "{text}");
        }
        let allowed = judged(COMPAT, allowed);
        assert!(allowed.is_ok(), "{words}: {allowed:?}");
    }
}

pub(crate) fn change(change: impl Fn(&mut TaskSpec) + 'static) -> Change {
    Box::new(change)
}

pub(crate) fn image(path: &'static str, mode: Root) -> Change {
    Box::new(move |s| {
        s.image = Image::Path(absolute(path));
        s.root.mode = mode;
    })
}

pub(crate) fn users(users: Users) -> Change {
    Box::new(move |s| s.users = users)
}

pub(crate) fn devices(path: &'static str, letters: &'static str) -> Change {
    Box::new(move |s| s.files.devices = vec![device(path, letters)])
}

pub(crate) fn networks(network: Network) -> Change {
    Box::new(move |s| s.network = network.clone())
}

pub(crate) fn join(path: &'static str) -> Change {
    networks(Network::Join(absolute(&path.replace("OWN", ALLOC))))
}

pub(crate) fn port(address: &str, host: u16, task: u16) -> Port {
    let number = |number| std::num::NonZeroU16::new(number).unwrap();
    Port { address: address.parse().unwrap(), host: number(host), task: number(task) }
}

pub(crate) fn ports(ports: &[(&str, u16)]) -> Change {
    let ports = ports.iter().map(|(address, host)| port(address, *host, 80)).collect();
    networks(Network::with_ports(ports))
}

pub(crate) fn memory(limit: Option<u64>) -> Change {
    Box::new(move |s| s.resources.memory_max = limit)
}

pub(crate) fn tasks(limit: Option<u64>) -> Change {
    Box::new(move |s| s.resources.tasks_max = limit)
}

pub(crate) const COMPAT: &str = "preset = \"compat\"";
pub(crate) const READ: Root = Root::ReadOnly;

/// Within it the unit's own clean-up runs, and the host waits as long when it goes down.
#[test]
fn s14_the_kill_timeout_is_neither_short_nor_long() {
    for (asked, given) in [(0, 5_000), (4_999, 5_000), (30_000, 30_000), (u64::MAX, 90_000)] {
        let decision = judged(COMPAT, |s| s.kill_timeout_ms = asked).unwrap();
        assert_eq!(decision.unit().kill_timeout_ms, given, "{asked}");
    }
}

#[test]
fn the_user_namespace_is_required() {
    const EXCEPT: &str = "[userns]\nexcept = [\"/var/lib/machines/busybox\"]";
    let low = || users(Users::Fixed { base: 65_535, width: 1 });
    let (rule, words) = ("userns.require", "[userns] require = false");
    check(vec![
        row(rule, words, ("", users(Users::Host)), (COMPAT, users(Users::Host))),
        row(rule, words, ("", users(Users::Identity)), (EXCEPT, users(Users::Identity))),
        row(rule, words, ("", low()), ("[userns]\nrequire = false", low())),
        row(
            rule,
            "[userns] except",
            ("[userns]\nexcept = [\"/var/lib/machines\"]", users(Users::Host)),
            (EXCEPT, users(Users::Host)),
        ),
    ]);
}

#[test]
fn devices_are_listed_with_their_access() {
    const FUSE: &str = "[devices]\nallow = [\"/dev/fuse:rw\", \"/dev/dri/*:r\"]";
    let rule = "devices.allow";
    check(vec![
        row(
            rule,
            "\"/dev/fuse:rw\" added to [devices] allow",
            ("", devices("/dev/fuse", "rw")),
            (FUSE, devices("/dev/fuse", "rw")),
        ),
        row(
            rule,
            "\"/dev/fuse:rm\"",
            (FUSE, devices("/dev/fuse", "rm")),
            (FUSE, devices("/dev/fuse", "w")),
        ),
        row(
            rule,
            "\"/dev/dri/a/b:r\"",
            (FUSE, devices("/dev/dri/a/b", "r")),
            (FUSE, devices("/dev/dri/a", "r")),
        ),
        row(
            rule,
            "\"/dev/sda:r\"",
            (FUSE, devices("/dev/sda", "r")),
            (COMPAT, devices("/dev/sda", "rwm")),
        ),
        row(
            rule,
            "lies outside /dev",
            (COMPAT, devices("/etc/passwd", "r")),
            (COMPAT, devices("/dev/a/b/c", "r")),
        ),
        row(
            rule,
            "lies outside /dev",
            (COMPAT, devices("/dev", "r")),
            (COMPAT, devices("/dev/null", "r")),
        ),
    ]);
}

#[test]
fn networks_are_listed() {
    const DOCKER: &str = "[network]\nnetns_paths = [\"/run/docker/netns\"]";
    const HOST: &str = "[network]\nallow = [\"host\"]";
    let (allow, paths) = ("network.allow", "network.netns_paths");
    let own = || ("", join("/run/netns/OWN"));
    check(vec![
        row(
            allow,
            "\"host\" added to [network] allow",
            ("", networks(Network::Host)),
            (HOST, networks(Network::Host)),
        ),
        row(
            allow,
            "\"private\"",
            (HOST, networks(Network::Loopback)),
            ("", networks(Network::Loopback)),
        ),
        row(allow, "\"group\"", (HOST, join("/run/netns/OWN")), own()),
        row(paths, "not the one", ("", join("/run/netns/other")), own()),
        row(paths, "not the one", ("", join("/run/netns")), own()),
        row(paths, "not the one", ("", join("/run/netns/OWN/x")), own()),
        row(paths, "netns_paths", ("", join("/proc/1/ns/net")), own()),
        row(
            paths,
            "netns_paths",
            ("", join("/run/docker/netns/a")),
            (DOCKER, join("/run/docker/netns/a")),
        ),
    ]);
}

#[test]
fn p20_ports_are_those_of_the_list() {
    const SOME: &str = "[network]\nports = [80, \"8000-8010\"]";
    const NONE: &str = "[network]\nports = []";
    const PRIVATE: &str = "[network]\nallow = [\"private\"]";
    let one = |port| ports(&[("192.0.2.1", port)]);
    let (allow, listed) = ("network.allow", "network.ports");
    check(vec![
        row(allow, "\"veth\"", (PRIVATE, ports(&[])), (NONE, ports(&[]))),
        row(listed, "192.0.2.1:22: ", ("", one(22)), (COMPAT, one(22))),
        row(listed, "\"1023\" added to [network] ports", ("", one(1023)), ("", one(1024))),
        row(listed, "\"81\"", (SOME, one(81)), (SOME, one(80))),
        row(listed, "\"7999\"", (SOME, one(7999)), (SOME, one(8000))),
        row(listed, "\"8011\"", (SOME, one(8011)), (SOME, one(8010))),
        row(listed, "\"65535\"", (NONE, one(65_535)), ("", one(65_535))),
        row(
            listed,
            "[2001:db8::1]:443: ",
            (SOME, ports(&[("192.0.2.1", 80), ("2001:db8::1", 443)])),
            (SOME, ports(&[("192.0.2.1", 80), ("2001:db8::1", 80)])),
        ),
    ]);
}

#[test]
fn ports_have_one_address_and_come_once() {
    let at = |address| ports(&[(address, 8080)]);
    let one_of_host = "must be one of the host";
    let mut rows: Vec<_> = ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"]
        .into_iter()
        .chain(["::ffff:192.0.2.1", "::ffff:0.0.0.0"])
        .map(|address| (one_of_host, at(address), at("192.0.2.1")))
        .collect();
    rows.push((
        "host port 192.0.2.1:8080: given twice",
        ports(&[("192.0.2.1", 8080), ("127.0.0.1", 8080), ("192.0.2.1", 8080)]),
        ports(&[("192.0.2.1", 8080), ("127.0.0.1", 8081), ("::1", 8080)]),
    ));
    let many = |count: u16| {
        networks(Network::with_ports((1..=count).map(|n| port("192.0.2.1", 2000 + n, n)).collect()))
    };
    rows.push(("ports: 129, but at most 128", many(129), many(128)));
    check_invalid(rows);
}

#[test]
fn the_decision_has_the_ports() {
    let two = [("192.0.2.1", 8080), ("192.0.2.1", 8081)];
    let expected = two.map(|(address, host)| port(address, host, 80));
    let given = |change| judged("", change).unwrap().network().map(|it| it.ports.clone());
    assert_eq!(given(ports(&two)), Some(expected.to_vec()));
    assert_eq!(given(ports(&[])), Some(Vec::new()));
    for network in [Network::Loopback, Network::Host] {
        assert_eq!(judged(COMPAT, networks(network)).unwrap().network(), None);
    }
}

#[test]
fn limits_have_ceilings() {
    const MEMORY: &str = "[limits]\nmemory = \"64m\"";
    const TASKS: &str = "[limits]\ntasks = 100";
    let most = Some(64 << 20);
    check(vec![
        row("limits.memory", "[limits] memory", (MEMORY, memory(None)), (MEMORY, memory(most))),
        row(
            "limits.memory",
            "67108865",
            (MEMORY, memory(Some((64 << 20) + 1))),
            ("", memory(None)),
        ),
        row("limits.tasks", "task limit 101", (TASKS, tasks(Some(101))), (TASKS, tasks(Some(100)))),
    ]);
    let given = |file, asked| judged(file, tasks(asked)).unwrap().unit().resources.tasks_max;
    assert_eq!(given("", None), Some(16_384));
    assert_eq!(given(TASKS, None), Some(100));
    assert_eq!(given("[limits]\ntasks = 20000", None), Some(16_384));
    assert_eq!(given(TASKS, Some(7)), Some(7));
}

#[test]
fn a_plain_task_is_allowed() {
    let decision = judged("", |_| ()).unwrap();
    assert_eq!(decision.plan().image.to_string(), "/var/lib/machines/busybox");
    assert_eq!(decision.plan().kill_signal, 15);
    assert_eq!(decision.plan().machine.as_str(), format!("web-{ALLOC}"));
    assert_eq!(decision.unit().devices, vec![]);
    assert_eq!(decision.plan().files.unprotected, Unprotected::Refuse);
    assert_eq!(judged(COMPAT, |_| ()).unwrap().plan().files.unprotected, Unprotected::AsAsked);
}
