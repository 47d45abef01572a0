//! Waiting for something to become true, with a limit and a message that says what was awaited.
//!
//! For every place where a test would be tempted to sleep. It trusts the closure to be cheap and
//! never waits without a limit.

use anyhow::{Result, bail};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shortest pause between two looks.
const FIRST: Duration = Duration::from_millis(2);
/// Longest pause between two looks.
const LAST: Duration = Duration::from_millis(50);

/// Sets a flag when it is dropped, also by a panic: a scope waits for its threads before the panic
/// goes on, and a thread that looks at the flag would never end.
#[derive(Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many times longer than usual everything may take: set in an emulated machine.
#[must_use]
pub fn patience() -> u32 {
    static FACTOR: LazyLock<u32> = LazyLock::new(|| {
        std::env::var("RIG_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    *FACTOR
}

/// Calls `look` until it gives a value, an error, or `limit` has passed.
///
/// # Errors
/// What `look` returns, or a time-out that names `what`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let limit = limit * patience();
    let start = Instant::now();
    let mut pause = FIRST;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            bail!("timed out after {:.1} s waiting for {what}", limit.as_secs_f64());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST);
    }
}

/// As [`until`], for a plain yes or no.
///
/// # Errors
/// What `look` returns, or a time-out that names `what`.
pub fn true_within(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, || Ok(look()?.then_some(())))
}
