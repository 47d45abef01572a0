//! What a task's unit says about the task, so that a new daemon process can read it back.
//!
//! It stands in the unit's LogExtraFields=, which PID 1 keeps as long as the unit; journal lines of
//! the task carry the same fields. Values are written in letters, digits and `._/-` alone, all
//! other bytes as `+` and two hexadecimal digits: nothing in them can end a line or begin a
//! specifier.

use std::path::Path;

use proto::name::{AllocId, Instance, MachineName, TaskKey, TaskName};
use proto::plan::{Range, UnitId};
use proto::spec::{ImageKind, Ownership, Payload, Root, RootFs};

use super::range;

/// What runs in a task, as far as its end must be read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An init system.
    Boot,
    /// A command as PID 1.
    Command,
    /// A command below systemd-nspawn's stub init.
    ProcessTwo,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Boot, "boot"), (Self::Command, "command"), (Self::ProcessTwo, "process-two")];

    pub(super) fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Boot { .. } => Self::Boot,
            Payload::Command { .. } => Self::Command,
            Payload::ProcessTwo { .. } => Self::ProcessTwo,
        }
    }
}

/// What a task does with its image, as far as others must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Nothing that anybody else could see.
    Reads,
    /// Writes files of its tree.
    Writes,
    /// Rewrites its owners, or the file system that it holds.
    Alone,
}

impl Use {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Reads, "reads"), (Self::Writes, "writes"), (Self::Alone, "alone")];

    pub(super) fn of(root: &RootFs) -> Self {
        match (root.mode, root.ownership, root.kind) {
            (Root::Plain, Ownership::Chown, _) | (Root::Plain, _, ImageKind::Disk) => Self::Alone,
            (Root::Plain, ..) => Self::Writes,
            _ => Self::Reads,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::Writes | Self::Alone)
    }
}

fn name_of<T: PartialEq>(all: &[(T, &'static str)], value: &T) -> &'static str {
    all.iter().find(|(known, _)| known == value).map_or("", |(_, name)| name)
}

fn value_of<T: Copy>(all: &[(T, &'static str)], name: &str) -> Option<T> {
    all.iter().find(|(_, known)| *known == name).map(|(value, _)| *value)
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: TaskKey,
    pub(super) machine: MachineName,
    pub(super) kind: Kind,
    /// The user namespace.
    pub(super) users: Option<Range>,
    /// The image.
    pub(super) image: String,
    pub(super) image_use: Use,
    /// Whether a unit of its own carries the task's output.
    pub(super) followed: bool,
    /// Folder of all allocations.
    pub(super) allocs: String,
}

impl Record {
    /// The fields for LogExtraFields=.
    pub(super) fn fields(&self) -> Vec<Vec<u8>> {
        let users = |range: Range| format!("{}-{}", range.base, range.width);
        [
            ("NOMAD_ALLOC_ID", self.key.alloc.to_string()),
            ("NOMAD_TASK_NAME", escape(self.key.task.as_str())),
            ("NOMAD_TASK_INSTANCE", self.key.instance.to_string()),
            ("NSPAWN_MACHINE", self.machine.to_string()),
            ("NSPAWN_PAYLOAD", name_of(&Kind::ALL, &self.kind).to_owned()),
            ("NSPAWN_UIDS", self.users.map_or("none".to_owned(), users)),
            ("NSPAWN_IMAGE", escape(&self.image)),
            ("NSPAWN_IMAGE_USE", name_of(&Use::ALL, &self.image_use).to_owned()),
            ("NSPAWN_FOLLOWED", if self.followed { "yes" } else { "no" }.to_owned()),
            ("NSPAWN_ALLOCS", escape(&self.allocs)),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect()
    }

    /// Reads the fields back; `None` when they are not ours.
    pub(super) fn parse(fields: &[Vec<u8>]) -> Option<Self> {
        let field = |name: &str| {
            fields.iter().find_map(|field| {
                let (n, value) = std::str::from_utf8(field).ok()?.split_once('=')?;
                (n == name).then_some(value)
            })
        };
        let alloc: AllocId = field("NOMAD_ALLOC_ID")?.parse().ok()?;
        let task = TaskName::new(unescape(field("NOMAD_TASK_NAME")?)?).ok()?;
        let instance = u32::from_str_radix(field("NOMAD_TASK_INSTANCE")?, 16).ok()?;
        let users = match field("NSPAWN_UIDS")? {
            "none" => None,
            range => {
                let (base, width) = range.split_once('-')?;
                Some(Range { base: base.parse().ok()?, width: width.parse().ok()? })
            }
        };
        Some(Self {
            key: TaskKey { alloc, task, instance: Instance(instance) },
            machine: MachineName::new(field("NSPAWN_MACHINE")?).ok()?,
            kind: value_of(&Kind::ALL, field("NSPAWN_PAYLOAD")?)?,
            users,
            image: unescape(field("NSPAWN_IMAGE")?)?,
            image_use: value_of(&Use::ALL, field("NSPAWN_IMAGE_USE")?)?,
            followed: field("NSPAWN_FOLLOWED")? == "yes",
            allocs: unescape(field("NSPAWN_ALLOCS")?)?,
        })
    }

    /// Why another task cannot run beside this one, in words behind this one's name.
    pub(super) fn clash(&self, other: &Self) -> Option<&'static str> {
        let (mine, theirs) = (self.image_use, other.image_use);
        let (a, b) = (Path::new(&self.image), Path::new(&other.image));
        // A part of a tree is the tree's as well.
        if !(a.starts_with(b) || b.starts_with(a)) {
            return None;
        }
        match (mine, theirs) {
            (Use::Alone, _) => Some("has it for itself: it rewrites owners or a disk image"),
            (_, Use::Alone) => {
                Some("uses it, and this one would rewrite its owners or its file system")
            }
            _ if mine.writes() && theirs.writes() => {
                Some("writes to it; use ephemeral = true to share an image")
            }
            _ => None,
        }
    }

    /// First uid of the range, when it has a lock.
    pub(super) fn locked_range(&self) -> Option<u32> {
        self.users.map(|range| range.base).filter(|base| range::is_locked(*base))
    }

    /// The unit's id.
    pub(super) fn unit(&self) -> UnitId {
        UnitId::from(&self.key)
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._/-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("+{byte:02x}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'+' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::spec::output::LabelName;

    fn record(alloc: u8, image: &str, image_use: Use) -> Record {
        let task = TaskName::new("web").unwrap();
        let key = TaskKey { alloc: AllocId([alloc; 16]), task, instance: Instance(0xbeef) };
        Record {
            machine: crate::policy::machine_name(&key),
            key,
            kind: Kind::ProcessTwo,
            users: Some(Range { base: 524_288, width: 1000 }),
            image: image.to_owned(),
            image_use,
            followed: true,
            allocs: "/var/lib/nomad/alloc".to_owned(),
        }
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
            followed in any::<bool>(),
            image_use in proptest::sample::select(&[Use::Reads, Use::Writes, Use::Alone][..]),
        ) {
            if let Ok(task) = TaskName::new(task) {
                let mut record = record(3, &image, image_use);
                record.key.task = task;
                record.followed = followed;
                record.users = width.map(|width| Range { base: width / 2, width });
                let fields = record.fields();
                for field in &fields {
                    prop_assert!(field.iter().all(|b| b.is_ascii_graphic() && *b != b'%' && *b != b'"'));
                }
                prop_assert_eq!(Record::parse(&fields), Some(record));
            }
        }
    }
}
