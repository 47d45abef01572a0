//! The tree of one layer.
//!
//! For: what the members of an archive come to, in the order in which they appear, with the layers
//! below in view.
//! Trusts: nothing.
//! Never: holds the content of files; those are in the EROFS file already.

pub(crate) mod acl;
pub(crate) mod below;
pub(crate) mod path;
pub(crate) mod tree;
pub(crate) mod walk;
pub(crate) mod write;
pub(crate) mod xattrs;
