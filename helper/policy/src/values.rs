//! The values that a policy file may hold, each checked where it is read.
//!
//! A value that breaks its rule does not deserialize; the error quotes it, and `parse` adds the line.

use std::collections::BTreeMap;
use std::ops::Deref;

use proto::capability::Capabilities;
use proto::limits;
use proto::path::Absolute;
use proto::plan::Unprotected;
use proto::task_spec::files::DeviceAccess;
use proto::task_spec::process::{LimitName, SyscallName};
use proto::task_spec::resources::Property;
use serde::Deserialize;

use super::model::{DeviceRule, ImagePath};

/// A string of the file that is checked while it is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String", bound = "T: Checked")]
pub struct Text<T: Checked>(pub T);

/// A list of such strings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Vec<Text<T>>", bound = "T: Checked")]
pub struct List<T: Checked>(Vec<T>);

/// What a string must be to be taken.
pub trait Checked: Sized {
    /// The value.
    ///
    /// # Errors
    /// The rule that the string breaks.
    fn check(text: &str) -> Result<Self, String>;
}

impl<T: Checked> TryFrom<String> for Text<T> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        T::check(&text).map(Self).map_err(|rule| format!("{text:?} {rule}"))
    }
}

impl<T: Checked> From<Vec<Text<T>>> for List<T> {
    fn from(texts: Vec<Text<T>>) -> Self {
        Self(texts.into_iter().map(|text| text.0).collect())
    }
}

impl<T: Checked> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl Checked for Absolute {
    fn check(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|e| format!("is {e}"))
    }
}

/// Something without a blank or control character.
impl Checked for String {
    fn check(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return Err("must be a string without blanks".to_owned());
        }
        Ok(text.to_owned())
    }
}

impl Checked for DeviceRule {
    fn check(text: &str) -> Result<Self, String> {
        let (pattern, letters) = text.rsplit_once(':').unwrap_or_default();
        let known = letters.chars().all(|c| "rwm".contains(c));
        if !pattern.starts_with("/dev/") || letters.is_empty() || !known {
            return Err("is not /dev/PATTERN:ACCESS with ACCESS made of r, w, m".to_owned());
        }
        let has = |letter| letters.contains(letter);
        let access = DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') };
        Ok(Self { pattern: pattern.to_owned(), access })
    }
}

impl Checked for Capabilities {
    fn check(text: &str) -> Result<Self, String> {
        let rule = "is not a capability (capabilities(7)) and not \"all\"";
        Self::named(text).ok_or_else(|| rule.to_owned())
    }
}

/// A set of capabilities, listed by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "List<Capabilities>")]
pub struct Set(pub Capabilities);

impl From<List<Capabilities>> for Set {
    fn from(list: List<Capabilities>) -> Self {
        Self(list.0.into_iter().fold(Capabilities::default(), Capabilities::with))
    }
}

/// A kind of network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkKind(pub String);

impl Checked for NetworkKind {
    fn check(text: &str) -> Result<Self, String> {
        let plain =
            ["private", "veth", "zone", "group", "host", "none", "container"].contains(&text);
        let named = |kind| text.strip_prefix(kind).is_some_and(|name: &str| !name.is_empty());
        if plain || named("bridge:") || named("macvlan:") {
            return String::check(text).map(Self);
        }
        let rule = "is not one of private, veth, zone, group, host, none, container, \
                    bridge:NAME, macvlan:INTERFACE";
        Err(rule.to_owned())
    }
}

/// A system call, a group of them, or `*` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syscall(pub String);

impl Checked for Syscall {
    fn check(text: &str) -> Result<Self, String> {
        if text != "*" {
            SyscallName::new(text).map_err(|e| format!("is {e}"))?;
        }
        Ok(Self(text.to_owned()))
    }
}

/// A number, or a string with `k`, `m`, `g` or `t` (powers of 1,024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Spelled")]
pub struct Size<const LEAST: u64, const MOST: u64>(pub u64);

/// A limit of memory, in bytes.
pub(crate) type Memory = Size<{ limits::MEMORY_MIN }, { limits::MEMORY_MAX }>;
/// A limit of processes.
pub(crate) type Processes = Size<{ *limits::TASKS_LIMIT.start() }, { *limits::TASKS_LIMIT.end() }>;
/// A number of tasks.
pub(crate) type Count = Size<0, { limits::TASKS_MAX as u64 }>;

#[derive(Deserialize)]
#[serde(untagged, expecting = "neither a number nor a string such as \"512m\" or \"2g\"")]
enum Spelled {
    Number(u64),
    Text(String),
}

impl<const LEAST: u64, const MOST: u64> TryFrom<Spelled> for Size<LEAST, MOST> {
    type Error = String;

    fn try_from(spelled: Spelled) -> Result<Self, String> {
        let (size, shown) = match spelled {
            Spelled::Number(number) => (Some(number), number.to_string()),
            Spelled::Text(text) => (bytes(&text.to_ascii_lowercase()), format!("{text:?}")),
        };
        size.filter(|size| (LEAST..=MOST).contains(size)).map(Self).ok_or_else(|| {
            format!("{shown} is not a size of {LEAST} to {MOST} (\"512m\", \"2g\", or a number)")
        })
    }
}

fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = text.get(digits.len()..)?;
    let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == suffix)?;
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

/// Bytes that a file system must have free.
pub(crate) type Free = Size<0, { limits::MEMORY_MAX }>;

/// Most swap of one task, in bytes: a size, or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Spelled")]
pub struct SwapCeiling(pub u64);

impl TryFrom<Spelled> for SwapCeiling {
    type Error = String;

    fn try_from(spelled: Spelled) -> Result<Self, String> {
        match spelled {
            Spelled::Text(text) if text == "unlimited" => Ok(Self(u64::MAX)),
            other => Free::try_from(other)
                .map(|size| Self(size.0))
                .map_err(|rule| format!("{rule}, and not \"unlimited\"")),
        }
    }
}

/// The lowest oom_score_adj of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
pub struct OomScore(pub i16);

impl TryFrom<i64> for OomScore {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let score = i16::try_from(number).ok().filter(|score| limits::OOM_SCORE.contains(score));
        score.map(Self).ok_or_else(|| format!("{number} is not an oom_score_adj of -1000 to 1000"))
    }
}

/// The name of a property that a job may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyName(pub String);

impl Checked for PropertyName {
    fn check(text: &str) -> Result<Self, String> {
        if Property::names().any(|name| name == text) {
            return Ok(Self(text.to_owned()));
        }
        let names: Vec<_> = Property::names().collect();
        Err(format!("is not one of {}", names.join(", ")))
    }
}

/// The agent's cgroup below that of the host, as `cgroup_parent` of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupParent(pub Absolute);

impl Checked for CgroupParent {
    fn check(text: &str) -> Result<Self, String> {
        let path = Absolute::parse(&format!("/{}", text.trim_start_matches('/')));
        let path = path.map_err(|e| format!("is {e}"))?;
        if path.components().is_empty() {
            return Err("is not the name of a cgroup, e.g. nomad.slice".to_owned());
        }
        Ok(Self(path))
    }
}

/// Ceilings of process limits, by their names in getrlimit(2).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<String, Size<0, { u64::MAX }>>")]
pub struct Ulimits(pub Vec<(LimitName, u64)>);

impl TryFrom<BTreeMap<String, Size<0, { u64::MAX }>>> for Ulimits {
    type Error = String;

    fn try_from(table: BTreeMap<String, Size<0, { u64::MAX }>>) -> Result<Self, String> {
        let limit = |(name, most): (String, Size<0, { u64::MAX }>)| {
            let mut known = LimitName::ALL.iter();
            let limit = known.find(|limit| limit.name().to_ascii_lowercase() == name);
            let rule = || format!("{name:?} is not a process limit (getrlimit(2)), e.g. memlock");
            Ok((*limit.ok_or_else(rule)?, most.0))
        };
        table.into_iter().map(limit).collect::<Result<_, _>>().map(Self)
    }
}

/// A directory of images: its path, which then is not writable, or a table.
#[derive(Deserialize)]
#[serde(
    untagged,
    deny_unknown_fields,
    expecting = "neither a path nor { path = \"...\", writable = true or false }"
)]
pub(crate) enum ImageEntry {
    Path(Text<Absolute>),
    Table { path: Text<Absolute>, writable: bool },
}

impl From<ImageEntry> for ImagePath {
    fn from(entry: ImageEntry) -> Self {
        match entry {
            ImageEntry::Path(Text(path)) => Self { path, writable: false },
            ImageEntry::Table { path: Text(path), writable } => Self { path, writable },
        }
    }
}

/// Which defaults hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// What a user namespace bounds.
    Strict,
    /// What the older driver allowed.
    Compat,
}

impl Checked for Preset {
    fn check(text: &str) -> Result<Self, String> {
        match text {
            "strict" => Ok(Self::Strict),
            "compat" => Ok(Self::Compat),
            _ => Err("is not one of strict, compat".to_owned()),
        }
    }
}

impl Checked for Unprotected {
    fn check(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "unmapped" => Ok(Self::Unmapped),
            "as-asked" => Ok(Self::AsAsked),
            _ => Err("is not one of refuse, unmapped, as-asked".to_owned()),
        }
    }
}
