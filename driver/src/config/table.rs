//! One table of keys for each configuration: the schema that Nomad decodes with, the decoder of
//! what Nomad sends, and the typed structure all come from it.
//!
//! [`keys!`] declares the structure; each key names its type, and whether it is required, optional
//! or has a default. [`Field`] says how a type looks in a schema and how it is read. A key can
//! therefore not be in one place and missing in another. Nomad decodes stored jobs of running
//! tasks with the current schema, so keys may be added and never removed or narrowed.

use std::collections::{BTreeMap, HashMap};

use proto::nomad::hclspec::{self, Spec, spec::Block};

use crate::config::Problem;
use crate::msgpack::Value;

/// A type that a key can have.
pub(crate) trait Field: Sized {
    /// The type in the language of hclspec.
    const TYPE: &'static str;

    /// Reads a value that is set.
    ///
    /// # Errors
    /// What was expected, in words.
    fn read(value: Value) -> Result<Self, &'static str>;
}

impl Field for String {
    const TYPE: &'static str = "string";

    fn read(value: Value) -> Result<Self, &'static str> {
        // HCL converts scalars to text silently, so do we for hosts that do not.
        match value {
            Value::Text(text) => Ok(text),
            Value::Integer(number) => Ok(number.to_string()),
            Value::Float(number) => Ok(number.to_string()),
            Value::Bool(truth) => Ok(truth.to_string()),
            Value::Nil | Value::List(_) | Value::Map(_) => Err("must be a text"),
        }
    }
}

impl Field for bool {
    const TYPE: &'static str = "bool";

    fn read(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Bool(truth) => Ok(truth),
            Value::Text(text) if text == "true" => Ok(true),
            Value::Text(text) if text == "false" => Ok(false),
            _ => Err("must be true or false"),
        }
    }
}

impl Field for i64 {
    const TYPE: &'static str = "number";

    fn read(value: Value) -> Result<Self, &'static str> {
        // Nomad sends whole numbers beyond 64 bits and unrepresentable fractions as text.
        match value {
            Value::Integer(number) => Self::try_from(number).ok(),
            Value::Text(text) => text.parse().ok(),
            Value::Float(number) if number.fract() == 0.0 => format!("{number:.0}").parse().ok(),
            _ => None,
        }
        .ok_or("must be a whole number")
    }
}

impl Field for Vec<String> {
    const TYPE: &'static str = "list(string)";

    fn read(value: Value) -> Result<Self, &'static str> {
        let Value::List(items) = value else {
            return Err("must be a list of texts");
        };
        items
            .into_iter()
            .map(String::read)
            .collect::<Result<_, _>>()
            .map_err(|_| "must be a list of texts")
    }
}

/// Names with values. Written as one block, several blocks or `= { … }`; later ones win.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairs(pub(crate) BTreeMap<String, String>);

impl Field for Pairs {
    const TYPE: &'static str = "list(map(string))";

    fn read(value: Value) -> Result<Self, &'static str> {
        const WRONG: &str = "must be a block of names and texts";
        let maps = match value {
            Value::List(maps) => maps,
            map @ Value::Map(_) => vec![map],
            _ => return Err(WRONG),
        };
        let mut pairs = BTreeMap::new();
        for map in maps {
            match map {
                Value::Nil => {}
                Value::Map(entries) => {
                    for (name, value) in entries {
                        pairs.insert(name, String::read(value).map_err(|_| WRONG)?);
                    }
                }
                _ => return Err(WRONG),
            }
        }
        Ok(Self(pairs))
    }
}

/// Schema of one key.
pub(crate) fn attribute<T: Field>(name: &str, required: bool, default: Option<&str>) -> Spec {
    let attr = Spec {
        block: Some(Block::Attr(hclspec::Attr {
            name: name.to_owned(),
            r#type: T::TYPE.to_owned(),
            required,
        })),
    };
    let Some(default) = default else { return attr };
    let literal =
        Spec { block: Some(Block::Literal(hclspec::Literal { value: default.to_owned() })) };
    Spec {
        block: Some(Block::Default(Box::new(hclspec::Default {
            primary: Some(Box::new(attr)),
            default: Some(Box::new(literal)),
        }))),
    }
}

/// The values of one configuration while its keys are taken out.
#[derive(Debug)]
pub(crate) struct Source {
    values: HashMap<String, Value>,
}

impl Source {
    /// Takes a decoded configuration; nil counts as empty.
    pub(crate) fn new(value: Value, problems: &mut Vec<Problem>) -> Self {
        let values = match value {
            Value::Map(entries) => entries.into_iter().collect(),
            Value::Nil => HashMap::new(),
            _ => {
                problems.push(Problem::new("config", "must be a block of keys"));
                HashMap::new()
            }
        };
        Self { values }
    }

    /// Takes one key out; `None` when it is unset or cannot be read.
    pub(crate) fn take<T: Field>(
        &mut self,
        name: &str,
        required: bool,
        problems: &mut Vec<Problem>,
    ) -> Option<T> {
        match self.values.remove(name) {
            None | Some(Value::Nil) => {
                if required {
                    problems.push(Problem::new(name, "is required"));
                }
                None
            }
            Some(value) => {
                T::read(value).map_err(|rule| problems.push(Problem::new(name, rule))).ok()
            }
        }
    }

    /// Reports what no key took.
    pub(crate) fn finish(self, problems: &mut Vec<Problem>) {
        let mut names: Vec<_> = self.values.into_keys().collect();
        names.sort();
        for name in names {
            problems.push(
                Problem::new(&name, "is not a key of this version of the nspawn driver")
                    .remedy("correct its spelling or remove it"),
            );
        }
    }
}

/// Declares a configuration: `name: Type = default;`, `name: Type, required;` or `name: Type;`.
macro_rules! keys {
    (
        $(#[$outer:meta])*
        $vis:vis struct $table:ident {
            $( $(#[$doc:meta])* $key:ident : $type:ty $(, $required:ident)? $(= $default:expr)?; )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $table {
            $( $(#[$doc])* pub(crate) $key: $type, )*
        }

        impl Default for $table {
            fn default() -> Self {
                Self {
                    $( $key: $crate::config::table::keys!(@default $($default)?), )*
                }
            }
        }

        impl $table {
            /// The schema that Nomad decodes with.
            $vis fn schema() -> proto::nomad::hclspec::Spec {
                let mut attributes = std::collections::HashMap::new();
                $(
                    attributes.insert(
                        stringify!($key).to_owned(),
                        $crate::config::table::attribute::<$type>(
                            stringify!($key),
                            $crate::config::table::keys!(@required $($required)?),
                            $crate::config::table::keys!(@literal $($default)?),
                        ),
                    );
                )*
                proto::nomad::hclspec::Spec {
                    block: Some(proto::nomad::hclspec::spec::Block::Object(
                        proto::nomad::hclspec::Object { attributes },
                    )),
                }
            }

            /// Reads a decoded configuration; reports every key that is wrong.
            $vis fn read(
                value: $crate::msgpack::Value,
                problems: &mut Vec<$crate::config::Problem>,
            ) -> Self {
                let mut source = $crate::config::table::Source::new(value, problems);
                let mut table = Self::default();
                $(
                    let required = $crate::config::table::keys!(@required $($required)?);
                    if let Some(value) = source.take(stringify!($key), required, problems) {
                        table.$key = value;
                    }
                )*
                source.finish(problems);
                table
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default.into() };
    (@literal) => { None };
    (@literal $default:expr) => { Some(stringify!($default)) };
    (@required) => { false };
    (@required required) => { true };
}
pub(crate) use keys;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn numbers_come_in_four_forms() {
        assert_eq!(i64::read(Value::Integer(7)), Ok(7));
        assert_eq!(i64::read(Value::Float(7.0)), Ok(7));
        assert_eq!(i64::read(text("7")), Ok(7));
        for bad in [
            Value::Float(0.5),
            Value::Float(f64::NAN),
            Value::Float(1e30),
            Value::Integer(i128::from(u64::MAX)),
            text("0.1"),
            Value::Nil,
        ] {
            assert!(i64::read(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn blocks_of_pairs_are_merged() {
        let map = |name: &str, value| Value::Map(vec![(name.to_owned(), value)]);
        let read = Pairs::read(Value::List(vec![
            map("A", text("1")),
            map("B", Value::Bool(true)),
            Value::Nil,
            map("A", Value::Integer(2)),
        ]));
        let expected =
            BTreeMap::from([("A".to_owned(), "2".to_owned()), ("B".to_owned(), "true".to_owned())]);
        assert_eq!(read, Ok(Pairs(expected)));
        assert!(Pairs::read(map("A", text("1"))).is_ok());
        assert!(Pairs::read(Value::List(vec![text("A=1")])).is_err());
        assert!(Pairs::read(map("A", Value::Nil)).is_err());
    }
}
