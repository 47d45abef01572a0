//! What a specification may put into a unit: devices, labels, limits. And what a start remarks.

use crate::{host, refused, started, status};
use nspawn_tests::hostile::Handmade;
use proto::error::Code;
use proto::path::Absolute;
use proto::target::Target;
use proto::task_spec::Label;
use proto::task_spec::files::{Bind, Device, DeviceAccess, Mapping, Source};
use proto::task_spec::output::{LabelName, LabelValue};

fn label(name: &str, value: &str) -> Label {
    Label { name: LabelName::new(name).unwrap(), value: LabelValue::new(value).unwrap() }
}

#[test]
fn labels_are_on_every_line_of_the_task_and_the_record_stands() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "labelled").unwrap();
    let mut spec = task.spec(&["/bin/sh", "-c", "echo hello; sleep 1000"]).unwrap();
    spec.logs = proto::task_spec::Logs::Journal;
    spec.labels = vec![label("TEAM", "blue, 50:50 @home"), label("EMPTY", "")];
    let unit = started(&client, &spec).unit;
    let team = "TEAM=blue, 50:50 @home";
    nspawn_tests::wait::true_within("the line", crate::SOON, || {
        let alloc = format!("NOMAD_ALLOC_ID={}", task.key.alloc);
        let words = ["journalctl", "-o", "cat", "-q", "-u", &unit, team, &alloc];
        Ok(rig.run(&words)?.lines().any(|line| line == "hello"))
    })
    .unwrap();
    task.remove(&client).unwrap();
}

#[test]
fn without_a_limit_of_its_own_a_task_has_that_of_systemds_template() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "limited").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    // Three more than the payload may have are for systemd-nspawn itself.
    for (instance, asked, shown) in [(1, None, "16387"), (2, Some(123), "126")] {
        spec.key.instance = proto::name::Instance(instance);
        spec.resources.tasks_max = asked;
        let unit = started(&client, &spec).unit;
        assert_eq!(rig.run(&["systemctl", "show", "-P", "TasksMax", &unit]).unwrap(), shown);
        crate::removed(&client, &spec.key);
    }
    task.remove(&client).unwrap();
}

fn path(text: &str) -> Absolute {
    Absolute::parse(text).unwrap()
}

fn device(host: &str, write: bool) -> Device {
    let access = DeviceAccess { read: true, write, mknod: false };
    Device { host: path(host), target: Target::parse("/dev/asked").unwrap(), access }
}

#[test]
fn a_device_is_allowed_with_its_access_and_a_missing_one_is_refused_in_words() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "device").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    spec.files.devices = vec![device("/dev/daemon-none", true)];
    let refusal = refused(&client, &spec);
    assert_eq!((refusal.code, refusal.step.as_str()), (Code::Invalid, "files"), "{refusal}");
    assert!(refusal.to_string().contains("/dev/daemon-none"), "{refusal}");
    spec.files.devices = vec![device("/dev/full", false)];
    let unit = started(&client, &spec).unit;
    // The launcher makes the node.
    let rules = rig.run(&["systemctl", "show", "-P", "DeviceAllow", &unit]).unwrap();
    assert!(rules.lines().any(|rule| rule == "/dev/full rm"), "{rules}");
    task.remove(&client).unwrap();
}

#[test]
fn remarks_of_the_launcher_come_with_the_answer() {
    let (_life, rig, client) = host();
    rig.sh("mkdir -p -m 0755 /srv/daemon-remarks").unwrap();
    let task = Handmade::new(rig, "remarks").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    spec.files.binds = vec![Bind {
        source: Source::Host(path("/srv/daemon-remarks")),
        target: Target::parse("/mnt").unwrap(),
        read_only: false,
        recursive: false,
        mapping: Mapping::Automatic,
        propagated: false,
    }];
    let notes = started(&client, &spec).notes;
    // Another one is about the data directory, which is open here.
    let of_the_bind = notes.iter().filter(|note| note.contains("without ID mapping"));
    assert_eq!(of_the_bind.count(), 1, "{notes:?}");
    assert_eq!(status(&client, &task.key).notes, notes);
    task.remove(&client).unwrap();
    rig.run(&["rmdir", "/srv/daemon-remarks"]).unwrap();
}

/// More than any file system has; the root of this task lies there, of the others it does not.
#[test]
fn a_start_is_refused_while_the_disk_of_changes_is_nearly_full() {
    use proto::task_spec::{Layer, Root, RootFs};
    let (_life, host, _client) = crate::alone();
    let rig = &host.rig;
    let full = crate::POLICY.replace("[limits]", "[limits]\nmin_free = \"63t\"");
    rig.set_policy(&full).unwrap();
    let client = crate::next_life(rig);
    let task = Handmade::new(rig, "no-space").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    spec.root = RootFs::tree(Root::Ephemeral(Layer::Disk));
    let refusal = refused(&client, &spec);
    assert_eq!((refusal.code, refusal.step.as_str()), (Code::Busy, "root"), "{refusal}");
    for part in ["MiB are free", "[limits] min_free of the policy file asks for 66060288 MiB"] {
        assert!(refusal.to_string().contains(part), "{refusal}");
    }
    spec.root = RootFs::tree(Root::Ephemeral(Layer::Memory));
    started(&client, &spec);
    task.remove(&client).unwrap();
    rig.set_policy(crate::POLICY).unwrap();
    crate::next_life(rig);
}
