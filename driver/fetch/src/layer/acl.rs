//! POSIX access control lists.
//!
//! For: the text of acl_to_text(3), which GNU tar and bsdtar write, as the value of an extended
//! attribute (Linux, include/uapi/linux/posix_acl_xattr.h).
//! Trusts: nothing.
//! Never: looks a user's name up: names mean what they meant on the host that made the archive.

use crate::bytes::{le16, le32};
use crate::error::{Error, Result, show};
use crate::tar::pax::decimal;

/// Attribute of the access list.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute of a directory's default list.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_LEN: usize = 8;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
/// Entries without a qualifier have this one.
const UNDEFINED: u32 = u32::MAX;

/// What a list's text comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    /// The attribute's value.
    Encoded(Vec<u8>),
    /// It names users or groups by names that cannot be resolved. `group`: what the owning group
    /// may do, for the mode, whose group bits stand for the mask as long as there is a list.
    UnknownNames { group: u8 },
}

type Entry = (u16, u32, u8);

/// Reads the text form: entries `TAG:QUALIFIER:PERMISSIONS`, separated by commas or lines.
pub(crate) fn parse(text: &[u8]) -> Result<Parsed> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut unknown = false;
    for item in text.split(|byte| matches!(byte, b',' | b'\n')) {
        let item = item.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if item.is_empty() {
            continue;
        }
        match parse_entry(item) {
            Some(Ok(entry)) => entries.push(entry),
            Some(Err(UnknownName)) => unknown = true,
            None => return Err(malformed(item)),
        }
    }
    if unknown {
        let bits = |tag| entries.iter().find(|entry| entry.0 == tag).map(|entry| entry.2);
        let group = bits(GROUP_OBJ).unwrap_or(0) & bits(MASK).unwrap_or(7);
        return Ok(Parsed::UnknownNames { group });
    }
    entries.sort_unstable();
    if !is_valid(&entries) {
        return Err(malformed(text));
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, bits) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(u16::from(bits).to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    Ok(Parsed::Encoded(value))
}

fn malformed(text: &[u8]) -> Error {
    Error::archive(format!("the access control list {} is malformed", show(text)))
}

struct UnknownName;

fn parse_entry(item: &[u8]) -> Option<std::result::Result<Entry, UnknownName>> {
    let mut fields = item.split(|byte| *byte == b':').map(<[u8]>::trim_ascii);
    let tag = fields.next()?;
    let qualifier = fields.next()?;
    // Others and the mask may leave out their empty qualifier.
    let (qualifier, bits) = match fields.next() {
        Some(bits) => (qualifier, bits),
        None if matches!(tag, b"other" | b"o" | b"mask" | b"m") => (&b""[..], qualifier),
        None => return None,
    };
    let bits = parse_bits(bits)?;
    let (plain, named) = match tag {
        b"user" | b"u" => (USER_OBJ, Some(USER)),
        b"group" | b"g" => (GROUP_OBJ, Some(GROUP)),
        b"mask" | b"m" => (MASK, None),
        b"other" | b"o" => (OTHER, None),
        _ => return None,
    };
    if qualifier.is_empty() {
        return Some(Ok((plain, UNDEFINED, bits)));
    }
    let named = named?;
    // star and bsdtar add the number after the permissions.
    let id = match (decimal(qualifier), fields.next().and_then(decimal)) {
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) if qualifier == b"root" => 0,
        (None, None) => return Some(Err(UnknownName)),
    };
    let id = u32::try_from(id).ok().filter(|id| *id != UNDEFINED)?;
    Some(Ok((named, id, bits)))
}

fn parse_bits(text: &[u8]) -> Option<u8> {
    let mut bits = 0;
    for byte in text {
        bits |= match byte {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return None,
        };
    }
    (text.len() <= 3 && !text.is_empty()).then_some(bits)
}

/// What posix_acl_valid() of the kernel demands: one of each plain entry, a mask when there is a
/// named entry, no name twice, in this order.
fn is_valid(entries: &[Entry]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let named = count(USER) + count(GROUP);
    let ascending = entries.is_sorted_by(|one, other| (one.0, one.1) < (other.0, other.1));
    count(USER_OBJ) == 1
        && count(GROUP_OBJ) == 1
        && count(OTHER) == 1
        && (count(MASK) == 1 || (count(MASK) == 0 && named == 0))
        && ascending
        && entries.iter().all(|entry| entry.2 <= 7)
}

/// The permissions of the mode that go with the access list `value`, as setxattr(2) computes them:
/// the mask, where there is one, stands in the place of the group.
pub(crate) fn mode_of(value: &[u8]) -> u16 {
    let entries = value.get(4..).unwrap_or_default().chunks(ENTRY_LEN);
    let bits = |tag| {
        let entry = entries.clone().find(|entry| le16(entry, 0) == Some(tag))?;
        le16(entry, 2).map(|bits| bits & 7)
    };
    let group = bits(MASK).or_else(|| bits(GROUP_OBJ)).unwrap_or(0);
    bits(USER_OBJ).unwrap_or(0) << 6 | group << 3 | bits(OTHER).unwrap_or(0)
}

/// Whether `value` has entries that the mode cannot express.
pub(crate) fn is_extended(value: &[u8]) -> bool {
    value.len() > 4 + 3 * ENTRY_LEN
}

/// Whether `value` is a list in the form of the attribute.
pub(crate) fn is_encoded(value: &[u8]) -> bool {
    let entries = value.get(4..).unwrap_or_default();
    let parsed: Option<Vec<Entry>> = entries
        .chunks(ENTRY_LEN)
        .map(|entry| {
            let id = le32(entry, 4)?;
            let tag = le16(entry, 0)?;
            let named = matches!(tag, USER | GROUP);
            let known = matches!(tag, USER_OBJ | GROUP_OBJ | MASK | OTHER);
            (named && id != UNDEFINED || known).then_some(())?;
            // The kernel ignores the number of entries without a name.
            let id = if named { id } else { UNDEFINED };
            Some((tag, id, u8::try_from(le16(entry, 2)?).ok()?))
        })
        .collect();
    le32(value, 0) == Some(VERSION)
        && entries.len().is_multiple_of(ENTRY_LEN)
        && parsed.is_some_and(|entries| is_valid(&entries))
}

#[cfg(test)]
mod tests {
    use super::{Parsed, is_encoded, is_extended, mode_of, parse};

    #[test]
    fn text_becomes_the_attribute() {
        let text = b"user::rw-,user:1000:r-x,group::r--,group:5:rwx,mask::rwx,other::---\n";
        let Parsed::Encoded(value) = parse(text).unwrap() else { panic!() };
        assert_eq!(value.len(), 4 + 6 * 8);
        assert!(is_encoded(&value));
        assert_eq!(
            value[..20],
            [2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 5, 0, 232, 3, 0, 0]
        );
        assert_eq!(mode_of(&value), 0o670);
        let Parsed::Encoded(value) = parse(b"user::rwx,group::r-x,other::r-x").unwrap() else {
            panic!()
        };
        assert!(!is_extended(&value));
        assert_eq!(mode_of(&value), 0o755);
    }

    #[test]
    fn unknown_names_leave_the_groups_own_rights() {
        let text = b"user::rwx,user:somebody:rwx,group::r-x,mask::rwx,other::---";
        assert_eq!(parse(text).unwrap(), Parsed::UnknownNames { group: 5 });
        let star = b"user::rwx,user:somebody:rwx:1007,group::r-x,mask::rwx,other::---";
        assert!(matches!(parse(star).unwrap(), Parsed::Encoded(_)));
    }

    #[test]
    fn malformed_lists_are_refused() {
        for bad in [
            "user::rwx",
            "user::rwz,group::r-x,other::r-x",
            "user:1:rwx,group::r-x,other::r-x",
            "user::rwx,user:1:rwx,group::r-x,other::r-x",
            "nobody::rwx",
            "user::rwx,user:1:r--,user:1:rwx,group::r-x,mask::rwx,other::r-x",
            "user::rwx,user:4294967295:r--,group::r-x,mask::rwx,other::r-x",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(!is_encoded(b""));
        assert!(!is_encoded(&[2, 0, 0, 0]));
        assert!(!is_encoded(&[2, 0, 0, 0, 1, 0, 6]));
    }
}
