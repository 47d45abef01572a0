//! Keys that hold keys: blocks, lists of blocks, blocks with a label.

use std::collections::BTreeMap;

use nomad_proto::hclspec::{self, Spec, spec::Block as Kind};

use super::Problem;
#[cfg(test)]
use super::doc_table::Row;
use super::field::Field;
use super::table::Table;
use crate::msgpack::Value;

/// A block of keys that is there at most once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Block<T>(pub(crate) Option<T>);

impl<T: Table> Field for Block<T> {
    #[cfg(test)]
    const UNSET: &'static str = "none";

    fn kind() -> String {
        "block".to_owned()
    }

    fn spec(name: &str, required: bool) -> Spec {
        let nested = Some(Box::new(T::spec()));
        let block = hclspec::Block { name: name.to_owned(), required, nested };
        Spec { block: Some(Kind::BlockValue(Box::new(block))) }
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        Some(Self(Some(T::read(value, key, problems))))
    }

    #[cfg(test)]
    fn rows(key: &str, later: bool, rows: &mut Vec<Row>) {
        T::rows(key, later, rows);
    }
}

/// Blocks of keys, in their order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Blocks<T>(pub(crate) Vec<T>);

impl<T> Default for Blocks<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Table> Field for Blocks<T> {
    #[cfg(test)]
    const UNSET: &'static str = "none";

    fn kind() -> String {
        "blocks".to_owned()
    }

    fn spec(name: &str, required: bool) -> Spec {
        let list = hclspec::BlockList {
            name: name.to_owned(),
            min_items: u64::from(required),
            max_items: 0,
            nested: Some(Box::new(T::spec())),
        };
        Spec { block: Some(Kind::BlockList(Box::new(list))) }
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let items = match value {
            Value::List(items) => items,
            map @ Value::Map(_) => vec![map],
            _ => {
                problems.push(Problem::new(key, "must be a block of keys"));
                return None;
            }
        };
        let read = |(index, item)| T::read(item, &format!("{key}[{index}]"), problems);
        Some(Self(items.into_iter().enumerate().map(read).collect()))
    }

    #[cfg(test)]
    fn rows(key: &str, later: bool, rows: &mut Vec<Row>) {
        T::rows(key, later, rows);
    }
}

/// Blocks of keys with one label each: `registry "host" { … }`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Labelled<T>(pub(crate) BTreeMap<String, T>);

impl<T> Default for Labelled<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Table> Field for Labelled<T> {
    #[cfg(test)]
    const UNSET: &'static str = "none";

    fn kind() -> String {
        "labelled blocks".to_owned()
    }

    fn spec(name: &str, _required: bool) -> Spec {
        let map = hclspec::BlockMap {
            name: name.to_owned(),
            labels: vec!["label".to_owned()],
            nested: Some(Box::new(T::spec())),
        };
        Spec { block: Some(Kind::BlockMap(Box::new(map))) }
    }

    fn read(value: Value, key: &str, problems: &mut Vec<Problem>) -> Option<Self> {
        let Value::Map(entries) = value else {
            problems.push(Problem::new(key, "must be a block with a label"));
            return None;
        };
        let read = |(label, item)| {
            let block = T::read(item, &format!("{key} {label:?}"), problems);
            (label, block)
        };
        Some(Self(entries.into_iter().map(read).collect()))
    }

    #[cfg(test)]
    fn rows(key: &str, later: bool, rows: &mut Vec<Row>) {
        T::rows(key, later, rows);
    }
}
