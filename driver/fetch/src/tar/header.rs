//! One header block of tar.
//!
//! For: the fields of 512 bytes, POSIX.1-2001 ustar and GNU (tar(5)).
//! Trusts: nothing; the checksum is compared first.
//! Never: reads a field that its format does not have.

use crate::error::{Error, Result};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 512;

/// A header block with a right checksum.
#[derive(Debug)]
pub(crate) struct Header {
    block: [u8; BLOCK],
}

impl Header {
    /// Checks the checksum. Some old programs added signed bytes: both sums are accepted.
    pub(crate) fn new(block: [u8; BLOCK]) -> Result<Self> {
        let header = Self { block };
        let sum = |one: fn(u8) -> i64| -> i64 {
            let field = 148..156;
            let bytes = header.block.iter().enumerate();
            bytes.map(|(at, byte)| one(if field.contains(&at) { b' ' } else { *byte })).sum()
        };
        let stored = header.number(148, 8, "checksum")?;
        if stored != sum(i64::from) && stored != sum(|byte| i64::from(byte.cast_signed())) {
            return Err(Error::archive(
                "a header's checksum is wrong: the stream is damaged or is not a tar archive",
            ));
        }
        Ok(header)
    }

    /// The byte that names the type.
    pub(crate) fn type_flag(&self) -> u8 {
        self.block.get(156).copied().unwrap_or(0)
    }

    /// Bytes of a field.
    pub(crate) fn field(&self, at: usize, len: usize) -> &[u8] {
        self.block.get(at..at + len).unwrap_or_default()
    }

    /// A field's text, up to its NUL.
    fn text(&self, at: usize, len: usize) -> &[u8] {
        let field = self.field(at, len);
        field.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// A number in octal or, with the first bit set, in base 256.
    pub(crate) fn number(&self, at: usize, len: usize, name: &str) -> Result<i64> {
        number(self.field(at, len))
            .ok_or_else(|| Error::archive(format!("the header's {name} is not a number")))
    }

    /// A number that cannot be below zero.
    pub(crate) fn size(&self, at: usize, len: usize, name: &str) -> Result<u64> {
        let value = self.number(at, len, name)?;
        u64::try_from(value)
            .map_err(|_| Error::archive(format!("the header's {name} is below zero")))
    }

    /// Whether it is of the format that GNU tar writes by itself.
    pub(crate) fn is_gnu(&self) -> bool {
        self.field(257, 8) == b"ustar  \0"
    }

    /// The name, with the prefix where the format has one.
    pub(crate) fn path(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        let prefix = if self.field(257, 6) == b"ustar\0" { self.text(345, 155) } else { &[] };
        if prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    /// The target of a link.
    pub(crate) fn link(&self) -> Vec<u8> {
        self.text(157, 100).to_vec()
    }
}

/// Octal digits between spaces and NULs, or a big-endian number in two's complement.
pub(crate) fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Bit 6 is the sign; the flag in bit 7 takes its value.
        let head = if first & 0x40 != 0 { *first } else { first & 0x7f };
        let mut value = i64::from(head.cast_signed());
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i64::from(*byte))?;
        }
        return Some(value);
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    if rest.iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_one_meaning() {
        for (field, value) in [
            (&b"0000755\0"[..], Some(0o755)),
            (b"    755 ", Some(0o755)),
            (b"00000000", Some(0)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"0000758\0", None),
            (b"12\0" as &[u8], Some(10)),
            (b"12\x0034\0", None),
            (b"-12 ", None),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
