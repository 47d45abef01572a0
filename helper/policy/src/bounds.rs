//! How many, and how long: bounds of lists and texts.
//! They hold under every policy, and before anything else looks at the lists.

use std::collections::HashSet;

use proto::limits::{
    ARGUMENT_MAX, ARGUMENTS_MAX, CREDENTIAL_MAX, ETC_FILE_MAX, LABELS_BYTES_MAX, LABELS_MAX,
    LAYERS_MAX, MOUNTS_MAX, PATHS_MAX, RULES_MAX, VARIABLE_MAX, VARIABLES_MAX,
};
use proto::task_spec::files::{CredentialContent, Source, Upper};
use proto::task_spec::output::Label;
use proto::task_spec::{Payload, TaskSpec};

use super::{Denial, invalid, targets};

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    check_command(spec)?;
    check_environment(spec)?;
    let (files, isolation, names) = (&spec.files, &spec.isolation, &spec.names);
    at_most(files.binds.len(), MOUNTS_MAX, "binds")?;
    at_most(files.tmpfs.len(), MOUNTS_MAX, "tmpfs mounts")?;
    at_most(files.overlays.len(), MOUNTS_MAX, "overlays")?;
    at_most(files.inaccessible.len(), MOUNTS_MAX, "inaccessible paths")?;
    at_most(files.devices.len(), MOUNTS_MAX, "devices")?;
    at_most(files.credentials.len(), MOUNTS_MAX, "credentials")?;
    at_most(isolation.syscalls.len(), RULES_MAX, "system call rules")?;
    at_most(isolation.sysctls.len(), RULES_MAX, "sysctls")?;
    at_most(isolation.limits.len(), RULES_MAX, "process limits")?;
    at_most(names.resolver.content().len(), ETC_FILE_MAX, "bytes of /etc/resolv.conf")?;
    at_most(names.hosts.len(), ETC_FILE_MAX, "bytes of /etc/hosts")?;
    at_most(names.localtime.content().len(), ETC_FILE_MAX, "bytes of /etc/localtime")?;
    at_most(spec.labels.len(), LABELS_MAX, "labels")?;
    let bytes = spec.labels.iter().map(Label::bytes).sum();
    at_most(bytes, LABELS_BYTES_MAX, "bytes of all labels")?;
    for overlay in &files.overlays {
        let object = format!("lower layers of the overlay at {}", overlay.target);
        if overlay.lower.is_empty() {
            return Err(invalid("count", object, "at least 1"));
        }
        at_most(overlay.lower.len(), LAYERS_MAX, &object)?;
    }
    at_most(components(spec), PATHS_MAX, "path components of mounts, devices and credentials")?;
    for credential in &files.credentials {
        if let CredentialContent::Value(value) = &credential.content
            && value.reveal().len() > CREDENTIAL_MAX
        {
            let reason = "at most 1 MiB";
            return Err(invalid("text", format!("credential {}", credential.name), reason));
        }
    }
    once("credential", files.credentials.iter().map(|it| it.name.as_str()))?;
    once("label", spec.labels.iter().map(|it| it.name.as_str()))?;
    once("sysctl", isolation.sysctls.iter().map(|it| it.name.as_str()))?;
    once("process limit", isolation.limits.iter().map(|it| it.resource.name()))
}

/// Components of all paths of mounts, devices and credentials.
fn components(spec: &TaskSpec) -> usize {
    let files = &spec.files;
    let source = |it: &Source| match it {
        Source::Host(path) => path.components().len(),
        Source::Task(path) => path.components().len(),
    };
    let upper = |it: &Upper| if let Upper::Folder(it) = it { source(it) } else { 0 };
    let content = |it: &CredentialContent| match it {
        CredentialContent::File(path) => path.components().len(),
        CredentialContent::Value(_) => 0,
    };
    let binds = files.binds.iter().map(|it| source(&it.source));
    let overlays = files
        .overlays
        .iter()
        .map(|it| it.lower.iter().map(source).sum::<usize>() + upper(&it.upper));
    let credentials = files.credentials.iter().map(|it| content(&it.content));
    let devices = files.devices.iter().map(|it| it.host.components().len());
    let targets = targets::all(spec).map(|it| it.path().components().len());
    binds.chain(overlays).chain(credentials).chain(devices).chain(targets).sum()
}

fn at_most(count: usize, most: usize, what: &str) -> Result<(), Denial> {
    if count > most {
        return Err(invalid("count", what, format!("{count}, but at most {most}")));
    }
    Ok(())
}

fn once<'a>(what: &str, mut names: impl Iterator<Item = &'a str>) -> Result<(), Denial> {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(*name)) {
        Some(name) => Err(invalid("twice", format!("{what} {name}"), "given twice")),
        None => Ok(()),
    }
}

fn check_command(spec: &TaskSpec) -> Result<(), Denial> {
    let words = match &spec.payload {
        Payload::Boot { arguments: words }
        | Payload::Command { words }
        | Payload::ProcessTwo { words } => words,
    };
    at_most(words.len(), ARGUMENTS_MAX, "words of the command")?;
    if words.iter().any(|word| word.reveal().len() > ARGUMENT_MAX) {
        return Err(invalid("text", "command", "at most 131,071 bytes a word (execve(2))"));
    }
    if words.iter().any(|word| word.reveal().contains('\0')) {
        return Err(invalid("text", "command", "no NUL byte"));
    }
    Ok(())
}

fn check_environment(spec: &TaskSpec) -> Result<(), Denial> {
    at_most(spec.environment.len(), VARIABLES_MAX, "variables")?;
    for variable in &spec.environment {
        let (name, value) = (variable.name.as_str(), variable.value.reveal());
        let bad = |rule| Err(invalid("text", format!("environment variable {name}"), rule));
        if name.len() + 1 + value.len() > VARIABLE_MAX {
            return bad("at most 131,071 bytes with its name (execve(2))");
        }
        if value.contains('\0') {
            return bad("no NUL byte");
        }
    }
    once("environment variable", spec.environment.iter().map(|it| it.name.as_str()))
}

#[cfg(test)]
mod tests {
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
                s.isolation.syscalls =
                    each(n, |_| SyscallRule { allow: false, name: name.clone() });
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
                s.labels =
                    each(30, |n| Label { name: name(format!("L{n:02}")), value: value(127) });
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
                let (upper, lower) = (Upper::Folder(Source::Task(own(n - 3))), layers(1).lower);
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
                change(isolation(|i| {
                    i.limits = vec![limit(LimitName::Cpu), limit(LimitName::Core)]
                })),
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
}
