//! What a task's unit records of the task, so that a new daemon process can read it back.
//!
//! It stands in the unit's LogExtraFields=, which PID 1 keeps as long as the unit; journal lines of
//! the task carry the same fields. Values are written in letters, digits and `._/-` alone, all
//! other bytes as `+` and two hexadecimal digits: nothing in them can end a line or begin a
//! specifier.
//!
//! Tasks outlive an upgrade, so each build reads the records of all earlier ones (examples stand in
//! the tests): a new field has a default for records without it, and [`VERSION`] rises only when
//! a field changes its meaning. A record that cannot be read still names one of our units, which is
//! shown, killed and removed by its id alone.

use std::net::IpAddr;
use std::path::Path;

use proto::limits::RANGE_WIDTH;
use proto::link::{Link, Published};
use proto::name::{AllocId, Instance, MachineName, TaskKey, TaskName};
use proto::plan::{Plan, Range};
use proto::task_spec::{ImageKind, Logs, Ownership, Payload, Root, RootFs};
use proto::unit_id::UnitId;

use crate::network::attached::Attached;
use crate::network::elements::Elements;
use crate::network::link_record;
use crate::systemd::units::resources::boosted_weight;
use crate::tasks::uid_range;

/// What the fields of a record mean; 0 in records of before there was a version.
const VERSION: u32 = 1;

/// Name of a task whose record does not hold one that can be read.
const UNREADABLE: &str = "unreadable";

/// What runs in a task, as far as its end must be read differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
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

    fn of(payload: &Payload) -> Self {
        match payload {
            Payload::Boot { .. } => Self::Boot,
            Payload::Command { .. } => Self::Command,
            Payload::ProcessTwo { .. } => Self::ProcessTwo,
        }
    }
}

/// What a task does with its image, as far as it concerns other tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
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

    fn of(root: &RootFs) -> Self {
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

/// How much of a record could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Nothing but the unit's id is certain.
    Unreadable,
    /// All of it; of a build whose launchers leave no mark ([`kernel::layout::executed_mark`]).
    Unmarked,
    /// All of it.
    Whole,
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) form: Form,
    pub(crate) key: TaskKey,
    pub(crate) machine: MachineName,
    pub(crate) kind: Kind,
    /// The user namespace.
    pub(crate) users: Option<Range>,
    /// The image.
    pub(crate) image: String,
    pub(crate) image_use: Use,
    /// Whether a separate unit relays the task's output.
    pub(crate) relayed: bool,
    /// The link of a network of its own.
    pub(crate) link: Option<Link>,
    /// Its network, where that is not of the pool.
    pub(crate) attached: Option<Attached>,
    /// CPUWeight= that it has once it is ready, where that is another than before.
    pub(crate) weight: Option<u64>,
    /// Directory of all allocations.
    pub(crate) allocs: String,
    /// Device of its file system at the start; `None` when it could not be seen.
    pub(crate) allocs_device: Option<u64>,
}

impl Record {
    /// The record of a task whose ids are not allocated yet.
    pub(crate) fn new(plan: &Plan) -> Self {
        let UnitId { alloc, instance } = plan.unit;
        Self {
            form: Form::Whole,
            key: TaskKey { alloc, task: plan.task_dirs.task.clone(), instance },
            machine: plan.machine.clone(),
            kind: Kind::of(&plan.payload),
            users: None,
            image: plan.image.to_string(),
            image_use: Use::of(&plan.root),
            link: None,
            attached: Attached::of(plan),
            weight: boosted_weight(&plan.resources).and(plan.resources.cpu_weight),
            relayed: matches!(plan.logs, Logs::Both | Logs::Container { .. }),
            allocs: plan.task_dirs.alloc_dir.root.to_string(),
            allocs_device: None,
        }
    }

    /// The fields for LogExtraFields=.
    pub(crate) fn fields(&self) -> Vec<Vec<u8>> {
        let users = |range: Range| format!("{}-{}", range.base, range.width);
        let number = |number: u64| number.to_string();
        let link = |link: &Link| escape(&link_record::write(link));
        let attached = |attached: &Attached| escape(&attached.write());
        [
            ("NSPAWN_RECORD", VERSION.to_string()),
            ("NOMAD_ALLOC_ID", self.key.alloc.to_string()),
            ("NOMAD_TASK_NAME", escape(self.key.task.as_str())),
            ("NOMAD_TASK_INSTANCE", self.key.instance.to_string()),
            ("NSPAWN_MACHINE", self.machine.to_string()),
            ("NSPAWN_PAYLOAD", name_of(&Kind::ALL, &self.kind).to_owned()),
            ("NSPAWN_UIDS", self.users.map_or("none".to_owned(), users)),
            ("NSPAWN_IMAGE", escape(&self.image)),
            ("NSPAWN_IMAGE_USE", name_of(&Use::ALL, &self.image_use).to_owned()),
            ("NSPAWN_FOLLOWED", if self.relayed { "yes" } else { "no" }.to_owned()),
            ("NSPAWN_LINK", self.link.as_ref().map_or("none".to_owned(), link)),
            ("NSPAWN_ATTACHED", self.attached.as_ref().map_or("none".to_owned(), attached)),
            ("NSPAWN_WEIGHT", self.weight.map_or("none".to_owned(), number)),
            ("NSPAWN_ALLOCS", escape(&self.allocs)),
            ("NSPAWN_ALLOCS_DEVICE", self.allocs_device.map_or("none".to_owned(), number)),
        ]
        .into_iter()
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect()
    }

    /// Reads the record of a unit back.
    pub(crate) fn parse(unit: UnitId, fields: &[Vec<u8>]) -> Self {
        let fields = Fields(fields);
        // Another unit's record is not this one's.
        let whole = fields.record().filter(|record| record.unit() == unit);
        whole.unwrap_or_else(|| Self::unreadable(unit, &fields))
    }

    /// What holds for a unit without a readable record. It may have a unit that relays its output;
    /// of its range and its image nothing is known.
    #[allow(clippy::expect_used, reason = "a constant that is a valid name")]
    fn unreadable(unit: UnitId, fields: &Fields<'_>) -> Self {
        let constant = || TaskName::new(UNREADABLE).expect("a valid name");
        let task = fields.task().unwrap_or_else(constant);
        let UnitId { alloc, instance } = unit;
        let key = TaskKey { alloc, task, instance };
        Self {
            form: Form::Unreadable,
            machine: policy::machine_name(&key),
            key,
            kind: Kind::Command,
            users: None,
            image: String::new(),
            image_use: Use::Reads,
            relayed: true,
            link: fields.link(unit).flatten(),
            attached: fields.attached().flatten(),
            weight: None,
            allocs: String::new(),
            allocs_device: None,
        }
    }

    /// Whether all of it could be read.
    pub(crate) fn is_readable(&self) -> bool {
        self.form != Form::Unreadable
    }

    /// Why another task cannot run beside this one, in words that follow this one's name.
    pub(crate) fn clash(&self, other: &Self) -> Option<&'static str> {
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
    pub(crate) fn locked_range(&self) -> Option<u32> {
        self.users.map(|range| range.base).filter(|base| uid_range::is_locked(*base))
    }

    /// Whether the task has a network of its own.
    pub(crate) fn has_network(&self) -> bool {
        self.link.is_some() || self.attached.is_some()
    }

    /// Its addresses, as far as they are known: IPv4 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let attached = self.attached.iter().flat_map(|it| it.addresses.iter().copied());
        self.link.iter().flat_map(Link::addresses).chain(attached)
    }

    /// Ports of the host that lead to it.
    pub(crate) fn ports(&self) -> impl Iterator<Item = Published> {
        let attached = self.attached.iter().flat_map(|it| it.ports.iter().copied());
        let attached = attached.map(|port| Published { port, on_loopback: false });
        self.link.iter().flat_map(|link| link.ports.iter().copied()).chain(attached)
    }

    /// What it adds to the packet filter.
    pub(crate) fn elements(&self) -> Elements {
        let mut all = self.link.as_ref().map(Elements::from).unwrap_or_default();
        all.insert(self.attached.as_ref().map(Elements::from).unwrap_or_default());
        all
    }

    /// The link of the host to delete at its end.
    pub(crate) fn own_link(&self) -> Option<String> {
        let attached = || self.attached.as_ref().and_then(|it| it.own_link(self.unit()));
        self.link.as_ref().map(|link| link.name.to_string()).or_else(attached)
    }

    /// The unit's id.
    pub(crate) fn unit(&self) -> UnitId {
        UnitId::from(&self.key)
    }
}

/// The fields of a unit.
struct Fields<'a>(&'a [Vec<u8>]);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|field| {
            let (n, value) = std::str::from_utf8(field).ok()?.split_once('=')?;
            (n == name).then_some(value)
        })
    }

    /// A field that an earlier build did not write: `default` without it, `None` when it cannot be
    /// read.
    fn get_or<T>(&self, name: &str, default: T, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.get(name).map_or(Some(default), read)
    }

    fn link(&self, unit: UnitId) -> Option<Option<Link>> {
        self.get_or("NSPAWN_LINK", None, |text| {
            unless_none(text, |text| link_record::read(unit, &unescape(text)?))
        })
    }

    fn attached(&self) -> Option<Option<Attached>> {
        self.get_or("NSPAWN_ATTACHED", None, |text| {
            unless_none(text, |text| Attached::read(&unescape(text)?))
        })
    }

    fn task(&self) -> Option<TaskName> {
        TaskName::new(unescape(self.get("NOMAD_TASK_NAME")?)?).ok()
    }

    /// The whole record; `None` when it is of a later version, or a field cannot be read.
    fn record(&self) -> Option<Record> {
        let form = match self.get_or("NSPAWN_RECORD", 0, |text| text.parse().ok())? {
            0 => Form::Unmarked,
            1..=VERSION => Form::Whole,
            _ => return None,
        };
        let instance = u32::from_str_radix(self.get("NOMAD_TASK_INSTANCE")?, 16).ok()?;
        let alloc: AllocId = self.get("NOMAD_ALLOC_ID")?.parse().ok()?;
        let key = TaskKey { alloc, task: self.task()?, instance: Instance(instance) };
        let link = self.link(UnitId::from(&key))?;
        // The first builds noted an image only for a task that writes to it.
        let written = self.get_or("NSPAWN_WRITES", String::new(), unescape)?;
        let image_use = if written.is_empty() { Use::Reads } else { Use::Writes };
        Some(Record {
            form,
            key,
            machine: MachineName::new(self.get("NSPAWN_MACHINE")?).ok()?,
            kind: value_of(&Kind::ALL, self.get("NSPAWN_PAYLOAD")?)?,
            users: self.users()?,
            image: self.get_or("NSPAWN_IMAGE", written, unescape)?,
            image_use: self.get_or("NSPAWN_IMAGE_USE", image_use, |n| value_of(&Use::ALL, n))?,
            relayed: self.get_or("NSPAWN_FOLLOWED", false, |text| Some(text == "yes"))?,
            link,
            attached: self.attached()?,
            weight: self
                .get_or("NSPAWN_WEIGHT", None, |text| unless_none(text, |n| n.parse().ok()))?,
            allocs: self.get_or("NSPAWN_ALLOCS", String::new(), unescape)?,
            allocs_device: self.get_or("NSPAWN_ALLOCS_DEVICE", None, |text| {
                unless_none(text, |n| n.parse().ok())
            })?,
        })
    }

    /// The user namespace, in one field or in the two of earlier builds.
    fn users(&self) -> Option<Option<Range>> {
        let range = |base: &str, width: Option<&str>| {
            let width = width.map_or(Some(RANGE_WIDTH), |width| width.parse().ok())?;
            Some(Range { base: base.parse().ok()?, width })
        };
        match self.get("NSPAWN_UIDS") {
            Some(text) => unless_none(text, |text| {
                text.split_once('-').and_then(|(base, width)| range(base, Some(width)))
            }),
            None => unless_none(self.get("NSPAWN_UID_BASE")?, |base| {
                range(base, self.get("NSPAWN_UID_WIDTH"))
            }),
        }
    }
}

/// A value, or `none`; the outer `None` when it cannot be read.
fn unless_none<T>(text: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    if text == "none" { Some(None) } else { read(text).map(Some) }
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
pub(crate) mod tests;
