//! Each bound: one more is refused, just as many are not.

use super::*;
use crate::tests::{self, Change, absolute, bind, change, check_invalid, device, judged};
use proto::name::VariableName;
use proto::path::Relative;
use proto::secret::Secret;
use proto::task_spec::files::{Credential, CredentialName, Overlay, Source, Tmpfs, Upper};
use proto::task_spec::output::{LabelName, LabelValue};
use proto::task_spec::process::{
    LimitName, ProcessLimit, SyscallName, SyscallRule, Sysctl, SysctlName, SysctlValue,
};
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{Files, Isolation, Variable};

fn each<T>(count: usize, make: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(make).collect()
}

/// A list one too long, and one just as long as it may be.
fn bound(
    words: &'static str,
    most: usize,
    set: impl Fn(&mut TaskSpec, usize) + Copy + 'static,
) -> (&'static str, Change, Change) {
    (words, change(move |s| set(s, most + 1)), change(move |s| set(s, most)))
}

fn files(set: impl Fn(&mut Files)) -> impl Fn(&mut TaskSpec) {
    move |s| set(&mut s.files)
}

fn isolation(set: impl Fn(&mut Isolation)) -> impl Fn(&mut TaskSpec) {
    move |s| set(&mut s.isolation)
}

fn target(n: usize) -> proto::target::Target {
    tests::target(&format!("/m/{n}"))
}

fn label(n: usize) -> Label {
    let name = LabelName::new(format!("L{n}")).unwrap();
    Label { name, value: LabelValue::new("x").unwrap() }
}

fn sysctl(n: usize) -> Sysctl {
    let name = SysctlName::new(format!("net.x{n}")).unwrap();
    Sysctl { name, value: SysctlValue::new("1").unwrap() }
}

fn credential(n: usize, length: usize) -> Credential {
    let content = CredentialContent::Value(Secret::new("x".repeat(length)));
    let name = CredentialName::new(format!("c{n}")).unwrap();
    Credential { name, content, encrypted: false }
}

fn limit(resource: LimitName) -> ProcessLimit {
    ProcessLimit { resource, soft: None, hard: None }
}

fn layers(count: usize) -> Overlay {
    let lower = each(count, |_| Source::Host(absolute("/srv")));
    Overlay { lower, upper: Upper::ReadOnly, target: target(0) }
}

fn variable(name: &str, value: &str) -> Variable {
    Variable { name: VariableName::new(name).unwrap(), value: Secret::new(value) }
}

fn file(length: usize) -> EtcFile {
    EtcFile::Put { content: vec![0; length], link: ImageLink::Keep, read_only: false }
}

#[test]
fn lists_have_bounds() {
    let tmpfs = |n| Tmpfs {
        target: target(n),
        size: None,
        inodes: None,
        mode: None,
        read_only: false,
        executable: false,
    };
    check_invalid(vec![
        bound("binds", MOUNTS_MAX, |s, n| {
            s.files.binds = each(n, |n| proto::task_spec::files::Bind {
                target: target(n),
                ..bind("/srv", true)
            });
        }),
        bound("tmpfs", MOUNTS_MAX, move |s, n| s.files.tmpfs = each(n, tmpfs)),
        bound("overlays", MOUNTS_MAX, |s, n| {
            s.files.overlays = each(n, |n| Overlay { target: target(n), ..layers(1) });
        }),
        bound("inaccessible", MOUNTS_MAX, |s, n| s.files.inaccessible = each(n, target)),
        bound("devices", MOUNTS_MAX, |s, n| {
            s.files.devices = each(n, |n| proto::task_spec::files::Device {
                target: target(n),
                ..device("/dev/null", "r")
            });
        }),
        bound("credentials", MOUNTS_MAX, |s, n| {
            s.files.credentials = each(n, |n| credential(n, 1));
        }),
        bound("system call rules", RULES_MAX, |s, n| {
            let name = SyscallName::new("bpf").unwrap();
            s.isolation.syscalls = each(n, |_| SyscallRule { allow: false, name: name.clone() });
        }),
        // Only five families are allowed: one of them has names enough.
        bound("sysctls", RULES_MAX, |s, n| s.isolation.sysctls = each(n, sysctl)),
        bound("/etc/hosts", ETC_FILE_MAX, |s, n| s.names.hosts = vec![0; n]),
        bound("/etc/resolv.conf", ETC_FILE_MAX, |s, n| s.names.resolver = file(n)),
        bound("/etc/localtime", ETC_FILE_MAX, |s, n| s.names.localtime = file(n)),
        bound("labels: 33, but at most 32", LABELS_MAX, |s, n| s.labels = each(n, label)),
        bound("lower layers", LAYERS_MAX, |s, n| s.files.overlays = vec![layers(n)]),
        (
            "at least 1",
            change(|s| s.files.overlays = vec![layers(0)]),
            change(|s| s.files.overlays = vec![layers(1)]),
        ),
        (
            "process limits",
            change(|s| s.isolation.limits = each(RULES_MAX + 1, |_| limit(LimitName::Cpu))),
            change(|s| s.isolation.limits = vec![limit(LimitName::Cpu)]),
        ),
    ]);
}

/// journald adds them to each line: the longest values alone would make 8 KiB of it.
#[test]
fn s5_all_labels_together_have_a_bound() {
    // 30 of "L00=" and 127 bytes are 3,930; the last is "LAST=" and what is left, 161.
    let labels = |more: usize| {
        change(move |s| {
            let name = |text: String| LabelName::new(text).unwrap();
            let value = |length| LabelValue::new("x".repeat(length)).unwrap();
            s.labels = each(30, |n| Label { name: name(format!("L{n:02}")), value: value(127) });
            s.labels.push(Label { name: name("LAST".to_owned()), value: value(161 + more) });
        })
    };
    let words = "bytes of all labels: 4097, but at most 4096";
    check_invalid(vec![(words, labels(1), labels(0))]);
}

/// Bounds of each list alone would let one specification take most of the helper's memory.
#[test]
fn all_paths_together_have_a_bound() {
    fn path(name: &str, length: usize) -> proto::path::Absolute {
        absolute(&format!("/{name}").repeat(length))
    }
    fn target_of(name: &str, length: usize) -> proto::target::Target {
        proto::target::Target::new(path(name, length)).unwrap()
    }
    fn own(length: usize) -> Relative {
        path("local", length).below(&absolute("/")).unwrap()
    }
    fn bind_of(source: Source, length: usize) -> Vec<proto::task_spec::files::Bind> {
        vec![proto::task_spec::files::Bind {
            source,
            target: target_of("b", length),
            ..bind("/", true)
        }]
    }
    // Each adds so many components.
    let kinds: [fn(&mut Files, usize); 6] = [
        |files, n| files.inaccessible.push(target_of("b", n)),
        |files, n| files.binds = bind_of(Source::Host(path("x", n / 2)), n - n / 2),
        |files, n| files.binds = bind_of(Source::Task(own(n / 2)), n - n / 2),
        |files, n| {
            let host = absolute(&format!("/dev{}", path("x", n - 3)));
            files.devices = vec![proto::task_spec::files::Device { host, ..device("/", "r") }];
        },
        |files, n| {
            let content = CredentialContent::File(own(n));
            files.credentials = vec![Credential { content, ..credential(0, 1) }];
        },
        |files, n| {
            let (upper, lower) = (Upper::Directory(Source::Task(own(n - 3))), layers(1).lower);
            files.overlays.push(Overlay { lower, upper, target: target_of("b", 2) });
        },
    ];
    for kind in kinds {
        let with = |n| {
            change(files(move |files| {
                // All but 40.
                let lower = vec![Source::Host(path("x", 42)); 3];
                let one = |n| Overlay { lower: lower.clone(), target: target(n), ..layers(1) };
                files.overlays = each(MOUNTS_MAX - 1, one);
                files.inaccessible = vec![target_of("a", 64), target_of("a", 24)];
                kind(files, n);
            }))
        };
        check_invalid(vec![("16385, but at most 16384", with(41), with(40))]);
    }
}

#[test]
fn texts_have_bounds() {
    let word = |text: &str| Payload::Command { words: vec![Secret::new(text)] };
    let long = "x".repeat(ARGUMENT_MAX);
    let (longest, longer) = (word(&long), word(&format!("{long}x")));
    check_invalid(vec![
        bound("1 MiB", CREDENTIAL_MAX, |s, n| s.files.credentials = vec![credential(0, n)]),
        bound("words of the command: 4097, but at most 4096", ARGUMENTS_MAX, |s, n| {
            s.payload = Payload::Boot { arguments: vec![Secret::new(""); n] };
        }),
        bound("variables: 4097, but at most 4096", VARIABLES_MAX, |s, n| {
            s.environment = each(n, |n| variable(&format!("V{n}"), ""));
        }),
        bound("131,071", VARIABLE_MAX - 2, |s, n| {
            s.environment = vec![variable("A", &"x".repeat(n))];
        }),
        (
            "131,071",
            change(move |s| s.payload = longer.clone()),
            change(move |s| s.payload = longest.clone()),
        ),
        (
            "command: no NUL",
            change(move |s| s.payload = word("a\0")),
            change(move |s| s.payload = word("a\n")),
        ),
        (
            "variable A: no NUL",
            change(|s| s.environment = vec![variable("A", "a\0b")]),
            change(|s| s.environment = vec![variable("A", "a\nb")]),
        ),
    ]);
}

#[test]
fn names_are_given_once() {
    check_invalid(vec![
        (
            "environment variable A: given twice",
            change(|s| s.environment = vec![variable("A", "1"), variable("A", "2")]),
            change(|s| s.environment = vec![variable("A", "1"), variable("a", "2")]),
        ),
        (
            "credential c1: given twice",
            change(files(|f| f.credentials = each(2, |_| credential(1, 1)))),
            change(files(|f| f.credentials = each(2, |n| credential(n, 1)))),
        ),
        (
            "label L1: given twice",
            change(|s| s.labels = each(2, |_| label(1))),
            change(|s| s.labels = each(2, label)),
        ),
        (
            "sysctl net.x1: given twice",
            change(isolation(|i| i.sysctls = each(2, |_| sysctl(1)))),
            change(isolation(|i| i.sysctls = each(2, sysctl))),
        ),
        (
            "process limit CPU: given twice",
            change(isolation(|i| i.limits = each(2, |_| limit(LimitName::Cpu)))),
            change(isolation(|i| i.limits = vec![limit(LimitName::Cpu), limit(LimitName::Core)])),
        ),
    ]);
}

/// No value of the job may reach the text of a refusal.
#[test]
fn refusals_hold_no_secret() {
    let secret = "hunter2".repeat(20_000);
    let denial = judged("", |s| s.environment = vec![variable("TOKEN", &secret)]).unwrap_err();
    let text = denial.refusal.to_string();
    assert!(text.contains("TOKEN") && !text.contains("hunter2"));
}
