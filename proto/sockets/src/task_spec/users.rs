//! The task's user namespace.

use bincode::{Decode, Encode};

/// The task's user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Users {
    /// A range of the helper's choice, of [`crate::limits::RANGE_WIDTH`] ids.
    Pick,
    /// This range.
    Fixed {
        /// First uid and gid on the host.
        base: u32,
        /// Number of ids, 1 to [`crate::limits::RANGE_WIDTH`].
        width: u32,
    },
    /// A namespace whose ids are the host's.
    Identity,
    /// None: container root is host root.
    Host,
}

impl Users {
    /// Whether container root is another user than host root.
    #[must_use]
    pub fn isolates(self) -> bool {
        matches!(self, Self::Pick | Self::Fixed { .. })
    }
}
