//! One table of keys for each configuration: the schema that Nomad decodes with, the decoder of
//! what Nomad sends, the typed structure, the defaults and the rows of docs/CONFIG.md come from it.
//!
//! [`keys!`] declares the structure. A key names its type, and may have a default, be `required`,
//! or belong to a `later` version: then it is in the schema, and refused by name when a job uses
//! it. A key can therefore not be in one place and missing in another. Nomad decodes stored jobs
//! of running tasks with the current schema, so keys may be added and never removed or narrowed.

use std::collections::HashMap;

use nomad_proto::hclspec::{self, Spec, spec::Block as Kind};

use super::Problem;
#[cfg(test)]
use super::doc_table::Row;
use super::field::Field;
use crate::msgpack::Value;

/// The rule of keys and words of later versions.
pub(crate) const NOT_YET: &str = "this version of the nspawn driver cannot do it yet";

/// A structure that [`keys!`] has declared.
pub(crate) trait Table: Sized + Default + PartialEq {
    /// The schema that Nomad decodes with.
    fn spec() -> Spec;

    /// Reads a decoded block; `at` is the path of the block, empty for the whole configuration.
    /// Reports every key that is wrong, unknown or of a later version.
    fn read(value: Value, at: &str, problems: &mut Vec<Problem>) -> Self;

    /// The rows of the documentation.
    #[cfg(test)]
    fn rows(at: &str, later: bool, rows: &mut Vec<Row>);
}

/// Whether a key is required.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// The key may be omitted.
    Optional,
    /// It must be there.
    Required,
    /// It must not be used before a later version.
    Later,
}

/// What is known of one key beside its type.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its name in Rust, perhaps with `r#`.
    pub(crate) ident: &'static str,
    /// Its description; the first sentence is its definition.
    pub(crate) doc: &'static str,
    /// Whether the key is required.
    pub(crate) flag: Flag,
    /// Its default in HCL.
    pub(crate) default: Option<&'static str>,
}

impl Key {
    /// Its name in HCL.
    pub(crate) fn name(&self) -> &'static str {
        self.ident.strip_prefix("r#").unwrap_or(self.ident)
    }

    /// Its path.
    pub(crate) fn path(&self, at: &str) -> String {
        if at.is_empty() { self.name().to_owned() } else { format!("{at}.{}", self.name()) }
    }

    /// The key in the schema.
    pub(crate) fn spec<T: Field>(&self) -> Spec {
        let primary = T::spec(self.name(), self.flag == Flag::Required);
        let Some(default) = self.default else { return primary };
        let literal = hclspec::Literal { value: default.to_owned() };
        let literal = Spec { block: Some(Kind::Literal(literal)) };
        let with =
            hclspec::Default { primary: Some(Box::new(primary)), default: Some(Box::new(literal)) };
        Spec { block: Some(Kind::Default(Box::new(with))) }
    }

    fn later(&self, path: String, shown: Option<String>) -> Problem {
        let what = self.doc.trim().split_once(". ").map_or(self.doc.trim(), |(first, _)| first);
        let what = what.trim_end_matches('.');
        let problem = Problem::new(path, format!("{NOT_YET}: {what}")).remedy("remove the key");
        match shown {
            Some(shown) => problem.value_as_hcl(shown),
            None => problem,
        }
    }
}

/// The default of a key: read as a value that Nomad sends, so that both cannot differ.
pub(crate) fn initial<T: Field>(default: Option<Value>) -> T {
    let mut problems = Vec::new();
    let value = default.and_then(|value| T::read(value, "default", &mut problems));
    debug_assert!(problems.is_empty(), "{problems:?}");
    value.unwrap_or_default()
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Integer(number.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// An empty string is unset for every type of which it is not a value, as in the older driver.
fn is_unset<T: Field>(value: &Value) -> bool {
    match value {
        Value::Nil => true,
        Value::Text(text) if text.is_empty() => {
            T::read(value.clone(), "", &mut Vec::new()).is_none()
        }
        _ => false,
    }
}

/// The values of one block while its keys are taken out.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    at: &'a str,
    values: HashMap<String, Value>,
}

impl<'a> Source<'a> {
    /// Takes a decoded block; nil counts as empty.
    pub(crate) fn new(value: Value, at: &'a str, problems: &mut Vec<Problem>) -> Self {
        let mut values = HashMap::new();
        let name = if at.is_empty() { "config" } else { at };
        match value {
            Value::Map(entries) => {
                for (key, value) in entries {
                    if values.insert(key.clone(), value).is_some() {
                        problems.push(Problem::new(name, format!("key {key:?} is there twice")));
                    }
                }
            }
            Value::Nil => {}
            _ => problems.push(Problem::new(name, "must be a block of keys")),
        }
        Self { at, values }
    }

    /// Takes one key out; its default when it is unset or wrong.
    pub(crate) fn take<T: Field>(
        &mut self,
        key: &Key,
        default: Option<Value>,
        problems: &mut Vec<Problem>,
    ) -> T {
        let default = initial(default);
        let value = self.values.remove(key.name()).filter(|value| !is_unset::<T>(value));
        let value = match value {
            None => {
                if key.flag == Flag::Required {
                    problems.push(Problem::new(key.path(self.at), "is required"));
                }
                return default;
            }
            Some(value) => value,
        };
        let path = key.path(self.at);
        let Some(value) = T::read(value, &path, problems) else { return default };
        if key.flag == Flag::Later && value != default {
            problems.push(key.later(path, value.show()));
        }
        value
    }

    /// Reports what no key took.
    pub(crate) fn finish(self, problems: &mut Vec<Problem>) {
        let dot = if self.at.is_empty() { "" } else { "." };
        let mut names: Vec<_> = self.values.into_keys().collect();
        names.sort();
        for name in names {
            problems.push(
                Problem::new(
                    format!("{}{dot}{name}", self.at),
                    "is not a key of this version of the nspawn driver",
                )
                .remedy("correct its spelling or remove it"),
            );
        }
    }
}

/// Declares a configuration, one key after another: `name: Type;`, `name: Type = default;`,
/// `name: Type, required;` or `name: Type, later;` (also with a default).
macro_rules! keys {
    (
        $(#[$outer:meta])*
        $vis:vis struct $table:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident : $type:ty $(, $flag:ident)? $(= $default:literal)?;
            )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $table {
            $( $(#[doc = $doc])+ pub(crate) $key: $type, )*
        }

        impl Default for $table {
            fn default() -> Self {
                Self {
                    $( $key: $crate::config::table::initial::<$type>(
                        $crate::config::table::keys!(@value $($default)?)
                    ), )*
                }
            }
        }

        impl $crate::config::table::Table for $table {
            fn spec() -> nomad_proto::hclspec::Spec {
                let attributes = std::collections::HashMap::from([
                    $( {
                        let key = $crate::config::table::keys!(
                            @key $key, concat!($($doc),+), [$($flag)?], [$($default)?]
                        );
                        (key.name().to_owned(), key.spec::<$type>())
                    }, )*
                ]);
                nomad_proto::hclspec::Spec {
                    block: Some(nomad_proto::hclspec::spec::Block::Object(
                        nomad_proto::hclspec::Object { attributes },
                    )),
                }
            }

            fn read(
                value: $crate::msgpack::Value,
                at: &str,
                problems: &mut Vec<$crate::config::Problem>,
            ) -> Self {
                let mut source = $crate::config::table::Source::new(value, at, problems);
                let table = Self {
                    $( $key: source.take(
                        &$crate::config::table::keys!(
                            @key $key, concat!($($doc),+), [$($flag)?], [$($default)?]
                        ),
                        $crate::config::table::keys!(@value $($default)?),
                        problems,
                    ), )*
                };
                source.finish(problems);
                table
            }

            #[cfg(test)]
            fn rows(at: &str, later: bool, rows: &mut Vec<$crate::config::doc_table::Row>) {
                $( $crate::config::doc_table::Row::add::<$type>(
                    &$crate::config::table::keys!(
                        @key $key, concat!($($doc),+), [$($flag)?], [$($default)?]
                    ),
                    at, later, rows,
                ); )*
            }
        }
    };
    (@key $key:ident, $doc:expr, [$($flag:ident)?], [$($default:literal)?]) => {
        $crate::config::table::Key {
            ident: stringify!($key),
            doc: $doc,
            flag: $crate::config::table::keys!(@flag $($flag)?),
            default: $crate::config::table::keys!(@literal $($default)?),
        }
    };
    (@value) => { None };
    (@value $default:literal) => { Some($crate::msgpack::Value::from($default)) };
    (@literal) => { None };
    (@literal $default:literal) => { Some(stringify!($default)) };
    (@flag) => { $crate::config::table::Flag::Optional };
    (@flag required) => { $crate::config::table::Flag::Required };
    (@flag later) => { $crate::config::table::Flag::Later };
}
pub(crate) use keys;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::block_keys::ReadyKeys;
    use crate::config::task::TaskKeys;

    fn read<T: Table>(keys: &[&str]) -> (T, Vec<Problem>) {
        let mut problems = Vec::new();
        let keys = keys.iter().map(|key| ((*key).to_owned(), Value::from("")));
        let table = T::read(Value::Map(keys.collect()), "", &mut problems);
        (table, problems)
    }

    #[test]
    fn an_empty_text_is_unset_where_it_is_no_value() {
        let words = ["ephemeral_mode", "persist", "bind_idmap", "network_setup", "volatile"];
        let (keys, problems) = read::<TaskKeys>(&words);
        assert_eq!(problems, [Problem::new("image", "is required")]);
        assert_eq!(keys, TaskKeys::default());
        assert_eq!(read(&["mode", "timeout"]), (ReadyKeys::default(), vec![]));
        // A text that must be there is there, and its own rule reports what is wrong with it.
        assert_eq!(read::<TaskKeys>(&["image"]).1, []);
    }
}
