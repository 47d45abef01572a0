//! What both root binaries need of the kernel and of the host.
//!
//! | module | idea |
//! |---|---|
//! | [`syscalls`] | kernel calls that nix lacks: the only `unsafe` |
//! | [`open`] | `openat2`: beneath a root, without following a link |
//! | [`root_file`] | files that only root can have written |
//! | [`layout`] | fixed places of the host |
//! | [`ended`] | what is kept of a task's memory when it has ended |
//! | [`kept_layers`] | upper layers that outlive a run |
//! | [`netlink`] | messages of links, addresses and packet filter rules |
//! | [`processes`] | what /proc shows of a process by its number |
//! | [`hook`] | step hooks of test builds |
//!
//! Trusts its callers; decides nothing about tasks.

pub mod ended;
pub mod hook;
pub mod image_store;
pub mod kept_layers;
pub mod layout;
pub mod netlink;
pub mod open;
pub mod processes;
pub mod root_file;
pub mod syscalls;
