//! Every rule that a specification breaks, found with the daemon's own decision.
//!
//! [`judge`] names the first. Here the part of the specification that it is about is taken out, and
//! the rest judged again, until nothing is refused. So this knows no rule of its own, the daemon
//! carries no code for it, and what is named here is what the daemon would refuse.

use proto::task_spec::TaskSpec;

use super::less::{Less, with_less};
use policy::{Denial, Policy, judge};

/// All denials, in the order in which the daemon would come to them, and whether these are all: a
/// policy that refuses every task hides what comes after, and so does a list that is too long.
pub(super) fn all(spec: &TaskSpec, policy: &Policy) -> (Vec<Denial>, bool) {
    let mut rest = spec.clone();
    let (mut found, mut whole) = (Vec::<Denial>::new(), true);
    while let Err(denial) = judge(&rest, policy) {
        let same = |other: &Denial| {
            (other.rule, &other.refusal.object) == (denial.rule, &denial.refusal.object)
        };
        let clears = |less: &Less| {
            less.spec != rest && !judge(&less.spec, policy).is_err_and(|other| same(&other))
        };
        let next = with_less(&rest, found.len()).into_iter().find(clears);
        found.push(denial);
        match next {
            Some(less) => {
                whole &= !less.coarse;
                rest = less.spec;
            }
            None => return (found, false),
        }
    }
    (found, whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::parse;
    use proto::capability::Capabilities;
    use proto::link::Mac;
    use proto::name::{AllocId, ImageName, Instance, TaskKey, TaskName, ZoneName};
    use proto::path::Absolute;
    use proto::target::Target;
    use proto::task_spec::files::{Bind, Device, DeviceAccess, Mapping, Overlay, Source, Upper};
    use proto::task_spec::network::{Port, Private};
    use proto::task_spec::process::{Sysctl, SysctlName, SysctlValue};
    use proto::task_spec::{Image, Network, Root, Users};
    use std::num::NonZeroU16;

    fn absolute(path: &str) -> Absolute {
        Absolute::parse(path).unwrap()
    }

    fn spec() -> TaskSpec {
        let task = TaskName::new("web").unwrap();
        let alloc = AllocId([7; 16]);
        TaskSpec::new(
            TaskKey { alloc, task, instance: Instance(1) },
            absolute(&format!("/var/lib/nomad/alloc/{alloc}")),
            Image::Named(ImageName::new("busybox").unwrap()),
        )
    }

    fn bind(source: &str, target: &str) -> Bind {
        Bind {
            source: Source::Host(absolute(source)),
            target: Target::parse(target).unwrap(),
            read_only: true,
            recursive: true,
            mapping: Mapping::Automatic,
            propagated: false,
        }
    }

    fn rules(spec: &TaskSpec, file: &str) -> Vec<String> {
        let (found, whole) = all(spec, &parse(file).unwrap());
        assert!(whole, "{found:?}");
        found
            .into_iter()
            .map(|denial| format!("{} {}", denial.rule, denial.refusal.object))
            .collect()
    }

    #[test]
    fn a_task_that_breaks_nothing_has_no_denial() {
        assert_eq!(rules(&spec(), ""), Vec::<String>::new());
    }

    /// Each rule once, and each entry of a list that breaks one.
    #[test]
    fn every_broken_rule_of_a_task_is_named() {
        let mut spec = spec();
        spec.image = Image::Path(absolute("/srv/image"));
        spec.root.mode = Root::Plain;
        spec.users = Users::Host;
        spec.network = Network::Host;
        spec.isolation.add = Capabilities::named("bpf").unwrap();
        spec.isolation.sysctls = vec![
            Sysctl {
                name: SysctlName::new("vm.x").unwrap(),
                value: SysctlValue::new("1").unwrap(),
            },
            Sysctl {
                name: SysctlName::new("net.x").unwrap(),
                value: SysctlValue::new("1").unwrap(),
            },
        ];
        spec.stop_signal = Some(32);
        // Twice at one place, and of directories that are not listed.
        spec.files.binds = vec![bind("/srv/a", "/a"), bind("/srv/b", "/b"), bind("/proc", "/c")];
        spec.files.overlays = vec![Overlay {
            lower: vec![Source::Host(absolute("/srv/low")), Source::Host(absolute("/srv/low2"))],
            upper: Upper::Directory(Source::Host(absolute("/srv/up"))),
            target: Target::parse("/b").unwrap(),
        }];
        let access = DeviceAccess { read: true, write: false, mknod: false };
        spec.files.devices = vec![Device {
            host: absolute("/dev/kvm"),
            target: Target::parse("/dev/kvm").unwrap(),
            access,
        }];
        let mut found = rules(&spec, "[limits]\nmemory = \"1g\"\ntasks = 5");
        found.sort();
        let mut expected = [
            "binds.read_only read-only bind of /srv/a",
            "binds.read_only read-only bind of /srv/b",
            "binds.read_only read-only bind of /srv/low",
            "binds.read_only read-only bind of /srv/low2",
            "binds.read_write bind of /srv/up",
            "caps.allow capability CAP_BPF",
            "devices.allow device /dev/kvm",
            "images.paths image /srv/image",
            "limits.memory no memory limit",
            "network.allow host network",
            "preset read-only bind of /proc",
            "signal signal 32",
            "sysctl.allow sysctl net.x",
            "sysctl.allow sysctl vm.x",
            "target /b",
            "userns.require user_namespacing = false",
        ];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }

    /// Each port that breaks a rule, and the kind once: without its ports no task is hidden.
    #[test]
    fn every_port_that_is_refused_is_named() {
        let port = |address: [u8; 4], host| Port {
            address: address.into(),
            host: NonZeroU16::new(host).unwrap(),
            task: NonZeroU16::MIN,
        };
        let (one, two) = ([192, 0, 2, 1], [0, 0, 0, 0]);
        let mut spec = spec();
        let ports = [port(one, 80), port(one, 8080), port(two, 443), port(one, 22), port(one, 80)];
        spec.network = Network::with_ports(ports.to_vec());
        let mut expected = vec![
            "address host port 0.0.0.0:443",
            "twice host port 192.0.2.1:80",
            "network.ports host port 192.0.2.1:22",
        ];
        assert_eq!(rules(&spec, "[network]\nports = [80, \"1024-65535\"]"), expected);
        expected.push("network.ports host port 192.0.2.1:80");
        let mut found = rules(&spec, "");
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected);
        let found = rules(&spec, "[network]\nallow = [\"private\"]");
        assert!(found.contains(&"network.allow network of its own".to_owned()), "{found:?}");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_zone_and_a_mac_address_that_are_refused_are_named() {
        let mut spec = spec();
        spec.network = Network::Private(Private {
            zone: ZoneName::new("web").ok(),
            mac: Some(Mac([0xff; 6])),
            ..Private::default()
        });
        for (file, second) in [
            ("[network]\nzones = []", "network.zones"),
            ("[network]\nallow = [\"veth\"]", "network.allow"),
        ] {
            // Not all: of a kind that is not allowed, the zone's name is not looked at.
            let (found, whole) = all(&spec, &parse(file).unwrap());
            assert_eq!(found.iter().map(|denial| denial.rule).collect::<Vec<_>>(), ["mac", second]);
            assert!(!whole);
        }
    }

    /// The same source twice is one denial, and hides nothing.
    #[test]
    fn what_is_asked_for_twice_is_named_once_and_hides_nothing() {
        let mut spec = spec();
        spec.files.binds = vec![bind("/srv/a", "/a"), bind("/srv/a", "/b"), bind("/srv/b", "/c")];
        let expected = ["/srv/a", "/srv/b"];
        assert_eq!(
            rules(&spec, ""),
            expected.map(|it| format!("binds.read_only read-only bind of {it}"))
        );
    }

    /// What no job can change ends the search, and is said.
    #[test]
    fn a_policy_that_refuses_every_task_is_said_to_hide_the_rest() {
        let mut spec = spec();
        spec.alloc_dir = absolute("/elsewhere");
        let (found, whole) = all(&spec, &parse("").unwrap());
        assert_eq!((found.len(), whole), (1, false), "{found:?}");
    }
}
