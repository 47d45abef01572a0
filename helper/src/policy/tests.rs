//! One case a rule: what is refused, with which word in the reason, and what is allowed.

use super::*;
use proto::name::{AllocId, ImageName, Instance, TaskKey, TaskName, VariableName};
use proto::secret::Secret;
use proto::spec::{Image, Network, Payload, Variable};

const ALLOC: &str = "07070707-0707-0707-0707-070707070707";

fn strict() -> Policy {
    load(std::path::Path::new("/etc/no-such-folder/policy.toml")).unwrap()
}

fn absolute(path: &str) -> Absolute {
    Absolute::parse(path).unwrap()
}

fn spec() -> TaskSpec {
    let task = TaskName::new("web").unwrap();
    TaskSpec::new(
        TaskKey { alloc: AllocId([7; 16]), task, instance: Instance(1) },
        absolute(&format!("/var/lib/nomad/alloc/{ALLOC}")),
        Image::Named(ImageName::new("busybox").unwrap()),
    )
}

fn reason(change: impl Fn(&mut TaskSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    decide(&spec, &strict()).unwrap_err().to_string()
}

#[test]
fn a_plain_task_is_allowed() {
    let decision = decide(&spec(), &strict()).unwrap();
    assert_eq!(decision.image.to_string(), "/var/lib/machines/busybox");
    assert_eq!(decision.kill_signal, 15);
    assert_eq!(decision.machine.as_str(), format!("web-{ALLOC}"));
}

#[test]
fn images_lie_below_the_listed_folders() {
    for path in ["/", "/etc", "/var/lib/machines", "/var/lib/machines2/x", "/var/lib"] {
        let text = reason(|spec| spec.image = Image::Path(absolute(path)));
        assert!(text.contains("[images] paths"), "{path}: {text}");
    }
    let mut good = spec();
    good.image = Image::Path(absolute("/var/lib/machines/a/b"));
    assert!(decide(&good, &strict()).is_ok());
}

#[test]
fn the_user_namespace_is_required() {
    assert!(reason(|spec| spec.users = Users::Host).contains("[userns] require = false"));
    let mut policy = strict();
    policy.userns_require = false;
    let mut spec = spec();
    spec.users = Users::Host;
    assert!(decide(&spec, &policy).unwrap().users == Users::Host);
}

#[test]
fn the_host_network_is_not_given_by_default() {
    assert!(reason(|spec| spec.network = Network::Host).contains("\"host\" in [network] allow"));
}

#[test]
fn only_the_own_network_namespace_is_joined() {
    for path in
        ["/run/netns/other", "/proc/1/ns/net", "/run/netns", &format!("/run/netns/{ALLOC}/x")]
    {
        let text = reason(|spec| spec.network = Network::Join(absolute(path)));
        assert!(text.contains("network namespace"), "{path}: {text}");
    }
    let join = |path: &str, policy: &Policy| {
        let mut spec = spec();
        spec.network = Network::Join(absolute(path));
        decide(&spec, policy).is_ok()
    };
    assert!(join(&format!("/run/netns/{ALLOC}"), &strict()));
    let docker = "/run/docker/netns/abc";
    assert!(!join(docker, &strict()));
    let mut open = strict();
    open.netns_paths.push(absolute("/run/docker/netns"));
    assert!(join(docker, &open));
}

#[test]
fn only_the_own_allocation_is_mounted() {
    for path in [
        "/var/lib/nomad/alloc".to_owned(),
        "/var/lib/nomad/alloc/17070707-0707-0707-0707-070707070707".to_owned(),
        format!("/var/lib/nomad/alloc/x/{ALLOC}"),
        format!("/tmp/{ALLOC}"),
    ] {
        let text = reason(|spec| spec.alloc_dir = absolute(&path));
        assert!(text.contains("alloc"), "{path}: {text}");
    }
}

#[test]
fn numbers_have_ranges() {
    assert!(reason(|spec| spec.stop_signal = Some(0)).contains("signal 0"));
    assert!(reason(|spec| spec.stop_signal = Some(33)).contains("signal 33"));
    assert!(reason(|spec| spec.stop_signal = Some(65)).contains("signal 65"));
    assert!(reason(|spec| spec.resources.memory_max = Some(1)).contains("memory limit"));
    assert!(reason(|spec| spec.resources.cpu_weight = Some(0)).contains("cpu weight"));
    assert!(reason(|spec| spec.resources.tasks_max = Some(0)).contains("task limit"));
}

#[test]
fn texts_have_bounds() {
    let variable = |name: &str, value: String| Variable {
        name: VariableName::new(name).unwrap(),
        value: Secret::new(value),
    };
    assert!(
        reason(|s| s.environment = vec![variable("A", "x".repeat(131_072))]).contains("131,071")
    );
    assert!(reason(|s| s.environment = vec![variable("A", "a\0b".into())]).contains("NUL"));
    let twice = vec![variable("A", "1".into()), variable("A", "2".into())];
    assert!(reason(|s| s.environment.clone_from(&twice)).contains("twice"));
    let words = |text: &str| Payload::Command { words: vec![Secret::new(text)] };
    assert!(reason(|s| s.payload = words("a\0")).contains("NUL"));
    assert!(reason(|s| s.payload = words(&"x".repeat(131_072))).contains("131,071"));
}

/// No value of the job may reach the text of a refusal.
#[test]
fn refusals_hold_no_secret() {
    let secret = "hunter2".repeat(20_000);
    let text = reason(|spec| {
        let name = VariableName::new("TOKEN").unwrap();
        spec.environment = vec![Variable { name, value: Secret::new(secret.clone()) }];
    });
    assert!(text.contains("TOKEN") && !text.contains("hunter2"));
}
