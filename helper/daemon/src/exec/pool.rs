//! Workers of one kind that wait, so that commands do not wait for PID 1, which needs 20 to 30 ms
//! for a unit.
//!
//! One waits always. A command that finds none raises their number, and those that no command has
//! taken for a while go again. Starts nothing itself; never gives a worker away twice.

use std::time::Duration;

use crate::exec::workers::Worker;

/// Workers of a kind that wait at most. Each costs memory while it does (OPERATIONS.md, Commands).
const MOST: usize = 8;
/// Time after which those go that were there all the time. Longer than the interval of most checks.
pub(super) const PERIOD: Duration = Duration::from_secs(30);

/// They, and how many there shall be.
pub(super) struct Pool<W = Worker> {
    waiting: Vec<W>,
    /// Whether one is being started to wait.
    starting: bool,
    /// How many shall wait beyond the first.
    more: usize,
    /// The least number that has waited in this period.
    least: usize,
    /// Whether [`Pool::shrink`] is called every period.
    shrinks: bool,
}

impl<W> Default for Pool<W> {
    fn default() -> Self {
        Self { waiting: Vec::new(), starting: false, more: 0, least: 0, shrinks: false }
    }
}

/// What a pool asks of a worker.
pub(super) trait Waits {
    /// Whether its process has gone.
    fn has_ended(&self) -> bool;
}

impl<W: Waits> Pool<W> {
    /// Takes one that lives. When there is none, more shall wait from now on.
    pub(super) fn take(&mut self) -> Option<W> {
        self.waiting.retain(|worker| !worker.has_ended());
        // The oldest: none keeps mounts for long that the host has given up.
        let taken = (!self.waiting.is_empty()).then(|| self.waiting.remove(0));
        if taken.is_none() {
            self.more = (self.more + 1).min(MOST - 1);
        }
        self.least = self.least.min(self.waiting.len());
        taken
    }

    /// Whether one shall be started, and is from here on. `most`: sessions of the host.
    pub(super) fn begin_start(&mut self, most: usize) -> bool {
        let lacks = self.waiting.len() < (self.more + 1).min(most);
        lacks && !std::mem::replace(&mut self.starting, true)
    }

    /// That one waits.
    pub(super) fn add(&mut self, worker: W) {
        self.starting = false;
        self.waiting.push(worker);
    }

    /// That one could not be started.
    pub(super) fn end_start(&mut self) {
        self.starting = false;
    }

    /// Whether more than one shall wait, and nobody calls [`Pool::shrink`] yet: the caller does.
    pub(super) fn begin_shrinking(&mut self) -> bool {
        self.more > 0 && !std::mem::replace(&mut self.shrinks, true)
    }

    /// Ends a period: lets those go that have waited all of it. Whether that was the last time.
    pub(super) fn shrink(&mut self) -> bool {
        self.more -= self.least.min(self.more);
        let surplus = self.waiting.len().saturating_sub(self.more + 1);
        self.waiting.drain(..surplus);
        self.least = self.waiting.len();
        self.shrinks = self.more > 0;
        !self.shrinks
    }

    /// Lets all go.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.more = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    /// Its process lives as long as this is false.
    struct Fake(Rc<Cell<bool>>);

    impl Waits for Fake {
        fn has_ended(&self) -> bool {
            self.0.get()
        }
    }

    const HOST: usize = 64;

    fn fill(pool: &mut Pool<Fake>, most: usize) -> usize {
        let mut started = 0;
        while pool.begin_start(most) {
            assert!(!pool.begin_start(most), "one after the other");
            pool.add(Fake(Rc::default()));
            started += 1;
        }
        started
    }

    #[test]
    fn as_many_wait_as_commands_have_missed_up_to_a_bound() {
        let mut pool = Pool::default();
        assert_eq!(fill(&mut pool, HOST), 1);
        assert!(pool.take().is_some());
        assert_eq!(fill(&mut pool, HOST), 1, "one that was taken is replaced");
        assert!(!pool.begin_shrinking());
        assert!(pool.take().is_some());
        assert!(pool.take().is_none() && pool.take().is_none());
        assert_eq!(fill(&mut pool, HOST), 3);
        for _ in 0..100 {
            pool.take();
        }
        assert_eq!(fill(&mut pool, 2), 2, "never more than sessions");
        assert_eq!(fill(&mut pool, HOST), MOST - 2);
    }

    #[test]
    fn those_go_that_have_waited_a_whole_period() {
        let mut pool = Pool::default();
        for _ in 0..5 {
            assert!(pool.take().is_none());
        }
        assert_eq!(fill(&mut pool, HOST), 6);
        assert!(pool.begin_shrinking() && !pool.begin_shrinking());
        // In the first period none waited at its beginning, in the second four were there always.
        assert!(!pool.shrink());
        assert_eq!(pool.waiting.len(), 6);
        assert!(pool.take().is_some() && pool.take().is_some());
        assert_eq!(fill(&mut pool, HOST), 2);
        assert!(!pool.shrink());
        assert_eq!(pool.waiting.len(), 2);
        assert!(pool.shrink(), "then one is left, and that is all");
        assert_eq!(pool.waiting.len(), 1);
        assert!(pool.take().is_some() && pool.take().is_none());
        assert!(pool.begin_shrinking(), "it begins again");
    }

    #[test]
    fn one_that_has_ended_is_not_taken() {
        let (mut pool, ended) = (Pool::default(), Rc::new(Cell::new(false)));
        assert!(pool.begin_start(HOST));
        pool.add(Fake(Rc::clone(&ended)));
        ended.set(true);
        assert!(pool.take().is_none());
        assert!(pool.begin_start(HOST));
        pool.end_start();
        assert!(pool.begin_start(HOST), "a failed start is not the last");
        pool.clear();
        assert!(pool.waiting.is_empty() && pool.more == 0);
    }
}
