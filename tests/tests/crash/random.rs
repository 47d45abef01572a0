//! Random numbers that can be had again.

use nspawn_tests::soak;
use std::time::Duration;

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(soak::seed())
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(end).unwrap()).unwrap()
    }

    pub(crate) fn up_to_ms(&mut self, ms: usize) -> Duration {
        Duration::from_millis(u64::try_from(self.below(ms)).unwrap())
    }
}
