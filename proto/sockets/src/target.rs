//! Where a mount may be inside a container.
//!
//! systemd-nspawn is host root when it mounts, and goes on writing by path for a while after: a mount
//! in one of its own places would let what lies there choose the files of the host that it writes. So
//! a [`Target`] of a refused place can neither be made nor decoded. The driver, the policy and the
//! launcher share this one rule.

use std::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

use crate::name::InvalidName;
use crate::path::Absolute;

/// Where every task has a mount already.
const TAKEN: [&[&str]; 6] = [&[], &["dev"], &["run"], &["alloc"], &["local"], &["secrets"]];

/// A place inside that a mount may have, as far as its path goes. Links of an image may lead from it
/// to a refused one: the launcher makes another `Target` of where they lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Encode)]
pub struct Target(Absolute);

impl Target {
    /// Checks the rule and takes the path.
    ///
    /// # Errors
    /// The rule that the path breaks.
    pub fn new(path: Absolute) -> Result<Self, InvalidName> {
        let invalid = |rule| InvalidName { kind: "mount point", rule };
        let names: Vec<_> = path.components().iter().map(|part| part.as_str()).collect();
        if let ["proc" | "sys", ..] | ["run", "host", ..] = names[..] {
            return Err(invalid("nothing is mounted at or below /proc, /sys and /run/host"));
        }
        if TAKEN.contains(&names.as_slice()) {
            return Err(invalid("the task has a mount of its own there"));
        }
        Ok(Self(path))
    }

    /// Reads a path as people write it.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        Absolute::parse(text).and_then(Self::new)
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Absolute {
        &self.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<C> Decode<C> for Target {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let path = Absolute::decode(decoder)?;
        let told = path.to_string();
        Self::new(path).map_err(|e| DecodeError::OtherString(format!("{told}: {e}")))
    }
}

bincode::impl_borrow_decode!(Target);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    const REFUSED: [&str; 16] = [
        "/",
        "/dev",
        "/run",
        "/alloc",
        "/local",
        "/secrets",
        "/proc",
        "/proc/kcore",
        "/sys",
        "/sys/fs/cgroup",
        "/run/host",
        "/run/host/x",
        "//run//host/",
        "/alloc/",
        "x",
        "/a/..",
    ];

    #[test]
    fn a_refused_place_is_neither_made_nor_decoded() {
        for text in REFUSED {
            assert!(Target::parse(text).is_err(), "{text}");
            let Ok(path) = Absolute::parse(text) else { continue };
            let bytes = codec::encode(&path).unwrap();
            let error = codec::decode::<Target>(&bytes).unwrap_err().to_string();
            assert!(error.contains(&path.to_string()), "{text}: {error}");
        }
    }

    #[test]
    fn other_places_are_as_they_were() {
        for text in ["/a", "/dev/x", "/run/x", "/run/hosts", "/procs", "/alloc/x", "/etc/hosts"] {
            let target = Target::parse(text).unwrap();
            assert_eq!(target.to_string(), text);
            let bytes = codec::encode(target.path()).unwrap();
            assert_eq!(codec::encode(&target).unwrap(), bytes);
            assert_eq!(codec::decode::<Target>(&bytes).unwrap(), target);
        }
    }
}
