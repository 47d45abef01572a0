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
        let hex = |t: &str| t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if alloc.len() != 32 || instance.len() != 8 || !hex(alloc) || !hex(instance) {
            return None;
        }
        let alloc = u128::from_str_radix(alloc, 16).ok()?;
        let instance = u32::from_str_radix(instance, 16).ok()?;
        Some(Self { alloc: AllocId(alloc.to_be_bytes()), instance: Instance(instance) })
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
        for bad in ["", "-", &format!("{}-00C0FFEE", "ab".repeat(16)), &"../".repeat(14)] {
            assert_eq!(UnitId::parse(bad), None, "{bad}");
        }
    }
}
