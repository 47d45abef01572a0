//! System call filters of payloads: each kind of task has systemd-nspawn's, and one that has none
//! is refused and killed, also when the helper dies in between.
//!
//! Systemd 258 and newer start a payload without filters when they cannot load libseccomp. Older
//! ones are linked to it; here a library that the host preloads brings them to do the same.

use crate::task;
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::product::Variant;
use nspawn_tests::{Config, Rig, outer, wait};
use proto::error::Code;
use proto::name::{ImageName, Instance};
use proto::secret::Secret;
use proto::task_spec::process::{SyscallName, SyscallRule, User};
use proto::task_spec::{Image, Payload, TaskSpec, Users};
use proto::wire::{Answer, Verb};
use std::process::Command;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
/// As long as it is there, systemd-nspawn installs no filters.
const UNFILTERED: &str = "/run/unfiltered";
/// As long as it is there, no program loads libseccomp by itself.
const MISSING: &str = "/run/no-libseccomp";

const PRELOADED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void unfilter(void) {
    if (!strcmp(program_invocation_short_name, "systemd-nspawn") && !access("/run/unfiltered", F_OK))
        setenv("SYSTEMD_SECCOMP", "0", 1);
}
void *dlopen(const char *name, int flags) {
    if (name && !strcmp(name, "libseccomp.so.2") && !access("/run/no-libseccomp", F_OK))
        return NULL;
    return ((void *(*)(const char *, int)) dlsym(RTLD_NEXT, "dlopen"))(name, flags);
}
"#;

fn rig() -> Rig {
    let config =
        Config { product: Some(Variant::StepHook), agent: false, ..Config::from_env().unwrap() };
    let rig = Rig::up(&config).unwrap();
    rig.set_policy("preset = \"compat\"\n").unwrap();
    task::allow_hooks(&rig);
    let directory = std::env::temp_dir().join(format!("nspawn-filters-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("it.c"), PRELOADED).unwrap();
    let built = directory.join("it.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&built).arg(directory.join("it.c")).arg("-ldl");
    outer::run(&mut cc).unwrap();
    rig.copy_in(&built, "/usr/local/lib/nspawn-filters.so", 0o755).unwrap();
    rig.write_file("/etc/ld.so.preload", "/usr/local/lib/nspawn-filters.so\n", 0o644).unwrap();
    std::fs::remove_dir_all(directory).unwrap();
    rig
}

type Change = fn(&mut TaskSpec);

fn debian(spec: &mut TaskSpec) {
    spec.image = Image::Named(ImageName::new("debian").unwrap());
}

fn stub(spec: &mut TaskSpec) {
    if let Payload::Command { words } = &spec.payload {
        spec.payload = Payload::ProcessTwo { words: words.clone() };
    }
}

fn user(spec: &mut TaskSpec) {
    debian(spec);
    spec.process.user = Some(User::parse("daemon").unwrap());
}

fn rule(spec: &mut TaskSpec, allow: bool, name: &str) {
    spec.isolation.syscalls.push(SyscallRule { allow, name: SyscallName::new(name).unwrap() });
}

/// Whatever decides how systemd-nspawn comes to its payload.
const KINDS: [(&str, Change); 11] = [
    ("command", |_| ()),
    ("process two", stub),
    ("boot", |spec| {
        debian(spec);
        spec.payload = Payload::Boot { arguments: vec![] };
    }),
    ("user", user),
    ("user, process two", |spec| {
        user(spec);
        stub(spec);
    }),
    ("no new privileges", |spec| spec.isolation.no_new_privileges = true),
    ("user, no new privileges", |spec| {
        user(spec);
        spec.isolation.no_new_privileges = true;
    }),
    ("calls taken out", |spec| rule(spec, false, "@mount")),
    ("calls added", |spec| rule(spec, true, "@keyring")),
    ("no user namespace", |spec| spec.users = Users::Host),
    ("no user namespace, process two", |spec| {
        spec.users = Users::Host;
        stub(spec);
    }),
];

const WORDS: [&str; 2] = ["/bin/sleep", "424242"];

fn enter(rig: &Rig) -> Client {
    Door::of(rig).unwrap().enter().unwrap()
}

fn remove(client: &Client, spec: &TaskSpec) {
    assert_eq!(client.ask(Verb::Remove(spec.key.clone())).unwrap(), Ok(Answer::Removed));
}

fn filters(rig: &Rig, pid: &str) -> u32 {
    let line = rig.run(&["grep", "Seccomp_filters", &format!("/proc/{pid}/status")]).unwrap();
    line.trim_start_matches("Seccomp_filters:").trim().parse().unwrap()
}

fn is_gone(rig: &Rig, unit: &str) -> bool {
    let state = rig.run(&["systemctl", "show", "-P", "LoadState", unit]).unwrap();
    state == "not-found" && !rig.exec(&["pgrep", "-f", "sleep 424242"]).unwrap().success()
}

#[test]
fn a_payload_without_filters_is_killed_and_refused_with_the_package() {
    let rig = rig();
    let client = enter(&rig);
    let task = Handmade::new(&rig, "filtered").unwrap();
    let unit = |spec: &TaskSpec| {
        format!("nomad-nspawn-{}-{}.service", spec.key.alloc.simple(), spec.key.instance)
    };
    let mut instance = 0;
    let mut spec_of = |change: Change, words: &[&str]| {
        let mut spec = task.spec(words).unwrap();
        instance += 1;
        spec.key.instance = Instance(instance);
        change(&mut spec);
        spec
    };
    for (kind, change) in KINDS {
        let spec = spec_of(change, &WORDS);
        let answer = client.start(&spec).unwrap();
        let Ok(Answer::Started(started)) = answer else { panic!("{kind}: {answer:?}") };
        // Whether they are systemd-nspawn's or the cache's.
        let leader = started.leader.unwrap().to_string();
        let (host, all) = (filters(&rig, "1"), filters(&rig, &leader));
        outer::tell(&format!("{}: {kind}: {host} and {}", rig.suite().name(), all - host));
        assert_eq!(all, host + 5, "{kind}");
        remove(&client, &spec);
        // Over before anybody could look.
        if !matches!(spec.payload, Payload::Boot { .. }) {
            for _ in 0..5 {
                let spec = spec_of(change, &["/bin/true"]);
                let answer = client.start(&spec).unwrap();
                assert!(answer.is_ok(), "{kind}: {answer:?}");
                remove(&client, &spec);
            }
        }
    }

    rig.write_file(UNFILTERED, "", 0o644).unwrap();
    // With filters of the cache nothing depends on systemd-nspawn.
    let spec = spec_of(|_| (), &WORDS);
    let Ok(Answer::Started(started)) = client.start(&spec).unwrap() else { panic!("refused") };
    let all = filters(&rig, &started.leader.unwrap().to_string());
    assert_eq!(all, filters(&rig, "1") + 5);
    remove(&client, &spec);

    rig.set_policy("preset = \"compat\"\n[seccomp]\ncache = false\n").unwrap();
    for (kind, change) in KINDS {
        let spec = spec_of(change, &WORDS);
        let answer = client.start(&spec).unwrap();
        let Err(refusal) = answer else { panic!("{kind}: {answer:?}") };
        let text = refusal.to_string();
        assert_eq!(
            (refusal.code, refusal.step.as_str()),
            (Code::Failed, "leader"),
            "{kind}: {text}"
        );
        assert!(text.contains("apt install libseccomp2"), "{kind}: {text}");
        assert!(is_gone(&rig, &unit(&spec)), "{kind}: its payload runs on");
    }

    // The helper dies between "go" and its look; the next one finds a payload that runs.
    let spec = spec_of(|_| (), &WORDS);
    rig.write_file(&format!("{}/leader.before", task::HOOKS), "self", 0o600).unwrap();
    assert!(client.start(&spec).is_err(), "the helper was to die");
    wait::true_within("the payload's end", SOON, || Ok(is_gone(&rig, &unit(&spec)))).unwrap();
    let journal = rig.journal("nomad-nspawn-helper.service").unwrap();
    let said = journal
        .lines()
        .any(|line| line.contains("not found running") && line.contains("libseccomp2"));
    assert!(said, "{journal}");
    rig.run(&["rm", UNFILTERED]).unwrap();

    // Where the library is missing, nothing is executed at all.
    let client = enter(&rig);
    rig.write_file(MISSING, "", 0o644).unwrap();
    let mut spec = spec_of(|_| (), &WORDS);
    spec.payload = Payload::Command { words: WORDS.iter().map(|w| Secret::new(*w)).collect() };
    let refusal = client.start(&spec).unwrap().unwrap_err();
    let text = refusal.to_string();
    assert_eq!((refusal.code, refusal.step.as_str()), (Code::Invalid, "settings"), "{text}");
    assert!(text.contains("apt install libseccomp2"), "{text}");
    rig.run(&["rm", MISSING]).unwrap();
    task.remove(&client).unwrap();
    rig.down().unwrap();
}
