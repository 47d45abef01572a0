//! What is known of the helper, as the node reports it.

use std::sync::Arc;

use proto::wire::Welcome;

use super::connection::Down;

/// What is known of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// Not looked yet.
    Unknown,
    /// It answers.
    Up(Arc<Welcome>),
    /// It has not answered for a while.
    Down(Down),
}
