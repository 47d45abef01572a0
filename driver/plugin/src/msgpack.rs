//! MessagePack as Nomad writes it: job and plugin configuration.
//!
//! The bytes come from the agent, but their content from whoever may submit jobs, so nothing is
//! taken on trust: lengths are checked against the bytes that are left before anything is
//! allocated, and nesting is bounded. Older encoders write text as raw bytes; both are read.

use std::fmt;

/// Deepest nesting that is read; a job's configuration has about four levels.
const DEPTH_MAX: usize = 32;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Unset.
    Nil,
    /// A truth value.
    Bool(bool),
    /// A whole number of any of the forms on the wire.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// A list, set or tuple.
    List(Vec<Value>),
    /// A map or object, in the order of the wire.
    Map(Vec<(String, Value)>),
}

/// Why bytes are not a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// They end inside a value.
    Short,
    /// There are bytes after the value.
    Trailing,
    /// Text that is not UTF-8.
    Text,
    /// A map's key is not text.
    Key,
    /// Nested deeper than [`DEPTH_MAX`].
    Deep,
    /// A type that configurations do not use.
    Type(u8),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends inside a value"),
            Self::Trailing => f.write_str("bytes behind its end"),
            Self::Text => f.write_str("a text is not UTF-8"),
            Self::Key => f.write_str("a key is not text"),
            Self::Deep => f.write_str("nested too deep"),
            Self::Type(code) => write!(f, "unexpected type 0x{code:02x}"),
        }
    }
}

/// Decodes one value that fills the bytes.
///
/// # Errors
/// Why the bytes are not one value.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(Malformed::Trailing) }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A length of `width` bytes.
    fn length(&mut self, width: u8) -> Result<usize, Malformed> {
        let length = match width {
            1 => u32::from(self.byte()?),
            2 => u32::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?),
        };
        usize::try_from(length).map_err(|_| Malformed::Short)
    }

    fn value(&mut self, depth: usize) -> Result<Value, Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed::Deep);
        }
        let code = self.byte()?;
        match code {
            0x00..=0x7f => Ok(Value::Integer(i128::from(code))),
            0xe0..=0xff => Ok(Value::Integer(i128::from(i8::from_be_bytes([code])))),
            0x80..=0x8f => self.map(usize::from(code & 0x0f), depth),
            0x90..=0x9f => self.list(usize::from(code & 0x0f), depth),
            0xa0..=0xbf => self.text(usize::from(code & 0x1f)),
            0xc0 => Ok(Value::Nil),
            0xc2 => Ok(Value::Bool(false)),
            0xc3 => Ok(Value::Bool(true)),
            0xc4 | 0xd9 => self.text_of(1),
            0xc5 | 0xda => self.text_of(2),
            0xc6 | 0xdb => self.text_of(4),
            0xdc => self.length(2).and_then(|n| self.list(n, depth)),
            0xdd => self.length(4).and_then(|n| self.list(n, depth)),
            0xde => self.length(2).and_then(|n| self.map(n, depth)),
            0xdf => self.length(4).and_then(|n| self.map(n, depth)),
            _ => self.number(code),
        }
    }

    fn number(&mut self, code: u8) -> Result<Value, Malformed> {
        Ok(match code {
            0xca => Value::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Value::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Value::Integer(i128::from(self.byte()?)),
            0xcd => Value::Integer(i128::from(u16::from_be_bytes(self.array()?))),
            0xce => Value::Integer(i128::from(u32::from_be_bytes(self.array()?))),
            0xcf => Value::Integer(i128::from(u64::from_be_bytes(self.array()?))),
            0xd0 => Value::Integer(i128::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Value::Integer(i128::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Value::Integer(i128::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Value::Integer(i128::from(i64::from_be_bytes(self.array()?))),
            code => return Err(Malformed::Type(code)),
        })
    }

    fn text_of(&mut self, width: u8) -> Result<Value, Malformed> {
        let length = self.length(width)?;
        self.text(length)
    }

    fn text(&mut self, length: usize) -> Result<Value, Malformed> {
        let bytes = self.take(length)?;
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Text)?;
        Ok(Value::Text(text.to_owned()))
    }

    fn list(&mut self, length: usize, depth: usize) -> Result<Value, Malformed> {
        // Each element takes a byte at least: a length beyond the rest is a lie.
        if length > self.rest.len() {
            return Err(Malformed::Short);
        }
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(self.value(depth + 1)?);
        }
        Ok(Value::List(items))
    }

    fn map(&mut self, length: usize, depth: usize) -> Result<Value, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed::Short);
        }
        let mut entries = Vec::new();
        for _ in 0..length {
            let Value::Text(key) = self.value(depth + 1)? else {
                return Err(Malformed::Key);
            };
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Encodes a value in the longest forms, for round trips.
    pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) {
        let length = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
        match value {
            Value::Nil => out.push(0xc0),
            Value::Bool(b) => out.push(0xc2 + u8::from(*b)),
            Value::Integer(n) => match i64::try_from(*n) {
                Ok(n) => {
                    out.push(0xd3);
                    out.extend(n.to_be_bytes());
                }
                Err(_) => {
                    out.push(0xcf);
                    out.extend(u64::try_from(*n).unwrap().to_be_bytes());
                }
            },
            Value::Float(x) => {
                out.push(0xcb);
                out.extend(x.to_be_bytes());
            }
            Value::Text(text) => {
                out.push(0xdb);
                out.extend(length(text.len()));
                out.extend(text.as_bytes());
            }
            Value::List(items) => {
                out.push(0xdd);
                out.extend(length(items.len()));
                items.iter().for_each(|item| encode(item, out));
            }
            Value::Map(entries) => {
                out.push(0xdf);
                out.extend(length(entries.len()));
                for (key, item) in entries {
                    encode(&Value::Text(key.clone()), out);
                    encode(item, out);
                }
            }
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn every_form_of_text_and_number_is_read() {
        for bytes in [
            &b"\xa2hi"[..],
            b"\xd9\x02hi",
            b"\xda\0\x02hi",
            b"\xdb\0\0\0\x02hi",
            b"\xc4\x02hi",
            b"\xc5\0\x02hi",
            b"\xc6\0\0\0\x02hi",
        ] {
            assert_eq!(decode(bytes), Ok(text("hi")), "{bytes:?}");
        }
        for (bytes, number) in [
            (&b"\x07"[..], 7),
            (b"\xff", -1),
            (b"\xcc\xff", 255),
            (b"\xcd\x01\0", 256),
            (b"\xce\0\x01\0\0", 65_536),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", i128::from(u64::MAX)),
            (b"\xd0\x80", -128),
            (b"\xd1\xff\0", -256),
            (b"\xd2\xff\xff\xff\xff", -1),
            (b"\xd3\xff\xff\xff\xff\xff\xff\xff\xfe", -2),
        ] {
            assert_eq!(decode(bytes), Ok(Value::Integer(number)), "{bytes:?}");
        }
        assert_eq!(decode(b"\xca\x3f\0\0\0"), Ok(Value::Float(0.5)));
        assert_eq!(
            decode(b"\x82\xa1a\xc0\xa1b\x92\xc3\xa0"),
            Ok(Value::Map(vec![
                ("a".to_owned(), Value::Nil),
                ("b".to_owned(), Value::List(vec![Value::Bool(true), text("")])),
            ]))
        );
    }

    #[test]
    fn lies_are_refused_without_allocating() {
        assert_eq!(decode(b""), Err(Malformed::Short));
        assert_eq!(decode(b"\xdd\xff\xff\xff\xff"), Err(Malformed::Short));
        assert_eq!(decode(b"\xdf\xff\xff\xff\xff"), Err(Malformed::Short));
        assert_eq!(decode(b"\xdb\xff\xff\xff\xff"), Err(Malformed::Short));
        assert_eq!(decode(b"\xc0\xc0"), Err(Malformed::Trailing));
        assert_eq!(decode(b"\xa1\xff"), Err(Malformed::Text));
        assert_eq!(decode(b"\x81\x01\x01"), Err(Malformed::Key));
        assert_eq!(decode(b"\xd4\0\0"), Err(Malformed::Type(0xd4)));
        assert_eq!(decode(&[0x91; 100]), Err(Malformed::Deep));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|n| Value::Integer(n.into())),
            any::<u64>().prop_map(|n| Value::Integer(n.into())),
            (-1e9..1e9).prop_map(Value::Float),
            ".*".prop_map(Value::Text),
        ];
        leaf.prop_recursive(4, 32, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
                proptest::collection::vec((".*", inner), 0..8).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(value in values()) {
            let mut bytes = Vec::new();
            encode(&value, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(value));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            decode(&bytes).ok();
        }
    }
}
