//! Typed values out of a policy text, each with its key and line for messages.
//!
//! Knows TOML, not what a key means. Takes nothing silently: an unknown
//! key, a wrong type or a number out of range is an error that names its line.

use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Keys without a default.
pub(super) const UNSET: [&str; 4] =
    ["images.cache_dir", "images.cache_max_size", "limits.memory", "limits.tasks"];

/// Longest part of a value in a message, in bytes.
const SHOWN: usize = 80;

type Value<'a> = Spanned<DeValue<'a>>;

/// A policy text.
pub(super) struct Reader<'a> {
    text: &'a str,
    table: DeTable<'a>,
}

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    key: &'static str,
    text: &'a str,
    value: &'a Value<'a>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, String> {
        let table = DeTable::parse(text).map_err(|e| {
            let start = e.span().map_or(0, |span| span.start);
            format!("line {}: {}", line(text, start), e.message())
        })?;
        Ok(Self { text, table: table.into_inner() })
    }

    /// Checks that every key is one of `known`, or of [`UNSET`].
    pub(super) fn check_keys(&self, known: &Reader<'_>) -> Result<(), String> {
        let unknown = |name: &str, at: usize| {
            Err(format!("line {}: {name} is no key of this file", line(self.text, at)))
        };
        for (section, value) in &self.table {
            let name = section.get_ref().as_ref();
            match (value.get_ref(), known.table.get(name).map(Spanned::get_ref)) {
                (DeValue::Table(keys), Some(DeValue::Table(known))) => {
                    for key in keys.keys() {
                        let full = format!("{name}.{}", key.get_ref());
                        if !known.contains_key(key.get_ref().as_ref())
                            && !UNSET.contains(&full.as_str())
                        {
                            return unknown(&full, key.span().start);
                        }
                    }
                }
                (_, None | Some(DeValue::Table(_))) => {
                    return unknown(name, section.span().start);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The value of a key, when the text has it.
    pub(super) fn get(&'a self, key: &'static str) -> Option<Item<'a>> {
        let value = match key.split_once('.') {
            None => self.table.get(key),
            Some((section, name)) => match self.table.get(section)?.get_ref() {
                DeValue::Table(table) => table.get(name),
                _ => None,
            },
        };
        value.map(|value| Item { key, text: self.text, value })
    }
}

impl<'a> Item<'a> {
    /// The error that says what is wrong with this value.
    pub(super) fn wrong(self, rule: impl Display) -> String {
        let span = self.value.span();
        let mut shown = self.text.get(span.clone()).unwrap_or_default().to_owned();
        shown.truncate(shown.floor_char_boundary(SHOWN));
        let key = match self.key.split_once('.') {
            Some((section, name)) => format!("[{section}] {name}"),
            None => self.key.to_owned(),
        };
        format!("line {}: {key}: {shown} {rule}", line(self.text, span.start))
    }

    pub(super) fn text(self) -> Result<&'a str, String> {
        self.value.get_ref().as_str().ok_or_else(|| self.wrong("is not a text"))
    }

    pub(super) fn flag(self) -> Result<bool, String> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("is not true or false"))
    }

    pub(super) fn number(self, range: RangeInclusive<i64>) -> Result<i64, String> {
        let number = self.value.get_ref().as_integer();
        number
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                self.wrong(format!("is not a number of {} to {}", range.start(), range.end()))
            })
    }

    /// A number of bytes: an integer, or a text with k, m, g or t behind it (powers of 1,024).
    pub(super) fn size(self, range: RangeInclusive<u64>) -> Result<u64, String> {
        let plain = self.number(0..=i64::MAX).ok().and_then(|number| u64::try_from(number).ok());
        let spelled = || {
            let text = self.value.get_ref().as_str()?.to_ascii_lowercase();
            let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let suffix = text.get(digits.len()..)?;
            let power = ["", "k", "m", "g", "t"].iter().position(|known| *known == suffix)?;
            digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
        };
        plain.or_else(spelled).filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            self.wrong(format!(
                "is not a size of {} to {} (\"512m\", \"2g\", or a number)",
                range.start(),
                range.end()
            ))
        })
    }

    /// The elements of a list.
    pub(super) fn list(self) -> Result<impl Iterator<Item = Self>, String> {
        let Self { key, text, value } = self;
        let list = value.get_ref().as_array().ok_or_else(|| self.wrong("is not a list"))?;
        Ok(list.iter().map(move |value| Self { key, text, value }))
    }

    /// A member of a table, when it is a table.
    pub(super) fn member(self, name: &str) -> Option<Self> {
        let Self { key, text, value } = self;
        value.get_ref().as_table()?.get(name).map(|value| Self { key, text, value })
    }

    /// Number of members, when it is a table.
    pub(super) fn members(self) -> Option<usize> {
        self.value.get_ref().as_table().map(|table| table.len())
    }
}

/// The line of a byte, counted from 1.
fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
impl Reader<'_> {
    /// Every key that the text has, and those without default.
    pub(super) fn keys(&self) -> Vec<String> {
        let mut all: Vec<String> = UNSET.map(str::to_owned).into();
        for (section, value) in &self.table {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let keys = table.keys().map(Spanned::get_ref);
                    all.extend(keys.map(|key| format!("{}.{key}", section.get_ref())));
                }
                _ => all.push(section.get_ref().to_string()),
            }
        }
        all
    }
}

#[cfg(test)]
impl Item<'_> {
    /// The value as written, line breaks and indentation aside.
    pub(super) fn source_on_one_line(self) -> String {
        let source = self.text.get(self.value.span()).unwrap_or_default();
        let joined = source.split_whitespace().collect::<Vec<_>>().join(" ");
        joined.replace("[ ", "[").replace(", ]", "]").replace(" ]", "]")
    }
}
