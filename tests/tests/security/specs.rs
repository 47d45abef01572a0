//! Specifications that ask for what no policy allows or no kernel takes, and names that try to
//! become something else on their way into paths, units and logs.

use crate::bare;
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Door, Handmade};
use proto::codec;
use proto::error::{Code, Refusal};
use proto::limits::{ARGUMENTS_MAX, VARIABLE_MAX, VARIABLES_MAX};
use proto::name::{ImageName, TaskName, VariableName};
use proto::path::Absolute;
use proto::secret::Secret;
use proto::target::Target;
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, CredentialName, Mapping, Overlay, Source, Upper,
};
use proto::task_spec::{Image, Network, Payload, Root, RootFs, TaskSpec, Users, Variable};
use proto::wire::{Answer, Page, Signal, State, Verb};

const OTHER: &str = "0e8b1c2d-1111-2222-3333-444455556666";
/// In every hostile name; must not show up in any unit.
const MARKER: &str = "PWNED";

fn path(text: &str) -> Absolute {
    Absolute::parse(text).unwrap()
}

fn variable(name: &str, value: &str) -> Variable {
    Variable { name: VariableName::new(name).unwrap(), value: Secret::new(value) }
}

fn command(words: Vec<Secret>) -> Payload {
    Payload::Command { words }
}

/// A change of a good specification, the code of the refusal, and words of its text.
type Case = (Box<dyn Fn(&mut TaskSpec)>, Code, &'static str);

fn case(change: impl Fn(&mut TaskSpec) + 'static, code: Code, words: &'static str) -> Case {
    (Box::new(change), code, words)
}

fn places() -> Vec<Case> {
    let alloc_dir = |text: &'static str| move |spec: &mut TaskSpec| spec.alloc_dir = path(text);
    let image =
        |text: &'static str| move |spec: &mut TaskSpec| spec.image = Image::Path(path(text));
    let join = |text: &'static str| {
        move |spec: &mut TaskSpec| {
            spec.network = Network::Join(path(&text.replace("OWN", &spec.key.alloc.to_string())));
        }
    };
    let directory = "last component must be the allocation's id";
    let below = "lies below no directory of";
    let netns = "not the one that Nomad made for this allocation";
    vec![
        case(
            |s| s.alloc_dir = path(&format!("/var/lib/nomad/alloc/{OTHER}")),
            Code::Policy,
            directory,
        ),
        case(alloc_dir("/var/lib/nomad/alloc"), Code::Policy, directory),
        case(alloc_dir("/etc"), Code::Policy, below),
        case(alloc_dir("/var/lib/nomad/alloc2"), Code::Policy, below),
        case(
            |s| s.alloc_dir = path(&format!("/var/lib/nomad/alloc/x/{}", s.key.alloc)),
            Code::Policy,
            directory,
        ),
        case(|s| s.alloc_dir = path(&format!("/tmp/{}", s.key.alloc)), Code::Policy, below),
        case(image("/etc"), Code::Policy, "[images] paths"),
        case(image("/"), Code::Policy, "[images] paths"),
        case(image("/var/lib/machines"), Code::Policy, "[images] paths"),
        case(image("/var/lib/machines2/x"), Code::Policy, "[images] paths"),
        case(image("/var/lib/machines/absent"), Code::Invalid, "does not exist on this host"),
        case(image("/var/lib/machines/link"), Code::Invalid, "symbolic link"),
        case(image("/var/lib/machines/link/busybox"), Code::Invalid, "symbolic link"),
        case(
            |s| s.image = Image::Named(ImageName::new("link").unwrap()),
            Code::Invalid,
            "symbolic link",
        ),
        case(join("/run/netns/0e8b1c2d-1111-2222-3333-444455556666"), Code::Policy, netns),
        case(join("/run/netns"), Code::Policy, netns),
        case(join("/run/netns/OWN/x"), Code::Policy, netns),
        case(join("/var/run/netns/other"), Code::Policy, netns),
        case(join("/proc/1/ns/net"), Code::Policy, below),
        case(join("/run/netns/OWN"), Code::Failed, "network-namespace"),
        case(|s| s.network = Network::Host, Code::Policy, "\"host\" added to [network] allow"),
        case(|s| s.users = Users::Host, Code::Policy, "[userns] require = false"),
    ]
}

/// What of its own allocation and of other directories no task gets, although its driver asks for
/// it.
fn kept() -> Vec<Case> {
    let below = |text: &str| path(text).below(&path("/")).unwrap();
    let credential = move |text: &'static str| {
        move |spec: &mut TaskSpec| {
            let content = CredentialContent::File(below(text));
            let name = CredentialName::new("token").unwrap();
            spec.files.credentials = vec![Credential { name, content, encrypted: false }];
        }
    };
    let shared = |text: &'static str| {
        move |spec: &mut TaskSpec| {
            let source = Source::Host(path(&format!("{}/{text}", spec.alloc_dir)));
            spec.files.binds = vec![Bind {
                source,
                target: Target::parse("/mnt/x").unwrap(),
                read_only: false,
                recursive: true,
                mapping: Mapping::Automatic,
                propagated: false,
            }];
        }
    };
    let deep = move |spec: &mut TaskSpec| {
        let lower = vec![Source::Task(below(&"/local".repeat(62))); 18];
        let overlay = |n| Overlay {
            lower: lower.clone(),
            upper: Upper::Ephemeral,
            target: Target::parse(&format!("/mnt/{n}")).unwrap(),
        };
        spec.files.overlays = (0..16).map(overlay).collect();
    };
    vec![
        case(credential("/private/vault_token"), Code::Policy, "own secrets and local directories"),
        case(credential("/tmp/x"), Code::Policy, "own secrets and local directories"),
        case(shared("alloc"), Code::Policy, "a directory such as alloc/data"),
        case(shared("alloc/logs"), Code::Policy, "a directory such as alloc/data"),
        case(deep, Code::Invalid, "at most 16384"),
    ]
}

fn values() -> Vec<Case> {
    let signal = |n| move |spec: &mut TaskSpec| spec.stop_signal = Some(n);
    let many = || (0..=VARIABLES_MAX).map(|n| variable(&format!("V{n}"), "")).collect::<Vec<_>>();
    let long = || "x".repeat(VARIABLE_MAX);
    let words = |word: &str, count| command(vec![Secret::new(word); count]);
    let twice = || vec![variable("A", "1"), variable("A", "2")];
    vec![
        case(signal(0), Code::Invalid, "1 to 31 and 34 to 64"),
        case(signal(33), Code::Invalid, "1 to 31 and 34 to 64"),
        case(signal(65), Code::Invalid, "1 to 31 and 34 to 64"),
        case(|s| s.resources.memory_max = Some(0), Code::Invalid, "memory limit 0"),
        case(|s| s.resources.memory_low = Some(u64::MAX), Code::Invalid, "memory reservation"),
        case(|s| s.resources.cpu_weight = Some(0), Code::Invalid, "cpu weight 0"),
        case(|s| s.resources.cpu_weight = Some(10_001), Code::Invalid, "cpu weight 10001"),
        case(|s| s.resources.tasks_max = Some(0), Code::Invalid, "task limit 0"),
        case(move |s| s.environment = twice(), Code::Invalid, "given twice"),
        case(move |s| s.environment = many(), Code::Invalid, "variables: 4097, but at most 4096"),
        case(|s| s.environment = vec![variable("A", "x\0y")], Code::Invalid, "no NUL byte"),
        case(
            move |s| s.environment = vec![variable("A", &long())],
            Code::Invalid,
            "at most 131,071 bytes",
        ),
        case(move |s| s.payload = words("a\0b", 1), Code::Invalid, "no NUL byte"),
        case(
            move |s| s.payload = words("x", ARGUMENTS_MAX + 1),
            Code::Invalid,
            "words of the command: 4097, but at most 4096",
        ),
        case(move |s| s.payload = words(&"x".repeat(131_072), 1), Code::Invalid, "131,071 bytes"),
        case(
            |s| s.environment = vec![variable("ODD", "x\u{fffe}")],
            Code::Invalid,
            "variable ODD: holds a Unicode noncharacter",
        ),
    ]
}

fn refused(client: &Client, whole: &[u8], what: &str) -> Refusal {
    match client.start_bytes(whole).unwrap() {
        Err(refusal) => refusal,
        Ok(answer) => panic!("{what}: {answer:?}"),
    }
}

fn nothing_runs(rig: &Rig, client: &Client) {
    let page = client.ask(Verb::List(None)).unwrap();
    assert_eq!(page, Ok(Answer::Page(Page { keys: vec![], more: false })));
    let units = rig.sh("systemctl list-units --all --plain --no-legend 'nomad-nspawn-*-*'");
    assert_eq!(units.unwrap(), "");
    let found = rig.exec(&["grep", "-rlE", MARKER, "/run/systemd/transient"]).unwrap();
    assert_eq!(found.text(), "");
}

#[test]
fn what_the_policy_does_not_allow_is_refused_by_rule() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let client = door.enter().unwrap();
    rig.run(&["ln", "-s", "/", "/var/lib/machines/link"]).unwrap();
    let task = Handmade::new(rig, "judged").unwrap();
    for (n, (change, code, words)) in places().into_iter().chain(kept()).chain(values()).enumerate()
    {
        let mut spec = task.spec(&["true"]).unwrap();
        change(&mut spec);
        let whole = codec::encode_whole(&spec).unwrap();
        let refusal = refused(&client, &whole, &format!("case {n}, {words}"));
        let text = refusal.to_string();
        assert!(refusal.code == code && text.contains(words), "case {n}: {refusal:?}");
    }
    rig.run(&["rm", "/var/lib/machines/link"]).unwrap();
    nothing_runs(rig, &client);
    task.remove(&client).unwrap();
}

/// Replaces one encoded text by any bytes, its length with it.
fn swap(whole: &[u8], old: &str, new: &[u8]) -> Vec<u8> {
    let coded = |text: &[u8]| [&u64::try_from(text.len()).unwrap().to_le_bytes(), text].concat();
    let old = coded(old.as_bytes());
    let at = whole.windows(old.len()).position(|window| window == old).unwrap();
    [&whole[..at], &coded(new), &whole[at + old.len()..]].concat()
}

/// No text of a specification may hold these.
fn bad_texts() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = ["", ".", "..", "a/b", "/", "../../etc"].map(Vec::from).to_vec();
    for control in (0_u8..0x20).chain([0x7f]) {
        all.push([MARKER.as_bytes(), &[control], b"ExecStartPost=/bin/touch /PWNED"].concat());
    }
    // A control character of two bytes, a lone continuation byte, an overlong slash.
    all.push(format!("{MARKER}\u{85}x").into_bytes());
    all.push(b"PWNED\xff".to_vec());
    all.push(b"PWNED\xc0\xaf".to_vec());
    all.push(vec![b'x'; 300]);
    all
}

#[test]
fn p01_p14_p34_no_text_can_climb_or_break_a_line() {
    let (_turn, rig) = bare();
    let door = Door::of(rig).unwrap();
    let task = Handmade::new(rig, "placeholder-task").unwrap();
    let mut spec = task.spec(&["true"]).unwrap();
    spec.environment = vec![variable("PLACEHOLDER", "x")];
    spec.image = Image::Path(path("/var/lib/machines/placeholder-image"));
    spec.network = Network::Join(path("/run/netns/placeholder-netns"));
    let by_path = codec::encode_whole(&spec).unwrap();
    spec.image = Image::Named(ImageName::new("placeholder-name").unwrap());
    let by_name = codec::encode_whole(&spec).unwrap();
    let alloc = task.key.alloc.to_string();
    let fields = [
        (&by_path, "placeholder-task"),
        (&by_path, alloc.as_str()),
        (&by_path, "placeholder-image"),
        (&by_path, "placeholder-netns"),
        (&by_path, "PLACEHOLDER"),
        (&by_name, "placeholder-name"),
    ];
    let mut tried = 0;
    for (whole, field) in fields {
        for text in bad_texts() {
            let client = door.enter().unwrap();
            let shown = String::from_utf8_lossy(&text);
            let what = format!("{field} as {shown:?}");
            let refusal = refused(&client, &swap(whole, field, &text), &what);
            assert_eq!(refusal.code, Code::Protocol, "{what}: {refusal}");
            assert!(!refusal.to_string().contains(char::is_control), "{what}: {refusal:?}");
            tried += 1;
        }
    }
    for name in ["A=B", "A B", "1A", "A-B", "A.B", "A%n", "A\"B"] {
        let client = door.enter().unwrap();
        let whole = swap(&by_path, "PLACEHOLDER", name.as_bytes());
        assert_eq!(refused(&client, &whole, name).code, Code::Protocol, "{name}");
    }
    println!("{tried} hostile texts refused");
    let client = door.enter().unwrap();
    nothing_runs(rig, &client);
    assert!(!rig.exists("/PWNED"));
    task.remove(&client).unwrap();
}

#[test]
fn p14_p15_an_odd_task_name_stays_text_in_the_unit() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let name = "q\"uo'te %n %% $X ${Y} \\ ; # é = [x] done";
    let task = Handmade::new(rig, name).unwrap();
    let answer = client.start(&task.spec(&["/bin/sleep", "600"]).unwrap()).unwrap();
    let Ok(Answer::Started(started)) = answer else { panic!("{answer:?}") };
    let unit = rig.read_file(&format!("/run/systemd/transient/{}", started.unit)).unwrap();
    let unit = String::from_utf8(unit).unwrap();
    assert!(unit.contains("LogExtraFields"), "{unit}");
    for odd in ["uo'te", "%n", "$X", "${Y}", "[x]", "é", "; #"] {
        assert!(!unit.contains(odd), "{odd} in {unit}");
    }
    // PID 1 reads it back as one field.
    let fields = rig.run(&["systemctl", "show", "-P", "LogExtraFields", &started.unit]).unwrap();
    assert_eq!(fields.matches("NOMAD_TASK_NAME=").count(), 1, "{fields}");
    task.remove(&client).unwrap();
    nothing_runs(rig, &client);
}

#[test]
fn a_tree_has_one_writer_whatever_part_of_it_is_named() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    rig.sh("cp -a /var/lib/machines/busybox /var/lib/machines/writable").unwrap();
    rig.sh("cp -a /var/lib/machines/busybox /var/lib/machines/writable/inner").unwrap();
    let [outer, inner] = ["writable", "writable/inner"].map(|name| {
        let task = Handmade::new(rig, "writer").unwrap();
        let mut spec = task.spec(&["/bin/sleep", "600"]).unwrap();
        spec.root = RootFs::tree(Root::Plain);
        spec.image = Image::Path(path(&format!("/var/lib/machines/{name}")));
        (task, spec)
    });
    for ((first, holds), (_, asks)) in [(&outer, &inner), (&inner, &outer)] {
        let started = client.start(holds).unwrap();
        assert!(matches!(started, Ok(Answer::Started(_))), "{started:?}");
        let refusal = client.start(asks).unwrap().unwrap_err();
        assert!(refusal.code == Code::Busy && refusal.reason.contains("writes to it"), "{refusal}");
        let remove = Verb::Remove(first.key.clone());
        assert_eq!(client.ask(remove).unwrap(), Ok(Answer::Removed));
    }
    outer.0.remove(&client).unwrap();
    inner.0.remove(&client).unwrap();
    rig.run(&["rm", "-r", "/var/lib/machines/writable"]).unwrap();
}

#[test]
fn p16_another_tasks_name_reaches_nothing() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let task = Handmade::new(rig, "victim").unwrap();
    let spec = task.spec(&["/bin/sleep", "600"]).unwrap();
    let Ok(Answer::Started(before)) = client.start(&spec).unwrap() else { panic!("no start") };
    let mut key = task.key.clone();
    key.task = TaskName::new("other").unwrap();
    let ask = |verb| client.ask(verb).unwrap();
    assert_eq!(ask(Verb::Remove(key.clone())), Ok(Answer::Removed));
    let refusals = [
        ask(Verb::Kill(key.clone())).unwrap_err(),
        ask(Verb::Signal(Signal { key: key.clone(), signal: 9 })).unwrap_err(),
        ask(Verb::Status(key.clone())).unwrap_err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.code, Code::Unknown, "{refusal}");
    }
    let mut second = spec.clone();
    second.key = key;
    let refusal = client.start(&second).unwrap().unwrap_err();
    assert!(refusal.code == Code::Busy && refusal.reason.contains("remove it first"), "{refusal}");
    let refusal = client.start(&spec).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    let Ok(Answer::Status(now)) = ask(Verb::Status(task.key.clone())) else { panic!("no status") };
    assert_eq!((now.state, now.leader), (State::Running, before.leader));
    let exists = rig.exists(&format!("/proc/{}/status", before.leader.unwrap()));
    assert!(exists, "the victim is gone");
    task.remove(&client).unwrap();
    nothing_runs(rig, &client);
}
