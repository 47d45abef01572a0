//! Reading tar: ustar, PAX, GNU long names, all forms of sparse files.
//!
//! For: members with one meaning each. Where readers of tar are known to disagree, the archive is
//! refused, because a scanner would see another image than the one that runs.
//! Trusts: nothing.
//! Never: holds more of an archive than the headers of one member.

pub(crate) mod header;
pub(crate) mod member;
pub(crate) mod pax;
pub(crate) mod reader;
pub(crate) mod sparse;
