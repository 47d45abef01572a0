//! What the tests have in common.

pub(crate) mod builder;
pub(crate) mod listing;
pub(crate) mod tools;
