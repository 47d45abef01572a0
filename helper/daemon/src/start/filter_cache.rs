//! Has system call filters made for later starts, and for commands that are executed in tasks.
//!
//! The launcher looks them up and installs them; what it misses is made here, in a unit of its own,
//! one set at a time. Trusts the launcher, and the file in which it keeps the options of a task's
//! filters. No start ever waits for it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::plan::FilterSource;
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::systemd::units::filters;
use kernel::layout;

/// Time before a set that could not be made is tried again: packages may have been replaced meanwhile.
const SOON: Duration = Duration::from_secs(5);
/// The same when it has failed again.
const AGAIN: Duration = Duration::from_secs(600);
/// Sets that wait or are remembered as failed: with so many, no other is tried.
const SETS_MAX: usize = 256;
/// As many more where a command waits for its task's set: those of starts take no such place.
const RESERVE: usize = 64;

/// What is being made. A set is named by the words that make it; no words: what most starts use.
#[derive(Default)]
pub(crate) struct FilterCache {
    /// The first is being made.
    waiting: VecDeque<Vec<String>>,
    /// Sets that could not be made, and when they may be tried again.
    failed: HashMap<Vec<String>, Instant>,
    /// Reasons that the journal has.
    reported: Vec<String>,
}

/// Takes note of where a start has its filters from.
pub(crate) fn note(context: &Context, source: &FilterSource) {
    let reason = match source {
        FilterSource::Confined => "this host is under system call filters itself, so nobody can \
                                   read those of systemd-nspawn"
            .to_owned(),
        FilterSource::Untested { version } => format!(
            "starts with filters of the cache have not been tried with systemd-nspawn {version} on \
             this architecture"
        ),
        FilterSource::Rules | FilterSource::Off | FilterSource::Missing | FilterSource::Cache => {
            return;
        }
    };
    let mut cache = context.filters.borrow_mut();
    if !cache.reported.contains(&reason) {
        tracing::info!(reason, "systemd-nspawn makes its system call filters at each start");
        cache.reported.push(reason);
    }
}

/// Has the sets made that most starts use.
pub(crate) fn fill_usual(context: &Rc<Context>) {
    if context.policy().seccomp.cache {
        fill_up_to(context, Vec::new(), SETS_MAX);
    }
}

/// Has the filters of a task made again, unless the cache has them. A task of a build that did not
/// keep their options has none.
pub(crate) fn fill_for(context: &Rc<Context>, unit: UnitId) {
    let text = fs::read_to_string(layout::filter_options(unit)).unwrap_or_default();
    if let Some((_, words)) = layout::entry_of_options(&text) {
        fill_up_to(context, words, SETS_MAX);
    }
}

/// Has a set made for which a command waits.
pub(crate) fn fill_now(context: &Rc<Context>, words: Vec<String>) {
    fill_up_to(context, words, SETS_MAX + RESERVE);
}

/// Has a set made, unless it is being made or has failed shortly before.
fn fill_up_to(context: &Rc<Context>, words: Vec<String>, most: usize) {
    let is_first = {
        let mut cache = context.filters.borrow_mut();
        let now = Instant::now();
        // Remembered for longer: one that fails again is one of these.
        cache.failed.retain(|_, again| now.saturating_duration_since(*again) < AGAIN);
        let is_early = cache.failed.get(&words).is_some_and(|again| now < *again);
        let is_known = is_early || cache.waiting.contains(&words);
        if is_known {
            return;
        }
        if cache.failed.len().max(cache.waiting.len()) >= most {
            let reason = "as many sets as may wait do, or have failed";
            if !cache.reported.iter().any(|other| other == reason) {
                tracing::warn!(?words, most, reason, "system call filters are not made");
                cache.reported.push(reason.to_owned());
            }
            return;
        }
        cache.waiting.push_back(words);
        cache.waiting.len() == 1
    };
    if is_first {
        tokio::task::spawn_local(fill_all(context.clone()));
    }
}

async fn fill_all(context: Rc<Context>) {
    loop {
        let Some(words) = context.filters.borrow().waiting.front().cloned() else { return };
        let made = filters::run(&context.bus, &words).await;
        let mut cache = context.filters.borrow_mut();
        cache.waiting.pop_front();
        if made.is_ok() {
            cache.failed.remove(&words);
        }
        if let Err(error) = made {
            tracing::warn!(?words, error, "starts with these options take longer: no filters");
            let pause = if cache.failed.contains_key(&words) { AGAIN } else { SOON };
            cache.failed.insert(words, Instant::now() + pause);
        }
    }
}
