//! One start, from the request to the running payload.

pub(crate) mod arrival;
pub(crate) mod claim;
pub(crate) mod conduct;
pub(crate) mod filter_cache;
pub(crate) mod launch;
pub(crate) mod launcher_link;
pub(crate) mod nspawn_messages;
pub(crate) mod output;
pub(crate) mod payload_watch;
pub(crate) mod preflight;
pub(crate) mod ready;
