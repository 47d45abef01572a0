//! The client of the root helper.
//!
//! | module | idea |
//! |---|---|
//! | [`client`] | requests: which connection they take, which of them are repeated |
//! | [`specifications`] | starts and commands: what is sent in parts |
//! | [`connection`] | one connection: greeting, then one request at a time |
//! | [`packet`] | one packet and its descriptors |
//! | [`monitor`] | whether the helper is there |
//! | [`health`] | what is known of it |

mod client;
pub(crate) mod connection;
mod health;
mod monitor;
pub(crate) mod packet;
mod specifications;

pub(crate) use client::{CallError, Helper};
pub(crate) use health::Health;
