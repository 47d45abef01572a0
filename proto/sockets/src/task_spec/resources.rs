//! Limits of the task's unit.

use bincode::{Decode, Encode};

/// Limits of the unit. `None`: no limit of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub struct Resources {
    /// MemoryMax= in bytes.
    pub memory_max: Option<u64>,
    /// MemoryLow= in bytes.
    pub memory_low: Option<u64>,
    /// CPUWeight=, 1 to 10,000.
    pub cpu_weight: Option<u64>,
    /// TasksMax=.
    pub tasks_max: Option<u64>,
}
