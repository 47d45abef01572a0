//! How often a client may give PID 1 work: a token bucket for starts and removals together, and one
//! for commands in tasks.
//!
//! Whoever asks faster waits for a turn and is not refused: no job fails for a busy minute, and a
//! compromised driver cannot have units made and dropped, or journal lines of allowed starts
//! written, without limit. At most one request a connection waits, so a turn comes within a
//! second.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Turns that may be taken at once: the tasks of a node after a reboot.
const BURST: u32 = 200;
/// Time in which one more turn comes: fifty a second are several times what PID 1 manages to start.
const INTERVAL: Duration = Duration::from_millis(20);

/// When the next turns come.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When the bucket is full again, if nobody takes a turn until then.
    full_at: Cell<Option<Instant>>,
}

impl Pace {
    /// Takes a turn, when it comes.
    pub(crate) async fn wait(&self) {
        let delay = self.take(Instant::now());
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    /// Takes a turn; returns how long it is until then.
    fn take(&self, now: Instant) -> Duration {
        let full_at = self.full_at.get().map_or(now, |at| at.max(now)) + INTERVAL;
        self.full_at.set(Some(full_at));
        full_at.duration_since(now).saturating_sub(INTERVAL * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_a_burst_is_free_and_what_follows_has_a_rate() {
        let (pace, now) = (Pace::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(pace.take(now), Duration::ZERO);
        }
        assert_eq!(pace.take(now), INTERVAL);
        assert_eq!(pace.take(now), INTERVAL * 2);
        // Later there are as many turns as intervals have passed, and never more than a burst.
        let later = now + INTERVAL * 12;
        for _ in 0..10 {
            assert_eq!(pace.take(later), Duration::ZERO);
        }
        assert_eq!(pace.take(later), INTERVAL);
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..BURST {
            assert_eq!(pace.take(much_later), Duration::ZERO);
        }
        assert_eq!(pace.take(much_later), INTERVAL);
    }
}
