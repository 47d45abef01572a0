//! Conversions compared with what others make of the same archives: GNU tar, umoci, fsck.erofs and
//! the kernel, which mounts every file. Needs root, and a kernel with EROFS and overlayfs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod archives;
mod bounds;
mod command;
mod compressed;
mod hostile;
mod layers;
mod support;
