//! Random numbers that can be had again: the seed is printed and may be given as `SEED`.

use std::time::{Duration, SystemTime};

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let given = std::env::var("SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| u64::try_from(now).unwrap());
        eprintln!("SEED={seed}");
        Self(seed)
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
