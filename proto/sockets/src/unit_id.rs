//! The name that a task's unit and its directories share.

use std::fmt;

use bincode::{Decode, Encode};

use crate::name::{AllocId, Instance, TaskKey};

/// The part of a unit's and a directory's name that is the task's own.
///
/// Nomad's allocation id and run number together: no two tasks share them, so no hash is needed,
/// and people can read it. Spelled as 32 and 8 hexadecimal digits joined by a dash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct UnitId {
    /// The allocation.
    pub alloc: AllocId,
    /// The run.
    pub instance: Instance,
}

impl fmt::Display for UnitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.alloc.simple(), self.instance)
    }
}

impl UnitId {
    /// Reads the one spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (alloc, instance) = text.split_once('-')?;
        let alloc = AllocId(u128::from_str_radix(alloc, 16).ok()?.to_be_bytes());
        let instance = Instance(u32::from_str_radix(instance, 16).ok()?);
        let id = Self { alloc, instance };
        (id.to_string() == text).then_some(id)
    }
}

impl From<&TaskKey> for UnitId {
    fn from(key: &TaskKey) -> Self {
        Self { alloc: key.alloc, instance: key.instance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_ids_have_one_spelling() {
        let id = UnitId { alloc: AllocId([0xab; 16]), instance: Instance(0x00c0_ffee) };
        assert_eq!(id.to_string(), format!("{}-00c0ffee", "ab".repeat(16)));
        assert_eq!(UnitId::parse(&id.to_string()), Some(id));
        let digits = "ab".repeat(16);
        for bad in [
            "",
            "-",
            &"../".repeat(14),
            &format!("{digits}-00C0FFEE"),
            &format!("{digits}-c0ffee"),
            &format!("{digits}-+0c0ffee"),
            &format!("+{}-00c0ffee", &digits[1..]),
            &format!("0{digits}-00c0ffee"),
        ] {
            assert_eq!(UnitId::parse(bad), None, "{bad}");
        }
    }
}
