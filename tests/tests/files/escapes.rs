//! Ways out that an audit found: each is tried as its attacker would, and the host is looked at
//! after.

use crate::{at, bind, host, path, read_only, relative};
use nspawn_tests::hostile::{Door, Handmade};
use nspawn_tests::product::Variant;
use nspawn_tests::{Config, Rig, wait};
use proto::codec;
use proto::error::Refusal;
use proto::name::ImageName;
use proto::task_spec::files::{
    Bind, Credential, CredentialContent, CredentialName, Files, Overlay, Source, Upper,
};
use proto::task_spec::{Image, Layer, Pivot, Root, RootFs, Volatile};
use proto::unit_id::UnitId;
use proto::wire::Answer;
use std::time::Duration;

fn named(name: &str) -> Image {
    Image::Named(ImageName::new(name).unwrap())
}

/// systemd-nspawn, still host root, writes two files below /run/host by path after its mounts: with
/// the image's own top there, the image's links would choose the files.
#[test]
fn s1_a_pivot_never_leads_host_root_over_links_of_the_image() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/s1; cd /var/lib/machines; cp -a busybox s1; cd s1; mkdir new; \
         cp -a bin sbin usr lib etc new; ln -s /srv/s1/victim container-manager; \
         ln -s /srv/s1/made container-uuid")
        .unwrap();
    // A driver that checks nothing; what the types cannot hold is written into the bytes.
    let start = |mode: Root, old: &str| -> Result<(), Refusal> {
        rig.write_file("/srv/s1/victim", "of the host\n", 0o600).unwrap();
        let task = Handmade::new(rig, "t").unwrap();
        let client = Door::of(rig).unwrap().enter().unwrap();
        let mut spec = task.spec(&["/bin/true"]).unwrap();
        spec.image = named("s1");
        let placeholder = "/old/placeholder";
        let pivot = Pivot { new: path("/new"), old: Some(at(placeholder)) };
        spec.root = RootFs { pivot: Some(pivot), ..RootFs::tree(mode) };
        let bytes = codec::encode_whole(&spec).unwrap();
        let [from, to] = [placeholder, old].map(|text| codec::encode(&path(text)).unwrap());
        let at = bytes.windows(from.len()).position(|some| some == from).unwrap();
        let bytes = [&bytes[..at], &to, &bytes[at + from.len()..]].concat();
        let answer = client.start_bytes(&bytes).unwrap();
        if answer.is_ok() {
            task.wait_ended(&client).unwrap();
        }
        // The helper hangs up on whoever sends what cannot be decoded.
        task.remove(&Door::of(rig).unwrap().enter().unwrap()).unwrap();
        answer.map(drop)
    };
    for mode in [Root::Plain, Root::Ephemeral(Layer::Disk)] {
        let refused = start(mode, "/run/host");
        let victim = rig.run(&["cat", "/srv/s1/victim"]).unwrap();
        assert_eq!(victim, "of the host", "{mode:?}: {refused:?}");
        assert!(!rig.exists("/srv/s1/made"), "{mode:?}");
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("/run/host"), "{text}");
        for old in ["/run/host/x", "/run", "/proc/x", "/dev", "/alloc"] {
            start(mode, old).unwrap_err();
        }
        start(mode, "/old/root").unwrap();
    }
}

/// Nomad builds the root of an exec task of hard links: its /etc/crontab is the host's own file.
fn linked(rig: &Rig) -> Handmade<'_> {
    rig.write_file("/var/lib/nomad/crontab", "of the host\n", 0o600).unwrap();
    let made = Handmade::new(rig, "t").unwrap();
    let script = "set -e; mkdir -p \"$0/job/etc\" \"$0/job/local\" \"$0/alloc/data\"; \
                  for at in job/etc t/local alloc/data; do ln /var/lib/nomad/crontab \"$0/$at\"; done";
    rig.run(&["sh", "-c", script, &made.dir()]).unwrap();
    made
}

/// Starts a task with these files, which depend on the allocation, and looks at the host's file.
fn try_linked(
    rig: &Rig,
    files: impl FnOnce(&str) -> Files,
    image: Option<&str>,
) -> Result<String, Refusal> {
    let made = linked(rig);
    let client = Door::of(rig).unwrap().enter().unwrap();
    let script = "for f in /m /m/crontab; do cat $f && echo owned >$f; done 2>/dev/null; exit 0";
    let mut spec = made.spec(&["/bin/sh", "-c", script]).unwrap();
    spec.files = files(&made.dir());
    if let Some(below) = image {
        spec.image = Image::Path(path(&format!("{}/{below}", made.dir())));
    }
    let said = client.start(&spec).unwrap().map(|answer| {
        assert!(matches!(answer, Answer::Started(_)));
        made.wait_ended(&client).unwrap();
        String::from_utf8(made.written(0).unwrap()).unwrap()
    });
    made.remove(&client).unwrap();
    let victim = rig.run(&["cat", "/var/lib/nomad/crontab"]).unwrap();
    assert_eq!(victim, "of the host", "the task said {said:?}");
    said
}

#[test]
fn s2_hard_links_of_the_host_in_another_tasks_root_are_out_of_reach() {
    let rig = host();
    let binds = |one: Bind| Files { binds: vec![one], ..Files::default() };
    let overlay = |lower: &str, upper: Option<&str>| {
        let host = |text: &str| Source::Host(path(text));
        let upper = upper.map_or(Upper::Ephemeral, |text| Upper::Directory(host(text)));
        let (lower, target) = (vec![host(lower)], at("/m"));
        Files { overlays: vec![Overlay { lower, upper, target }], ..Files::default() }
    };
    let place = |refused: Result<String, Refusal>| {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("decide") && text.contains("[nomad] alloc_dirs"), "{text}");
    };
    for below in ["job/etc/crontab", "job/etc", "job"] {
        place(try_linked(rig, |dir| binds(bind(&format!("{dir}/{below}"), "/m")), None));
        place(try_linked(rig, |dir| binds(read_only(&format!("{dir}/{below}"), "/m")), None));
        place(try_linked(rig, |dir| overlay(&format!("{dir}/{below}"), None), None));
        let own = |dir: &str| format!("{dir}/alloc/data");
        place(try_linked(rig, |dir| overlay(&own(dir), Some(&format!("{dir}/{below}"))), None));
    }
    let credential = |below: &str| {
        let content = CredentialContent::File(relative(below));
        let name = CredentialName::new("token").unwrap();
        Files {
            credentials: vec![Credential { name, content, encrypted: false }],
            ..Files::default()
        }
    };
    let text = try_linked(rig, |_| credential("etc/crontab"), None).unwrap_err().to_string();
    assert!(text.contains("own secrets and local"), "{text}");
    let text = try_linked(rig, |_| Files::default(), Some("job")).unwrap_err().to_string();
    assert!(text.contains("[images] paths"), "{text}");
}

/// Where a task may write, a file with a second name elsewhere may still be the host's.
#[test]
fn s2_a_file_with_another_name_elsewhere_is_not_bound_writable() {
    let rig = host();
    let binds = |one: Bind| Files { binds: vec![one], ..Files::default() };
    let own = |read_only| {
        let source = Source::Task(relative("local/crontab"));
        binds(Bind { source, read_only, ..bind("/", "/m") })
    };
    let text = try_linked(rig, |_| own(false), None).unwrap_err().to_string();
    assert!(text.contains("local/crontab") && text.contains("hard link"), "{text}");
    let shared = |dir: &str| binds(bind(&format!("{dir}/alloc/data/crontab"), "/m"));
    let text = try_linked(rig, shared, None).unwrap_err().to_string();
    assert!(text.contains("hard link"), "{text}");
    assert_eq!(try_linked(rig, |_| own(true), None).unwrap(), "of the host\n");
}

/// Starts a task whose launcher stops before systemd-nspawn is executed; until it goes on, another
/// task puts links to a directory of the host into the image. Returns what the task has written.
fn start_while_swapped(rig: &Rig, mode: Root) -> String {
    const HOOK: &str = "/run/nomad-nspawn/hook/exec.before";
    const LIMIT: Duration = Duration::from_secs(30);
    rig.sh("set -e; cd /var/lib/machines; rm -rf s3; cp -a s3.fresh s3").unwrap();
    let made = Handmade::new(rig, "t").unwrap();
    let source = format!("{}/alloc/data", made.dir());
    rig.write_file(&format!("{source}/f"), "in\n", 0o644).unwrap();
    // SIGSTOP.
    rig.write_file(HOOK, "self 19", 0o600).unwrap();
    let script = "cat /mnt/deep/f /mnt/file; ls /dev/null";
    let mut spec = made.spec(&["/bin/sh", "-c", script]).unwrap();
    (spec.image, spec.root) = (named("s3"), RootFs::tree(mode));
    let file = format!("{source}/f");
    spec.files.binds = vec![read_only(&source, "/mnt/deep"), read_only(&file, "/mnt/file")];
    let unit = format!("nomad-nspawn-{}.service", UnitId::from(&made.key));
    let client = || Door::of(rig).unwrap().enter().unwrap();
    let started = std::thread::scope(|scope| {
        let started = scope.spawn(|| client().start(&spec).unwrap());
        let stopped = format!(
            "p=$(systemctl show -P MainPID {unit}); test \"$p\" != 0 && grep -q '^State:.T' \
             /proc/$p/status && echo $p"
        );
        let pid = wait::until("the launcher to stop", LIMIT, || Ok(rig.sh(&stopped).ok())).unwrap();
        // A remount makes the kernel forget what it has seen of the image, as a lack of memory
        // does.
        rig.sh(&format!(
            "set -e; cd /var/lib/machines/s3; for d in dev run mnt var; do mv $d $d.was; \
             ln -s /srv/s3 $d; done; export LIBMOUNT_FORCE_MOUNT2=always; \
             nsenter -t {pid} -m mount -o remount /run/nomad-nspawn/stage/root; kill -CONT {pid}",
            pid = pid.trim()
        ))
        .unwrap();
        started.join().unwrap()
    });
    let found = rig.run(&["find", "/srv/s3", "-mindepth", "1"]).unwrap();
    assert_eq!(found, "", "{mode:?}: {started:?}");
    started.unwrap_or_else(|e| panic!("{mode:?}: {e}\n{}", rig.journal_tail(20)));
    made.wait_ended(&client()).unwrap();
    let said = String::from_utf8(made.written(0).unwrap()).unwrap();
    made.remove(&client()).unwrap();
    said
}

/// A host of its own, with the build that can be stopped.
#[test]
fn s3_an_image_that_changes_meanwhile_never_leads_host_root_out() {
    let product = Some(Variant::StepHook);
    let config = Config { agent: false, product, ..Config::from_env().unwrap() };
    let rig = Rig::up(&config).unwrap();
    rig.sh("set -e; mkdir -m 0700 -p /run/nomad-nspawn/hook; mkdir -p /srv/s3; \
         mkdir -p /var/lib/nomad; chmod 0700 /var/lib/nomad; \
         cd /var/lib/machines; cp -a busybox s3.fresh; cd s3.fresh; \
         mkdir -p dev run var mnt/deep; echo image >mnt/file")
        .unwrap();
    for mode in [
        Root::Ephemeral(Layer::Disk),
        Root::ReadOnly,
        Root::Volatile(Volatile::State),
        Root::Volatile(Volatile::Yes),
    ] {
        let said = start_while_swapped(&rig, mode);
        assert_eq!(said, "in\nin\n/dev/null\n", "{mode:?}");
    }
    rig.down().unwrap();
}
