//! Overlay mounts: layers, what becomes of changes, and whose they are.

use crate::{Task, at, host, path, refused, run};
use nspawn_tests::Rig;
use proto::task_spec::files::{Files, Overlay, Source, Upper};
use proto::task_spec::{TaskSpec, Users};

const LOOK: &str = "cd /mnt/o; cat both low high; stat -c '%n %u:%g' both low high";
const SEEN: &str = "high\nlow\nhigh\nboth 0:0\nlow 1000:1000\nhigh 0:0\n";

fn layers(rig: &Rig, name: &str) -> Vec<Source> {
    let dir = format!("/srv/closed/overlay-{name}");
    rig.sh(&format!(
        "set -e; mkdir -p {dir}/1 {dir}/2 {dir}/up; cd {dir}; echo low >1/low; echo low >1/both; \
         chown 1000:1000 1/low; echo high >2/both; echo high >2/high; chmod 0711 2"
    ))
    .unwrap();
    ["1", "2"].map(|layer| Source::Host(path(&format!("{dir}/{layer}")))).to_vec()
}

fn overlay(lower: Vec<Source>, upper: Upper) -> Files {
    let one = Overlay { lower, upper, target: at("/mnt/o") };
    Files { overlays: vec![one], ..Files::default() }
}

/// A checksum over names, owners, modes and contents below a directory.
fn sum(rig: &Rig, dir: &str) -> String {
    rig.sh(&format!(
        "cd {dir} && (find . -printf '%p %U %G %m %T@\\n'; cat $(find . -type f)) | sort | md5sum"
    ))
    .unwrap()
}

#[test]
fn changes_go_with_the_task() {
    let rig = host();
    let lower = layers(rig, "eph");
    let before = sum(rig, "/srv/closed/overlay-eph");
    let script = format!(
        "{LOOK}; echo new >both; rm low; mkdir d; chown 1000 d; cat both; stat -c '%a %u' . d; \
         grep -F ' /mnt/o ' /proc/mounts | grep -q nosuid,nodev || echo no flags"
    );
    let task = Task::start(rig, overlay(lower, Upper::Ephemeral), &script);
    assert_eq!(task.output(), format!("{SEEN}new\n711 0\n755 1000\n"));
    let directory = format!("/var/lib/nomad-nspawn/{}-00c0ffee", task.made.key.alloc.simple());
    let owners = rig.sh(&format!("cd {directory}/overlay0/upper && stat -c %u both d")).unwrap();
    assert_eq!(owners, format!("{}\n{}", task.base, task.base + 1000));
    task.remove();
    assert!(!rig.exists(&directory), "{directory} is left");
    assert_eq!(sum(rig, "/srv/closed/overlay-eph"), before);
}

#[test]
fn without_an_upper_layer_nothing_can_be_written() {
    let rig = host();
    let lower = layers(rig, "ro");
    let script =
        format!("{LOOK}; touch f 2>/dev/null || echo no; mount -o remount,rw . 2>&1 | wc -l");
    let out = run(rig, overlay(lower.clone(), Upper::ReadOnly), &script);
    assert_eq!(out, format!("{SEEN}no\n1\n"));
    // One layer alone is no overlay for the kernel, but one for the job.
    let one = overlay(lower[..1].to_vec(), Upper::ReadOnly);
    assert_eq!(
        run(rig, one, "cat /mnt/o/both; touch /mnt/o/f 2>/dev/null || echo no"),
        "low\nno\n"
    );
}

/// A directory keeps the changes, for tasks with the same ids.
#[test]
fn changes_stay_in_a_directory_for_the_same_ids() {
    let rig = host();
    let lower = layers(rig, "keep");
    let up = "/srv/closed/overlay-keep/up";
    let files = || overlay(lower.clone(), Upper::Directory(Source::Host(path(up))));
    let with = |base: u32, script: &str| {
        let fixed = |spec| TaskSpec { users: Users::Fixed { base, width: 65_536 }, ..spec };
        Task::try_with(rig, |_| files(), script, fixed)
    };
    let (one, other) = (0x6000_0000, 0x6001_0000);
    assert_eq!(with(one, "echo kept >/mnt/o/new; rm /mnt/o/low").unwrap().finish(), "");
    let owner = rig.run(&["stat", "-c", "%u", &format!("{up}/upper/new")]).unwrap();
    assert_eq!(owner, one.to_string());
    let again = with(one, "cd /mnt/o; ls; cat new; stat -c %u new").unwrap();
    assert_eq!(again.finish(), "both\nhigh\nnew\nkept\n0\n");
    let text = with(other, "exit 0").err().unwrap().to_string();
    assert!(text.contains("other ids") && text.contains(&one.to_string()), "{text}");
    // Where other accounts can reach the directory, it is not taken at all.
    rig.sh("mkdir -p -m 0755 /srv/open/up").unwrap();
    let open = Upper::Directory(Source::Host(path("/srv/open/up")));
    let text = refused(rig, overlay(lower.clone(), open));
    assert!(text.contains("/srv/open/up") && text.contains("0700"), "{text}");
}

/// Its changes would belong to an account beyond the task's range.
#[test]
fn a_top_whose_owner_the_range_does_not_reach_gets_no_changes() {
    let rig = host();
    let lower = layers(rig, "wide");
    let up = "/srv/closed/overlay-wide/up";
    for (owner, group) in [(70_000, 0), (0, 65_536)] {
        rig.sh(&format!("chown {owner}:{group} /srv/closed/overlay-wide/2")).unwrap();
        for upper in [Upper::Ephemeral, Upper::Directory(Source::Host(path(up)))] {
            let text = refused(rig, overlay(lower.clone(), upper));
            let rule = format!("lie over {owner}:{group}'s, beyond the task's 65536 ids");
            assert!(text.contains(&rule), "{text}");
        }
    }
    assert_eq!(rig.run(&["ls", "-A", up]).unwrap(), "");
    // The kernel's own directory is no place for another task either.
    rig.sh(&format!("chown 0:0 /srv/closed/overlay-wide/2; mkdir {up}/work; chown 7:7 {up}/work"))
        .unwrap();
    let text = refused(rig, overlay(lower, Upper::Directory(Source::Host(path(up)))));
    assert!(text.contains("other ids (work is owned by 7)"), "{text}");
}

#[test]
fn layers_must_be_directories_and_no_links() {
    let rig = host();
    let lower = layers(rig, "odd");
    rig.sh("cd /srv/closed/overlay-odd; ln -s /etc link; echo x >file; ln -s /etc up/upper")
        .unwrap();
    let source = |name: &str| Source::Host(path(&format!("/srv/closed/overlay-odd/{name}")));
    for (name, word) in
        [("link", "symbolic link"), ("file", "is not a directory"), ("no", "not exist")]
    {
        let text = refused(rig, overlay(vec![lower[0].clone(), source(name)], Upper::ReadOnly));
        assert!(text.contains(word), "{text}");
    }
    let before = sum(rig, "/etc/systemd");
    refused(rig, overlay(lower, Upper::Directory(source("up"))));
    assert_eq!(sum(rig, "/etc/systemd"), before);
}
