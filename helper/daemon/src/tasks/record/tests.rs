//! Records of this build and of earlier ones.

use super::*;
use proptest::prelude::*;
use proto::task_spec::output::LabelName;

/// The record of a task without a network of its own.
pub(crate) fn of(key: TaskKey) -> Record {
    Record {
        form: Form::Whole,
        machine: policy::machine_name(&key),
        key,
        kind: Kind::ProcessTwo,
        users: Some(Range { base: 524_288, width: 1000 }),
        image: "/a".to_owned(),
        image_use: Use::Reads,
        relayed: true,
        link: None,
        attached: None,
        weight: Some(20),
        allocs: "/var/lib/nomad/alloc".to_owned(),
        allocs_device: Some(2049),
    }
}

fn record(alloc: u8, image: &str, image_use: Use) -> Record {
    let task = TaskName::new("web").unwrap();
    let key = TaskKey { alloc: AllocId([alloc; 16]), task, instance: Instance(0xbeef) };
    Record { image: image.to_owned(), image_use, ..of(key) }
}

const EXAMPLE: UnitId = UnitId { alloc: AllocId([3; 16]), instance: Instance(0xbeef) };

/// Records of every form that a build has written, as they stand in a unit. None is ever changed
/// or taken away.
const FIRST: &str = "NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=boot
NSPAWN_UID_BASE=524288
NSPAWN_WRITES=/var/lib/machines/debian";
const TWO_UIDS: &str = "NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=process-two
NSPAWN_UID_BASE=524288
NSPAWN_UID_WIDTH=1000
NSPAWN_IMAGE=/srv/b+2bc
NSPAWN_IMAGE_USE=alone
NSPAWN_FOLLOWED=yes
NSPAWN_ALLOCS=/var/lib/nomad/alloc";
const NO_VERSION: &str = "NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=command
NSPAWN_UIDS=524288-65536
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=reads
NSPAWN_FOLLOWED=no
NSPAWN_ALLOCS=/var/lib/nomad/alloc";
const VERSION_1: &str = "NSPAWN_RECORD=1
NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=process-two
NSPAWN_UIDS=none
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=writes
NSPAWN_FOLLOWED=no
NSPAWN_ALLOCS=/var/lib/nomad/alloc
NSPAWN_ALLOCS_DEVICE=2049";
const WITH_LINK: &str = "NSPAWN_RECORD=1
NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=command
NSPAWN_UIDS=524288-65536
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=reads
NSPAWN_FOLLOWED=no
NSPAWN_LINK=4+3d10.64.0.11/20+2cl+3d198.51.100.1+3a20001-80
NSPAWN_ALLOCS=/var/lib/nomad/alloc
NSPAWN_ALLOCS_DEVICE=2049";
const IN_ZONE: &str = "NSPAWN_RECORD=1
NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=command
NSPAWN_UIDS=524288-65536
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=reads
NSPAWN_FOLLOWED=no
NSPAWN_LINK=4+3d10.64.0.11/20+2cm+3d02+3a00+3a00+3a00+3a00+3a07+2cz+3d1853227009+3aback-end
NSPAWN_ALLOCS=/var/lib/nomad/alloc
NSPAWN_ALLOCS_DEVICE=2049";
const WITH_ATTACHED: &str = "NSPAWN_RECORD=1
NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=command
NSPAWN_UIDS=524288-65536
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=reads
NSPAWN_FOLLOWED=no
NSPAWN_LINK=none
NSPAWN_ATTACHED=b+3dbr0+2ca+3d192.0.2.9+2cp+3d198.51.100.1+3a20001-80
NSPAWN_ALLOCS=/var/lib/nomad/alloc
NSPAWN_ALLOCS_DEVICE=2049";
const WITH_WEIGHT: &str = "NSPAWN_RECORD=1
NOMAD_ALLOC_ID=03030303-0303-0303-0303-030303030303
NOMAD_TASK_NAME=web+201
NOMAD_TASK_INSTANCE=0000beef
NSPAWN_MACHINE=web-1
NSPAWN_PAYLOAD=command
NSPAWN_UIDS=524288-65536
NSPAWN_IMAGE=/var/lib/machines/debian
NSPAWN_IMAGE_USE=reads
NSPAWN_FOLLOWED=no
NSPAWN_LINK=none
NSPAWN_ATTACHED=none
NSPAWN_WEIGHT=20
NSPAWN_ALLOCS=/var/lib/nomad/alloc
NSPAWN_ALLOCS_DEVICE=2049";

fn read(text: &str) -> Record {
    let fields: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
    Record::parse(EXAMPLE, &fields)
}

#[test]
fn c1_records_of_earlier_builds_are_read() {
    let range = |width| Some(Range { base: 524_288, width });
    let debian = "/var/lib/machines/debian";
    for (text, form, kind, users, image, image_use, relayed, device) in [
        (FIRST, Form::Unmarked, Kind::Boot, range(65_536), debian, Use::Writes, false, None),
        (
            TWO_UIDS,
            Form::Unmarked,
            Kind::ProcessTwo,
            range(1000),
            "/srv/b+c",
            Use::Alone,
            true,
            None,
        ),
        (NO_VERSION, Form::Unmarked, Kind::Command, range(65_536), debian, Use::Reads, false, None),
        (
            WITH_LINK,
            Form::Whole,
            Kind::Command,
            range(65_536),
            debian,
            Use::Reads,
            false,
            Some(2049),
        ),
        (IN_ZONE, Form::Whole, Kind::Command, range(65_536), debian, Use::Reads, false, Some(2049)),
        (
            WITH_ATTACHED,
            Form::Whole,
            Kind::Command,
            range(65_536),
            debian,
            Use::Reads,
            false,
            Some(2049),
        ),
        (
            WITH_WEIGHT,
            Form::Whole,
            Kind::Command,
            range(65_536),
            debian,
            Use::Reads,
            false,
            Some(2049),
        ),
        (VERSION_1, Form::Whole, Kind::ProcessTwo, None, debian, Use::Writes, false, Some(2049)),
    ] {
        let found = read(text);
        assert_eq!((found.form, found.kind, found.users), (form, kind, users), "{text}");
        assert_eq!((found.image.as_str(), found.image_use), (image, image_use), "{text}");
        assert_eq!((found.relayed, found.allocs_device), (relayed, device), "{text}");
        assert_eq!((found.unit(), found.key.task.as_str()), (EXAMPLE, "web 1"), "{text}");
        assert_eq!(found.machine.as_str(), "web-1", "{text}");
        assert_eq!(found.link.is_some(), [WITH_LINK, IN_ZONE].contains(&text), "{text}");
        let zone = found.link.as_ref().and_then(|link| link.zone.as_ref());
        let zone = zone.map(|zone| (zone.group, zone.name.as_str()));
        assert_eq!(zone, (text == IN_ZONE).then_some((0x6e76_0001, "back-end")), "{text}");
        let mac = found.link.as_ref().and_then(|link| link.mac).map(|mac| mac.to_string());
        let given = (text == IN_ZONE).then(|| "02:00:00:00:00:07".to_owned());
        assert_eq!(mac, given, "{text}");
        assert_eq!(found.attached.is_some(), text == WITH_ATTACHED, "{text}");
        assert_eq!(found.weight, (text == WITH_WEIGHT).then_some(20), "{text}");
    }
}

#[test]
fn c1_what_cannot_be_read_is_a_task_all_the_same() {
    let changed = |from: &str, to: &str| VERSION_1.replace(from, to);
    for (text, name) in [
        (String::new(), UNREADABLE),
        (changed("RECORD=1", "RECORD=2"), "web 1"),
        (changed("RECORD=1", "RECORD=new"), "web 1"),
        (changed("process-two", "pod"), "web 1"),
        (changed("UIDS=none", "UIDS=many"), "web 1"),
        (changed("0000beef", "0000bee0"), "web 1"),
        (WITH_LINK.replace("10.64.0.11", "10.64.0"), "web 1"),
        (IN_ZONE.replace("z+3d1853227009", "z+3d7"), "web 1"),
        (WITH_ATTACHED.replace("a+3d192", "a+3dx"), "web 1"),
        (WITH_WEIGHT.replace("WEIGHT=20", "WEIGHT=heavy"), "web 1"),
        (changed("TASK_NAME=web+201", "TASK_NAME=+"), UNREADABLE),
    ] {
        let found = read(&text);
        assert!(!found.is_readable(), "{text}");
        assert_eq!((found.unit(), found.key.task.as_str()), (EXAMPLE, name), "{text}");
        assert!(found.relayed && found.users.is_none(), "{text}");
    }
}

/// The current form is the last of the examples: who changes it adds one.
#[test]
fn c1_the_current_form_is_among_the_examples() {
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
    };
    let fields = record(1, "/a", Use::Reads).fields();
    let now: Vec<String> = fields.iter().map(|f| String::from_utf8_lossy(f).into()).collect();
    assert_eq!(names(&now.join("\n")), names(WITH_WEIGHT));
}

/// Rows: the holder's use, the newcomer's, both on one image; whether they clash.
#[test]
fn who_may_share_an_image() {
    use Use::{Alone, Reads, Writes};
    for (mine, theirs, clash) in [
        (Reads, Reads, false),
        (Reads, Writes, false),
        (Writes, Reads, false),
        (Writes, Writes, true),
        (Reads, Alone, true),
        (Alone, Reads, true),
        (Alone, Alone, true),
    ] {
        for (holder, other) in
            [("/images/a", "/images/a"), ("/images", "/images/a"), ("/images/a", "/images")]
        {
            let result = record(1, holder, mine).clash(&record(2, other, theirs));
            assert_eq!(result.is_some(), clash, "{mine:?} {theirs:?} {holder} {other}");
        }
        let apart = record(1, "/images/a", mine).clash(&record(2, "/images/ab", theirs));
        assert_eq!(apart, None, "{mine:?} {theirs:?}");
    }
}

#[test]
fn no_label_can_be_taken_for_a_field_of_the_record() {
    for field in record(1, "/a", Use::Reads).fields() {
        let field = String::from_utf8(field).unwrap();
        let name = field.split('=').next().unwrap();
        assert!(LabelName::new(name).is_err(), "{name}");
    }
    assert!(LabelName::new("OBJECT_SYSTEMD_UNIT").is_err());
}

proptest! {
    #[test]
    fn records_round_trip(
        task in "\\PC{1,30}",
        image in "/\\PC{1,20}",
        width in proptest::option::of(1_u32..=65_536),
        relayed in any::<bool>(),
        image_use in proptest::sample::select(&[Use::Reads, Use::Writes, Use::Alone][..]),
    ) {
        if let Ok(task) = TaskName::new(task) {
            let mut record = record(3, &image, image_use);
            record.key.task = task;
            record.relayed = relayed;
            record.users = width.map(|width| Range { base: width / 2, width });
            let fields = record.fields();
            for field in &fields {
                prop_assert!(field.iter().all(|b| b.is_ascii_graphic() && *b != b'%' && *b != b'"'));
            }
            prop_assert_eq!(Record::parse(record.unit(), &fields), record);
        }
    }
}
