//! Has system call filters made for later starts.
//!
//! The launcher looks them up and installs them; what it misses is made here, in a unit of its own,
//! one set at a time. Trusts the launcher. No start ever waits for it.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use proto::plan::FilterSource;
use proto::systemd;

use crate::context::Context;
use crate::systemd::units::filters;

/// Versions of systemd whose systemd-nspawn has been tried under these filters.
const TESTED: [u32; 2] = [252, 257];
/// Time before a set that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(600);
/// Sets that are remembered as failed: with so many, none is tried.
const FAILED_MAX: usize = 256;

/// What is being made.
#[derive(Default)]
pub(crate) struct FilterCache {
    /// A unit runs.
    is_busy: bool,
    /// Sets that could not be made, and when.
    failed: HashMap<Vec<String>, Instant>,
    /// Reasons that the journal has.
    reported: Vec<String>,
}

/// Whether a start may use filters of the cache.
pub(crate) fn is_usable(context: &Context) -> bool {
    if !context.policy().seccomp.cache {
        return false;
    }
    let reason = if cfg!(target_arch = "x86_64") {
        let version = systemd::major(&context.last_systemd.borrow());
        if TESTED.contains(&version) {
            return true;
        }
        format!("systemd {version} is not one of those that were tested: {TESTED:?}")
    } else {
        "this architecture was not tested".to_owned()
    };
    report(context, reason);
    false
}

/// Takes note of where a start has its filters from; has those made that are missing.
pub(crate) fn note(context: &Rc<Context>, source: FilterSource) {
    match source {
        FilterSource::Missing(words) => fill(context, words),
        FilterSource::Confined => {
            let reason = "this host is under system call filters itself, so nobody can read those \
                          of systemd-nspawn";
            report(context, reason.to_owned());
        }
        FilterSource::Nspawn | FilterSource::Cache => {}
    }
}

/// Has the set made that most starts use.
pub(crate) fn fill_usual(context: &Rc<Context>) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        context.systemd().await;
        if is_usable(&context) {
            fill(&context, Vec::new());
        }
    });
}

/// Starts the unit, unless it runs: the next start that misses the set asks again.
fn fill(context: &Rc<Context>, words: Vec<String>) {
    {
        let mut cache = context.filters.borrow_mut();
        cache.failed.retain(|_, at| at.elapsed() < AGAIN);
        let is_failed = cache.failed.contains_key(&words) || cache.failed.len() >= FAILED_MAX;
        if cache.is_busy || is_failed {
            return;
        }
        cache.is_busy = true;
    }
    let context = context.clone();
    tokio::task::spawn_local(async move {
        let made = filters::run(&context.bus, &words).await;
        let mut cache = context.filters.borrow_mut();
        cache.is_busy = false;
        if let Err(error) = made {
            tracing::warn!(?words, error, "starts with these options take longer: no filters");
            cache.failed.insert(words, Instant::now());
        }
    });
}

/// Once for each reason.
fn report(context: &Context, reason: String) {
    let mut cache = context.filters.borrow_mut();
    if !cache.reported.contains(&reason) {
        tracing::info!(reason, "systemd-nspawn makes its system call filters at each start");
        cache.reported.push(reason);
    }
}
