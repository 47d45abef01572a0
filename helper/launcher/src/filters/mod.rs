//! System call filters that systemd-nspawn has made once, kept for later starts.
//!
//! At a start: `choose` decides, `find` looks an entry up, `install` is the last step. To make an entry:
//! `fill` runs systemd-nspawn, and `trace` watches it. `entry` is what a file of the cache says, and
//! `options` what its filters depend on.

pub(crate) mod choose;
pub(crate) mod entry;
pub(crate) mod fill;
pub(crate) mod find;
pub(crate) mod install;
pub(crate) mod options;
pub(crate) mod trace;
