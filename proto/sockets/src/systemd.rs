//! Versions of systemd: which is too old for this driver, and which have known holes; and the paths
//! under which PID 1 knows units on the bus.
//!
//! The text is that of PID 1's `Version` property, e.g. `257.13-1~deb13u1`. A distribution may
//! carry a fix under an older number; only Debian 12's is known here, for others the operator
//! names the very version in the policy file (`systemd.accept`).

use std::fmt;

/// Oldest version that can run tasks.
pub const OLDEST: u32 = 252;

/// A systemd that no task should run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// The version could not be read: nothing is known about its holes.
    Unknown,
    /// Older than [`OLDEST`].
    Old,
    /// CVE-2026-40226, versions 233 to 259: a settings file beside an image reaches the host.
    Settings,
    /// CVE-2026-40223, versions 258 and 259: any local user stops PID 1 while a unit with
    /// `Delegate=yes` runs, as every task does.
    Delegate,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "does not give its version on the bus now",
            Self::Old => "is too old for this driver, which needs systemd 252",
            Self::Settings => {
                "has the known hole CVE-2026-40226 (a settings file beside an image reaches the \
                 host), fixed in 257.12, 260 and Debian's 252.39-1~deb12u2"
            }
            Self::Delegate => {
                "has the known hole CVE-2026-40223 (any local user can stop PID 1 while a task \
                 runs), fixed in 260"
            }
        })
    }
}

/// The number before the first dot, blank or dash; 0 when there is none.
#[must_use]
pub fn major(version: &str) -> u32 {
    numbers(version).0
}

/// Major and minor number.
fn numbers(version: &str) -> (u32, u32) {
    let number = |text: &str| -> (u32, usize) {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        (text.get(..end).unwrap_or_default().parse().unwrap_or(0), end)
    };
    let (major, end) = number(version);
    let minor = version.get(end..).and_then(|rest| rest.strip_prefix('.'));
    (major, minor.map_or(0, |minor| number(minor).0))
}

/// Why no task should run on this version; `None`: nothing is known against it. An empty text
/// stands for a version that could not be read.
#[must_use]
pub fn unfit(version: &str) -> Option<Unfit> {
    if version.is_empty() {
        return Some(Unfit::Unknown);
    }
    match numbers(version) {
        (..OLDEST, _) => Some(Unfit::Old),
        (252, 39) => {
            let debian = version.strip_prefix("252.39-1~deb12u").map(numbers);
            debian.is_none_or(|(update, _)| update < 2).then_some(Unfit::Settings)
        }
        (252, 40..) if version.contains("deb12") => None,
        (257, 12..) | (260.., _) => None,
        (258 | 259, _) => Some(Unfit::Delegate),
        _ => Some(Unfit::Settings),
    }
}

/// D-Bus path of a unit: systemd escapes each byte that is no letter and, at the beginning, no
/// digit (sd_bus_path_encode(3)).
#[must_use]
pub fn unit_path(unit: &str) -> String {
    let mut path = String::from("/org/freedesktop/systemd1/unit/");
    if unit.is_empty() {
        path.push('_');
    }
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_holes_are_known_by_version() {
        for (version, expected) in [
            ("252.39-1~deb12u2", None),
            ("252.39-1~deb12u1", Some(Unfit::Settings)),
            ("252.39", Some(Unfit::Settings)),
            ("252.6-1", Some(Unfit::Settings)),
            ("251.4", Some(Unfit::Old)),
            ("unreadable", Some(Unfit::Old)),
            ("252.40-1~deb12u1", None),
            ("250", Some(Unfit::Old)),
            ("255.4-1ubuntu8.15", Some(Unfit::Settings)),
            ("257.11", Some(Unfit::Settings)),
            ("257.13-1~deb13u1", None),
            ("258.7", Some(Unfit::Delegate)),
            ("259", Some(Unfit::Delegate)),
            ("260~rc1", None),
            ("262-1", None),
        ] {
            assert_eq!(unfit(version), expected, "{version}");
        }
        assert_eq!(major("257.13-1~deb13u1"), 257);
    }

    #[test]
    fn s16_an_unreadable_version_is_not_fit() {
        assert_eq!(unfit(""), Some(Unfit::Unknown));
    }

    #[test]
    fn unit_paths_are_systemds() {
        assert_eq!(
            unit_path("nomad-nspawn-0a.service"),
            "/org/freedesktop/systemd1/unit/nomad_2dnspawn_2d0a_2eservice"
        );
        assert_eq!(unit_path("1_é"), "/org/freedesktop/systemd1/unit/_31_5f_c3_a9");
    }
}
