//! PAX extended headers.
//!
//! For: the records of one header, POSIX.1-2001 pax, with those of GNU tar and star.
//! Trusts: nothing.
//! Never: guesses: a record that is no record refuses the archive.

use crate::error::{Error, Result, show};

/// What the records of one member set. An empty value means "as in the header", as in POSIX.
#[derive(Debug, Default)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: Option<(i64, u32)>,
    /// Names without their prefix, and values, in their order.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Access and default list in the text form of acl_to_text(3).
    pub(crate) acl_access: Option<Vec<u8>>,
    pub(crate) acl_default: Option<Vec<u8>>,
    /// `GNU.sparse.*`.
    pub(crate) sparse: SparseRecords,
}

/// Records of the three sparse formats of GNU tar.
#[derive(Debug, Default)]
pub(crate) struct SparseRecords {
    pub(crate) version: (Option<u64>, Option<u64>),
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) real_size: Option<u64>,
    /// Format 0.0: an offset and a length, each a record of its own.
    pub(crate) pairs: Vec<u64>,
    /// Format 0.1: offsets and lengths, separated by commas.
    pub(crate) map: Option<Vec<u8>>,
}

/// Splits `data` into records `LENGTH KEY=VALUE\n`.
pub(crate) fn records(mut data: &[u8]) -> Result<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let (record, rest) =
            split_record(data).ok_or_else(|| Error::archive("a PAX record is malformed"))?;
        records.push(record);
        data = rest;
    }
    Ok(records)
}

type Record<'a> = (&'a [u8], &'a [u8]);

fn split_record(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let digits = data.get(..space)?;
    let length = usize::try_from(decimal(digits)?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (body.get(..equals)?, body.get(equals + 1..)?);
    (!key.is_empty()).then_some(((key, value), rest))
}

/// A decimal number, digits only.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, digit| match digit {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Seconds with a fraction, perhaps below zero.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = match value.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or(b"0");
    decimal(fraction.get(..9).unwrap_or(fraction))?;
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, _) => (seconds, nanos),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanos),
    })
}

impl Pax {
    /// Reads the records of a header of type `x`. Of two with one key the later counts.
    pub(crate) fn parse(data: &[u8]) -> Result<Self> {
        let mut pax = Self::default();
        for (key, value) in records(data)? {
            pax.set(key, value).ok_or_else(|| {
                Error::archive(format!("the PAX record {} has a malformed value", show(key)))
            })?;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = text(value),
            b"linkpath" => self.link = text(value),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(time(value)?),
            b"SCHILY.acl.access" => self.acl_access = text(value),
            b"SCHILY.acl.default" => self.acl_default = text(value),
            b"GNU.sparse.major" => self.sparse.version.0 = number(value)?,
            b"GNU.sparse.minor" => self.sparse.version.1 = number(value)?,
            b"GNU.sparse.name" => self.sparse.name = text(value),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse.real_size = number(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // They alternate, an offset first.
                let even = self.sparse.pairs.len().is_multiple_of(2);
                if even != (key == b"GNU.sparse.offset") {
                    return None;
                }
                self.sparse.pairs.push(decimal(value)?);
            }
            b"GNU.sparse.map" => self.sparse.map = text(value),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }

    /// Checks a header of type `g`, which would hold for all members that follow. Readers differ:
    /// GNU tar applies it, Go's does not. So only records that change nothing are accepted.
    pub(crate) fn check_global(data: &[u8]) -> Result<()> {
        const CHANGES: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];
        for (key, _) in records(data)? {
            let prefix = [&b"SCHILY."[..], b"GNU.sparse."].iter().any(|p| key.starts_with(p));
            if prefix || CHANGES.contains(&key) {
                return Err(Error::archive(format!(
                    "a global PAX header sets {} for all members, which readers of tar \
                     disagree about: make the archive without it",
                    show(key)
                )));
            }
        }
        Ok(())
    }
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

/// None for a malformed value, an inner none for an empty one.
#[expect(clippy::option_option, reason = "two reasons for no number")]
fn number(value: &[u8]) -> Option<Option<u64>> {
    if value.is_empty() { Some(None) } else { decimal(value).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::{Pax, records, time};

    #[test]
    fn records_are_exact() {
        let two = b"12 path=a/b\n11 size=10\n";
        let read = records(two).unwrap();
        assert_eq!(read, [(&b"path"[..], &b"a/b"[..]), (b"size", b"10")]);
        assert_eq!(records(b"16 path=a\nb\n\0=1\n").unwrap()[0].1, b"a\nb\n\0=1");
        for bad in
            ["11 path=a/b\n", "13 path=a/b\n", "path=a/b\n", "12 path_a/b\n", "0 ", "9 =abcd\n"]
        {
            assert!(records(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(records(b"99999999999999999999 path=a\n").is_err());
    }

    #[test]
    fn values_have_one_meaning() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-3"), Some((-3, 0)));
        assert_eq!(time(b"7.1234567891"), Some((7, 123_456_789)));
        assert_eq!(time(b"1e9"), None);
        for bad in ["12 size=-12\n", "18 size=+9223372\n", "30 size=18446744073709551616\n"] {
            assert!(Pax::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let removed = Pax::parse(b"11 size=10\n8 size=\n").unwrap();
        assert_eq!(removed.size, None);
        assert!(Pax::check_global(b"19 comment=abcdefg\n").is_ok());
        assert!(Pax::check_global(b"9 uid=10\n").is_err());
    }
}
