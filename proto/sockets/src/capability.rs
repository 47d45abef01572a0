//! Sets of Linux capabilities, as numbers: no name crosses a socket.

use std::fmt;

use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};

/// Names by number (capabilities(7); linux/capability.h), without `CAP_`.
pub const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities. Bits beyond [`NAMES`] cannot be in it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Encode)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Every capability that this build knows.
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);

    /// The set with one capability, by name with or without `CAP_`, in any case; `all` is every one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.trim().to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if short == "ALL" {
            return Some(Self::ALL);
        }
        NAMES.iter().position(|known| *known == short).map(|number| Self(1 << number))
    }

    /// The mask of the kernel's.
    #[must_use]
    pub fn mask(self) -> u64 {
        self.0
    }

    /// The known capabilities of a mask of the kernel's (`CapBnd:` of proc_pid_status(5)).
    #[must_use]
    pub fn of_mask(mask: u64) -> Self {
        Self(mask & Self::ALL.0)
    }

    /// Those in both sets.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Both sets together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there is none in it.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names with `CAP_`, in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = String> {
        let known = NAMES.iter().enumerate();
        known
            .filter(move |(number, _)| self.0 & (1 << number) != 0)
            .map(|(_, n)| format!("CAP_{n}"))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

impl<C> Decode<C> for Capabilities {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bits = u64::decode(decoder)?;
        if bits & !Self::ALL.0 != 0 {
            return Err(DecodeError::Other("no such capability"));
        }
        Ok(Self(bits))
    }
}

bincode::impl_borrow_decode!(Capabilities);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn names_are_read_with_and_without_prefix() {
        let admin = Capabilities::named("CAP_SYS_ADMIN").unwrap();
        assert_eq!(Capabilities::named("sys_admin"), Some(admin));
        assert_eq!(admin.to_string(), "CAP_SYS_ADMIN");
        assert_eq!(Capabilities::named("all"), Some(Capabilities::ALL));
        assert!(Capabilities::ALL.without(admin).names().all(|name| name != "CAP_SYS_ADMIN"));
        assert_eq!(Capabilities::named("CAP_NO_SUCH"), None);
        assert_eq!(Capabilities::named(""), None);
    }

    #[test]
    fn unknown_bits_do_not_decode() {
        let all = codec::encode(&Capabilities::ALL).unwrap();
        assert_eq!(codec::decode::<Capabilities>(&all), Ok(Capabilities::ALL));
        let beyond = codec::encode(&(1_u64 << NAMES.len())).unwrap();
        assert!(codec::decode::<Capabilities>(&beyond).is_err());
    }
}
