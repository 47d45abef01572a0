//! Which start of a task counts: the one that Nomad asked for last.
//!
//! An agent that is killed leaves its starts here, where they may still wait for their turn. The
//! next agent knows nothing of them and asks for the same task under a new id. Of the two only
//! the later may reach the helper, whichever is there first. An entry lives as long as its start:
//! a start without one has been overtaken.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nomad_proto::drivers::TaskConfig;

/// The newest start of each task that is being started.
#[derive(Debug, Default)]
pub(super) struct Claims {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Allocation and task, with the number of the newest start.
    newest: HashMap<(String, String), u64>,
    last: u64,
}

/// One start's claim; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    claims: &'a Claims,
    task: (String, String),
    number: u64,
}

impl Claims {
    /// Claims a task for a start; claims of earlier ones are void from now on.
    pub(super) fn take(&self, config: &TaskConfig) -> Claim<'_> {
        let task = (config.alloc_id.clone(), config.name.clone());
        let mut inner = self.lock();
        inner.last += 1;
        let number = inner.last;
        inner.newest.insert(task.clone(), number);
        Claim { claims: self, task, number }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    /// Whether no later start of the task has come.
    pub(super) fn holds(&self) -> bool {
        self.claims.lock().newest.get(&self.task) == Some(&self.number)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut inner = self.claims.lock();
        if inner.newest.get(&self.task) == Some(&self.number) {
            inner.newest.remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str) -> TaskConfig {
        TaskConfig { alloc_id: "a".to_owned(), name: name.to_owned(), ..TaskConfig::default() }
    }

    #[test]
    fn the_last_start_counts_even_when_it_is_through() {
        let claims = Claims::default();
        let (old, other) = (claims.take(&task("web")), claims.take(&task("db")));
        assert!(old.holds());
        let new = claims.take(&task("web"));
        assert!(!old.holds() && new.holds() && other.holds());
        drop(new);
        assert!(!old.holds() && other.holds());
    }

    #[test]
    fn nothing_is_kept_of_starts_that_are_through() {
        let claims = Claims::default();
        let (old, new) = (claims.take(&task("web")), claims.take(&task("web")));
        drop(old);
        assert!(new.holds());
        drop(new);
        assert!(claims.lock().newest.is_empty());
    }
}
