//! The journal lines of this process, written by a thread of their own.
//!
//! The loop never waits for journald: when that stalls and too many lines wait, further ones are
//! dropped and counted. A helper that waited would be killed by the watchdog, again and again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Lines that may wait; each is at most some KiB long.
const WAITING_MAX: usize = 1024;

/// What both sides count.
#[derive(Debug, Default)]
struct Counts {
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

/// The way to the thread that writes.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    sender: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

impl Lines {
    /// Starts the thread.
    pub(crate) fn new(mut out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel::<Vec<u8>>(WAITING_MAX);
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        std::thread::Builder::new().name("journal".to_owned()).spawn(move || {
            for line in receiver {
                if out.write_all(&line).and_then(|()| out.flush()).is_err() {
                    counted.dropped.fetch_add(1, Ordering::Relaxed);
                }
                counted.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        })?;
        Ok(Self { sender, counts })
    }

    /// How many lines have been dropped since the last call.
    pub(crate) fn take_dropped(&self) -> u64 {
        self.counts.dropped.swap(0, Ordering::Relaxed)
    }

    /// Waits until all lines are written, but not for a journal that stalls.
    pub(crate) fn finish(&self) {
        for _ in 0..100 {
            if self.counts.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Write for Lines {
    /// Takes one whole line: tracing writes each at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn c8_a_journal_that_stalls_costs_lines_and_no_time() {
        let (mut journal, ours) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(ours).unwrap();
        let line = [b'x'; 1000];
        let begun = std::time::Instant::now();
        for _ in 0..5000 {
            lines.write_all(&line).unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let dropped = lines.take_dropped();
        assert!(dropped > 1000 && dropped < 5000, "{dropped}");
        // It goes on: what was kept arrives whole.
        let kept = (5000 - usize::try_from(dropped).unwrap()) * line.len();
        let mut read = vec![0; kept];
        journal.read_exact(&mut read).unwrap();
        lines.finish();
        assert_eq!(lines.counts.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(lines.take_dropped(), 0);
    }
}
