//! The end of tasks: removal, and those that nobody asks for any more.

pub(crate) mod orphans;
pub(crate) mod remove;
