//! What a task's unit says about the task, so that a new daemon process can read it back.
//!
//! It stands in the unit's LogExtraFields=, which PID 1 keeps as long as the unit; journal lines of
//! the task carry the same fields. Values are written in letters, digits and `._/-` alone, all
//! other bytes as `+` and two hexadecimal digits: nothing in them can end a line or begin a
//! specifier.

use proto::name::{AllocId, Instance, MachineName, TaskKey, TaskName};
use proto::plan::UnitId;
use proto::spec::Payload;

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

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, name)| *name == text).map(|(kind, _)| *kind)
    }
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: TaskKey,
    pub(super) machine: MachineName,
    pub(super) kind: Kind,
    pub(super) uid_base: Option<u32>,
    /// The image, when the task may write to it.
    pub(super) writes: Option<String>,
}

impl Record {
    /// The fields for LogExtraFields=.
    pub(super) fn fields(&self) -> Vec<Vec<u8>> {
        let base = self.uid_base.map_or_else(|| "none".to_owned(), |base| base.to_string());
        [
            ("NOMAD_ALLOC_ID", self.key.alloc.to_string()),
            ("NOMAD_TASK_NAME", escape(self.key.task.as_str())),
            ("NOMAD_TASK_INSTANCE", self.key.instance.to_string()),
            ("NSPAWN_MACHINE", self.machine.to_string()),
            ("NSPAWN_PAYLOAD", self.kind.name().to_owned()),
            ("NSPAWN_UID_BASE", base),
            ("NSPAWN_WRITES", escape(self.writes.as_deref().unwrap_or_default())),
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
        let uid_base = match field("NSPAWN_UID_BASE")? {
            "none" => None,
            base => Some(base.parse().ok()?),
        };
        Some(Self {
            key: TaskKey { alloc, task, instance: Instance(instance) },
            machine: MachineName::new(field("NSPAWN_MACHINE")?).ok()?,
            kind: Kind::parse(field("NSPAWN_PAYLOAD")?)?,
            uid_base,
            writes: Some(unescape(field("NSPAWN_WRITES")?)?).filter(|path| !path.is_empty()),
        })
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

    proptest! {
        #[test]
        fn records_round_trip(task in "\\PC{1,30}", writes in proptest::option::of("/\\PC{1,20}")) {
            if let Ok(task) = TaskName::new(task) {
                let key = TaskKey { alloc: AllocId([3; 16]), task, instance: Instance(0xbeef) };
                let machine = crate::policy::machine_name(&key);
                let record = Record { key, machine, kind: Kind::ProcessTwo, uid_base: Some(524_288), writes };
                let fields = record.fields();
                for field in &fields {
                    prop_assert!(field.iter().all(|b| b.is_ascii_graphic() && *b != b'%' && *b != b'"'));
                }
                prop_assert_eq!(Record::parse(&fields), Some(record));
            }
        }
    }
}
