//! Names and ids as validated types: a value that breaks its rule cannot be built or decoded.
//!
//! The helper derives unit names, directories and machine names from these types alone. Nothing
//! here accepts a control character, so no name can end a line in a unit file, a log or an
//! argument.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

use crate::limits;
use crate::link::{BRIDGE_PORT_PREFIX, LINK_PREFIX};

/// Why a text is not a name: the rule, in words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidName {
    /// What kind of name was expected.
    pub kind: &'static str,
    /// The rule that the text breaks.
    pub rule: &'static str,
}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid {}: {}", self.kind, self.rule)
    }
}

impl std::error::Error for InvalidName {}

/// Makes a text newtype whose only constructor checks a rule, also when decoding.
macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, bincode::Encode)]
        pub struct $name(String);

        impl $name {
            /// Checks the rule and takes the text.
            ///
            /// # Errors
            /// The rule that the text breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::name::InvalidName> {
                let text = text.into();
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(rule) => Err($crate::name::InvalidName { kind: $kind, rule }),
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<C> bincode::Decode<C> for $name {
            fn decode<D: bincode::de::Decoder<Context = C>>(
                decoder: &mut D,
            ) -> Result<Self, bincode::error::DecodeError> {
                let text = String::decode(decoder)?;
                Self::new(text)
                    .map_err(|e| bincode::error::DecodeError::OtherString(e.to_string()))
            }
        }

        bincode::impl_borrow_decode!($name);
    };
}
pub(crate) use text_name;

/// The result of a check: the rule itself where it does not hold.
pub(crate) type Checked = Result<(), &'static str>;

pub(crate) fn require(holds: bool, rule: &'static str) -> Checked {
    if holds { Ok(()) } else { Err(rule) }
}

/// Whether a text consists of ASCII letters, digits and these other characters; so does an empty one.
pub(crate) fn is_made_of(text: &str, others: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// One name in a directory.
pub(crate) fn check_component(text: &str) -> Checked {
    require((1..=limits::COMPONENT_MAX).contains(&text.len()), "1 to 255 bytes")?;
    require(text != "." && text != ".." && !text.contains('/'), "no slash, not . or ..")?;
    require(!text.chars().any(char::is_control), "no control character")
}

fn check_task_name(text: &str) -> Checked {
    require((1..=limits::TASK_NAME_MAX).contains(&text.len()), "1 to 128 bytes")?;
    check_component(text)
}

fn check_image_name(text: &str) -> Checked {
    require((1..=limits::MACHINE_NAME_MAX).contains(&text.len()), "1 to 64 bytes")?;
    let rule = "no leading dot, no .v at the end (nspawn would pick a version)";
    require(!text.starts_with('.') && !text.ends_with(".v"), rule)?;
    require(is_made_of(text, "._-+"), "letters, digits and ._-+ only")
}

pub(crate) fn check_machine_name(text: &str) -> Checked {
    require((1..=limits::MACHINE_NAME_MAX).contains(&text.len()), "1 to 64 bytes")?;
    let is_label = |part: &str| {
        !part.is_empty() && !part.starts_with('-') && !part.ends_with('-') && is_made_of(part, "-")
    };
    let rule = "labels of letters, digits and inner dashes, joined by dots";
    require(text.split('.').all(is_label), rule)
}

fn check_zone_name(text: &str) -> Checked {
    require((1..=limits::ZONE_NAME_MAX).contains(&text.len()), "1 to 64 bytes")?;
    let rule = "letters, digits and ._- only, beginning with a letter or digit";
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    require(begins_well && is_made_of(text, "._-"), rule)
}

/// As systemd-nspawn takes it: `vz-` and the name are the name of a bridge (IFNAMSIZ).
fn check_link_zone_name(text: &str) -> Checked {
    require(text.len() <= limits::LINK_ZONE_NAME_MAX, "at most 12 bytes")?;
    check_zone_name(text)
}

/// What the kernel takes as the name of an interface (dev_valid_name()), less what would need
/// quotes somewhere, and less the links of tasks.
fn check_parent_name(text: &str) -> Checked {
    require((1..=limits::LINK_NAME_MAX).contains(&text.len()), "1 to 15 bytes")?;
    let begins_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let rule = "letters, digits and ._- only, beginning with a letter or digit";
    require(begins_well && is_made_of(text, "._-"), rule)?;
    require(!text.bytes().all(|b| b.is_ascii_digit()), "not a number")?;
    let is_tasks = [LINK_PREFIX, BRIDGE_PORT_PREFIX].iter().any(|it| text.starts_with(it));
    require(!is_tasks, "not a link of a task (nv-…, nb-…)")
}

fn check_variable_name(text: &str) -> Checked {
    require((1..=limits::VARIABLE_NAME_MAX).contains(&text.len()), "1 to 255 bytes")?;
    let begins_well = !text.starts_with(|c: char| c.is_ascii_digit());
    let rule = "letters, digits and underscores, not beginning with a digit (systemd-nspawn drops \
                others)";
    require(begins_well && is_made_of(text, "_"), rule)
}

text_name!(
    /// Name of a task in its group; also the name of its directory in the allocation.
    TaskName, "task name", check_task_name
);
text_name!(
    /// Name of an image in the image store.
    ImageName, "image name", check_image_name
);
text_name!(
    /// Machine name as systemd-machined and systemd-nspawn accept it (machined(8), hostname(5)).
    MachineName, "machine name", check_machine_name
);
text_name!(
    /// Name of a zone of tasks (`network_zone`).
    ZoneName, "zone name", check_zone_name
);
text_name!(
    /// Name of a zone that systemd-nspawn makes (`network_zone` with `network_setup = "container"`).
    LinkZoneName, "zone name", check_link_zone_name
);
text_name!(
    /// Name of an interface of the host that tasks' interfaces are attached to.
    ParentName, "interface name", check_parent_name
);
text_name!(
    /// Name of an environment variable that systemd-nspawn passes on.
    VariableName, "environment variable name", check_variable_name
);

/// Id of an allocation: a UUID, kept as its 16 bytes so that no text can hide in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct AllocId(pub [u8; 16]);

impl fmt::Display for AllocId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl AllocId {
    /// The id as 32 hexadecimal digits: the form of a machine id (machine-id(5)).
    #[must_use]
    pub fn simple(&self) -> String {
        self.to_string().replace('-', "")
    }
}

impl FromStr for AllocId {
    type Err = InvalidName;

    /// Takes the canonical form alone: 36 characters, lower case.
    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid =
            InvalidName { kind: "allocation id", rule: "a UUID in its canonical lower-case form" };
        let number = u128::from_str_radix(&text.replace('-', ""), 16).map_err(|_| invalid)?;
        let id = Self(number.to_be_bytes());
        if id.to_string() == text { Ok(id) } else { Err(invalid) }
    }
}

/// One run of a task: the eight hexadecimal digits at the end of Nomad's task id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Instance(pub u32);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// What names one run of one task everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct TaskKey {
    /// The allocation.
    pub alloc: AllocId,
    /// The task in its group.
    pub task: TaskName,
    /// The run of the task.
    pub instance: Instance,
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.alloc, self.task, self.instance)
    }
}

impl FromStr for TaskKey {
    type Err = InvalidName;

    /// Reads Nomad's task id: `<alloc id>/<task>/<8 hex digits>`.
    fn from_str(id: &str) -> Result<Self, InvalidName> {
        let invalid = InvalidName {
            kind: "task id",
            rule: "<allocation id>/<task name>/<8 hexadecimal digits>",
        };
        let (alloc, rest) = id.split_once('/').ok_or(invalid)?;
        let (task, instance) = rest.rsplit_once('/').ok_or(invalid)?;
        let number = u32::from_str_radix(instance, 16).map_err(|_| invalid)?;
        let key =
            Self { alloc: alloc.parse()?, task: TaskName::new(task)?, instance: Instance(number) };
        if key.to_string() == id { Ok(key) } else { Err(invalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn alloc_ids_have_one_spelling() {
        let text = "0e8b1c2d-1111-2222-3333-444455556666";
        let id: AllocId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.simple().len(), 32);
        for bad in [
            "",
            "0E8B1C2D-1111-2222-3333-444455556666",
            "0e8b1c2d111122223333444455556666",
            "../x",
            "é",
            "+0e8b1c2d-1111-2222-3333-44445555666",
            "-0e8b1c2d11112222333344445555666-6",
        ] {
            assert!(bad.parse::<AllocId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn task_ids_round_trip() {
        let id = "0e8b1c2d-1111-2222-3333-444455556666/web.1/00c0ffee";
        assert_eq!(id.parse::<TaskKey>().unwrap().to_string(), id);
        for bad in [
            "0e8b1c2d-1111-2222-3333-444455556666/web/c0ffee",
            "0e8b1c2d-1111-2222-3333-444455556666/../00c0ffee",
            "0e8b1c2d-1111-2222-3333-444455556666/a/b/00c0ffee",
            "0e8b1c2d-1111-2222-3333-444455556666//00c0ffee",
            "0e8b1c2d-1111-2222-3333-444455556666/web/+0c0ffee",
            "0e8b1c2d-1111-2222-3333-444455556666/web/00C0FFEE",
        ] {
            assert!(bad.parse::<TaskKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn machine_names_follow_systemd() {
        for good in ["a", "web-0e8b1c2d", "a.b-c.d9"] {
            assert!(MachineName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a_b", "a b", &"x".repeat(65)] {
            assert!(MachineName::new(bad).is_err(), "{bad}");
        }
    }

    /// They stand in a unit's record and in patterns of the policy file.
    #[test]
    fn zone_names_are_plain_words() {
        for good in ["a", "back-end", "web_1.prod", "9", &"x".repeat(64)] {
            assert!(ZoneName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a,b", "a:b", "a*", "a\n", "é", &"x".repeat(65)] {
            assert!(ZoneName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_name_holds_a_separator(text in ".*") {
            if let Ok(name) = TaskName::new(text.clone()) {
                prop_assert!(!name.as_str().contains(['/', '\n', '\0']));
                prop_assert!(name.as_str() != "..");
            }
            if let Ok(name) = ImageName::new(text.clone()) {
                prop_assert!(!name.as_str().contains(['/', '\n', '\0', ':', ' ', '%']));
            }
            if let Ok(name) = VariableName::new(text) {
                prop_assert!(!name.as_str().contains(['=', '\n', '-', '.', '"']));
            }
        }
    }
}
