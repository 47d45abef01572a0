//! Durations, counted in buckets.
//!
//! Counting is a few atomic additions; nothing here locks, allocates or fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds in microseconds, from a request that the helper answers at once to an image that is
/// slow to look at.
const BOUNDS: [u64; 12] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    30_000_000,
];

/// A histogram.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// Those not beyond each bound and beyond the one before; the last are beyond all.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Sum in microseconds.
    sum: AtomicU64,
}

/// What a histogram holds at one moment.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Upper bound in seconds, and how many are not beyond it.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// Sum in seconds.
    pub(crate) sum: f64,
    /// How many in all.
    pub(crate) count: u64,
}

impl Histogram {
    /// Counts one duration.
    pub(crate) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// Reads it. The total is that of the buckets, so that the two never disagree.
    pub(crate) fn read(&self) -> Reading {
        let mut count = 0;
        let mut buckets = Vec::new();
        let mut bounds = BOUNDS.iter();
        for bucket in &self.buckets {
            count += bucket.load(Ordering::Relaxed);
            if let Some(bound) = bounds.next() {
                buckets.push((Duration::from_micros(*bound).as_secs_f64(), count));
            }
        }
        let sum = Duration::from_micros(self.sum.load(Ordering::Relaxed)).as_secs_f64();
        Reading { buckets, sum, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_their_bounds_belong_to_them() {
        let histogram = Histogram::default();
        for micros in [0, 1_000, 1_001, 30_000_000, 30_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!(read.buckets.first(), Some(&(0.001, 2)));
        assert_eq!(read.buckets.get(1), Some(&(0.0025, 3)));
        assert_eq!(read.buckets.last(), Some(&(30.0, 4)));
        assert_eq!(read.count, 5);
        assert!((read.sum - 60.002_002).abs() < 1e-9, "{read:?}");
    }
}
