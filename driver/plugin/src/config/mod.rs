//! Configuration: the tables of keys, and the problems that are found in them.
//!
//! Nomad checks types by the schema; rules are checked here, all of them at once, so that one
//! round of corrections is enough.

pub(crate) mod block_keys;
pub(crate) mod cross_rules;
#[cfg(test)]
mod doc_table;
pub(crate) mod environment;
pub(crate) mod field;
pub(crate) mod nested;
pub(crate) mod plugin;
mod problem;
pub(crate) mod table;
pub(crate) mod task;
pub(crate) mod value;
pub(crate) mod words;

pub(crate) use problem::{Problem, judge};
