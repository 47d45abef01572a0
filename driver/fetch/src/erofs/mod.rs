//! EROFS, as far as layers need it.
//!
//! For: one form of the format: blocks of 4 KiB, no compression, no optional feature, extended
//! inodes, attributes beside their inode (Linux, Documentation/filesystems/erofs.rst and
//! fs/erofs/erofs_fs.h).
//! Trusts: nothing that it reads.
//! Never: sets a feature bit; the launcher refuses files that have one.

pub(crate) mod directory;
pub(crate) mod format;
pub(crate) mod inode;
pub(crate) mod reader;
pub(crate) mod writer;
