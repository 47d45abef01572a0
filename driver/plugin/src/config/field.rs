//! The types that a key can have: how each looks in Nomad's schema, and how its value is read.
//!
//! Nomad converts values by the schema before it sends them. Nothing is taken on trust all the
//! same: what does not fit becomes a [`Problem`] that names the key, never a default in silence.

use std::collections::BTreeMap;
use std::fmt;

use nomad_proto::hclspec::{self, Spec, spec::Block as Kind};

use super::Problem;
#[cfg(test)]
use super::doc_table::Row;
use crate::msgpack::Value;

/// A type that a key can have.
pub(crate) trait Field: Sized + Default + PartialEq {
    /// What the documentation writes for a key of this type that has no default.
    #[cfg(test)]
    const UNSET: &'static str = "unset";

    /// The type in the documentation.
    fn kind() -> String;

    /// The key in the schema.
    fn spec(name: &str, required: bool) -> Spec {
        attribute(name, &Self::kind(), required)
    }

    /// Reads a value that is set; `None` when a problem was reported.
    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self>;

    /// The value in a message, as HCL; `None` for what is too long or must not be shown.
    fn show(&self) -> Option<String> {
        None
    }

    /// Rows of the documentation for keys inside this one.
    #[cfg(test)]
    fn rows(_key: &str, _later: bool, _rows: &mut Vec<Row>) {}
}

/// An attribute of a type in the language of hclspec.
pub(crate) fn attribute(name: &str, kind: &str, required: bool) -> Spec {
    let name = name.to_owned();
    let attr = hclspec::Attr { name, r#type: kind.to_owned(), required };
    Spec { block: Some(Kind::Attr(attr)) }
}

/// Reads a value by a rule; a value that breaks it is shown when it is a scalar.
pub(crate) fn plain<T>(
    value: Value,
    key: &str,
    problems: &mut Vec<Problem>,
    parse: impl FnOnce(&Value) -> Result<T, String>,
) -> Option<T> {
    let parsed = parse(&value);
    let report = |rule: String| {
        let problem = Problem::new(key, rule);
        problems.push(match value {
            Value::Text(text) => problem.value(text),
            Value::Bool(truth) => problem.value(truth),
            Value::Integer(number) => problem.value(number),
            Value::Float(number) => problem.value(number),
            Value::Nil | Value::List(_) | Value::Map(_) => problem,
        });
    };
    parsed.map_err(report).ok()
}

/// The text of a scalar. HCL converts scalars to text silently, so do we for hosts that do not.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Nil | Value::List(_) | Value::Map(_) => None,
    }
}

impl Field for String {
    fn kind() -> String {
        "string".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, |value| text(value).ok_or("must be a text".to_owned()))
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Field for bool {
    fn kind() -> String {
        "bool".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, |value| match value {
            Value::Bool(truth) => Ok(*truth),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number. Nomad sends those beyond 64 bits and unrepresentable fractions as text.
fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Integer(number) => i64::try_from(*number).ok(),
        Value::Text(text) => text.parse().ok(),
        Value::Float(number) if number.fract() == 0.0 => format!("{number:.0}").parse().ok(),
        _ => None,
    }
    .ok_or_else(|| "must be a whole number".to_owned())
}

impl Field for i64 {
    fn kind() -> String {
        "number".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, number)
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A key that distinguishes unset from every value. An empty string is unset, as in the older driver.
impl<T: Field> Field for Option<T> {
    fn kind() -> String {
        T::kind()
    }

    fn spec(name: &str, required: bool) -> Spec {
        T::spec(name, required)
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        match value {
            Value::Text(text) if text.is_empty() => Some(None),
            value => T::read(value, key, problems).map(Some),
        }
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl Field for Vec<String> {
    #[cfg(test)]
    const UNSET: &'static str = "empty";

    fn kind() -> String {
        "list(string)".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        plain(value, key, problems, |value| {
            let Value::List(items) = value else {
                return Err("must be a list of texts".to_owned());
            };
            let texts: Option<_> = items.iter().map(text).collect();
            texts.ok_or("must be a list of texts".to_owned())
        })
    }
}

/// A text that is not to be printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Hidden(pub(crate) String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

impl Field for Hidden {
    fn kind() -> String {
        String::kind()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        String::read(value, key, problems).map(Self)
    }
}

/// Names with values. Written as one block, several blocks or `= { … }`; later ones win.
fn pairs<T>(
    value: &Value,
    wrong: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, String> {
    let maps = match value {
        Value::List(maps) => maps.as_slice(),
        map @ Value::Map(_) => std::slice::from_ref(map),
        _ => return Err(wrong.to_owned()),
    };
    let mut pairs = BTreeMap::new();
    for map in maps {
        match map {
            Value::Nil => {}
            Value::Map(entries) => {
                for (name, value) in entries {
                    let value = read(value).ok_or_else(|| format!("{wrong}; see {name:?}"))?;
                    pairs.insert(name.clone(), value);
                }
            }
            _ => return Err(wrong.to_owned()),
        }
    }
    Ok(pairs)
}

/// Names with texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairs(pub(crate) BTreeMap<String, String>);

impl Field for Pairs {
    #[cfg(test)]
    const UNSET: &'static str = "empty";

    fn kind() -> String {
        "list(map(string))".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let wrong = "must be a block of names and texts";
        plain(value, key, problems, |value| pairs(value, wrong, text)).map(Self)
    }
}

/// Names with numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) BTreeMap<String, i64>);

impl Field for Numbers {
    #[cfg(test)]
    const UNSET: &'static str = "empty";

    fn kind() -> String {
        "list(map(number))".to_owned()
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let wrong = "must be a block of names and whole numbers";
        plain(value, key, problems, |value| pairs(value, wrong, |v| number(v).ok())).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn read<T: Field>(value: Value) -> Result<T, String> {
        let mut problems = Vec::new();
        let read = T::read(value, "key", &mut problems);
        match (read, problems.as_slice()) {
            (Some(value), []) => Ok(value),
            (None, [problem]) => Err(problem.to_string()),
            (read, problems) => panic!("{} with {problems:?}", read.is_some()),
        }
    }

    #[test]
    fn numbers_come_in_four_forms() {
        assert_eq!(read(Value::Integer(7)), Ok(7_i64));
        assert_eq!(read(Value::Float(7.0)), Ok(7_i64));
        assert_eq!(read(text("7")), Ok(7_i64));
        for bad in [
            Value::Float(0.5),
            Value::Float(f64::NAN),
            Value::Float(1e30),
            Value::Integer(i128::from(u64::MAX)),
            text("0.1"),
            Value::Nil,
        ] {
            assert!(read::<i64>(bad.clone()).is_err(), "{bad:?}");
        }
        let problem = read::<bool>(text("maybe")).unwrap_err();
        assert_eq!(problem, "key = \"maybe\": must be true or false");
    }

    #[test]
    fn an_empty_text_is_unset() {
        assert_eq!(read::<Option<String>>(text("")), Ok(None));
        assert_eq!(read::<Option<String>>(text("x")), Ok(Some("x".to_owned())));
        assert_eq!(read::<Option<bool>>(Value::Bool(false)), Ok(Some(false)));
    }

    #[test]
    fn blocks_of_pairs_are_merged() {
        let map = |name: &str, value| Value::Map(vec![(name.to_owned(), value)]);
        let merged = read::<Pairs>(Value::List(vec![
            map("A", text("1")),
            map("B", Value::Bool(true)),
            Value::Nil,
            map("A", Value::Integer(2)),
        ]));
        let expected =
            BTreeMap::from([("A".to_owned(), "2".to_owned()), ("B".to_owned(), "true".to_owned())]);
        assert_eq!(merged, Ok(Pairs(expected)));
        assert!(read::<Pairs>(map("A", text("1"))).is_ok());
        assert!(read::<Pairs>(Value::List(vec![text("A=1")])).is_err());
        let problem = read::<Pairs>(map("A", Value::Nil)).unwrap_err();
        assert!(problem.ends_with("; see \"A\""), "{problem}");
        assert!(read::<Numbers>(map("http", text("80"))).is_ok());
        assert!(read::<Numbers>(map("http", text("x"))).is_err());
    }

    #[test]
    fn hidden_values_are_not_printed() {
        let hidden: Hidden = read(text("canary")).unwrap();
        assert!(!format!("{hidden:?}").contains("canary") && hidden.show().is_none());
    }
}
