//! The system call filters of a running task, from the cache by what the task's launcher has left.
//!
//! Nothing is read from the payload itself: stopping it would make its system calls fail with
//! EINTR, and what it has added to its filters is its own. Trusts the mark and the cache, which
//! only root can write. Never goes on with fewer filters than the mark demands.

use std::thread::sleep;
use std::time::{Duration, Instant};

use kernel::layout;
use proto::capability::Capabilities;
use proto::exec::WorkerReport;
use proto::unit_id::UnitId;

use super::payload::Payload;
use crate::daemon_link::Orders;
use crate::filters::entry::Filters;
use crate::filters::find;
use crate::filters::options::Options;
use crate::open::if_there;
use crate::stage::OwnPath;
use crate::step::{At as _, Problem};

/// Time for filters that the cache does not have: half a second is usual.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks into the cache.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two requests: only one set is made at a time, and another may have been under way.
const AGAIN: Duration = Duration::from_millis(500);

/// What a command of the task is put under.
pub(super) struct Found {
    pub(super) filters: Filters,
    /// The payload's bounding set, as its start has computed it.
    pub(super) bounding: Capabilities,
    /// Filters that the command must be under: those of the host, where it is a container, too.
    pub(super) count: usize,
}

/// Finds them; has them made where they are missing.
pub(super) fn find(unit: UnitId, payload: &Payload, orders: &Orders) -> Result<Found, Problem> {
    let (mark, own) = (OwnPath::executed_mark(unit), OwnPath::filter_options(unit));
    let text = |path: &OwnPath| -> Result<String, Problem> {
        let bytes = if_there(path.read()).at(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let count = layout::filters_of_mark(&text(&mark)?).and_then(|count| count.try_into().ok());
    let words = layout::entry_of_options(&text(&own)?).map(|(_, words)| words);
    let (present, _) = find::confinement()?;
    let options = words
        .and_then(|words| Options::parse(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    let (Some(count), Some(options)) = (count, options) else {
        let reason = if present == 0 {
            "was started by an earlier version of nomad-nspawn, which has not left what its system \
             call filters are made from: commands can be executed in it after its next start"
        } else {
            "has filters that nobody can read: this host is under system call filters itself, as a \
             container is"
        };
        return Err(Problem::refused("the task", reason));
    };
    let filters = wait(&options, orders)?;
    // 258 and newer may leave filters out; the start has been undone then.
    if present.saturating_add(filters.len()) != count || payload.filters < count {
        let reason = format!(
            "the task has {} of them, its start has counted {count}, the cache has {} and the host \
             {present}",
            payload.filters,
            filters.len()
        );
        return Err(Problem::refused("system call filters", reason));
    }
    Ok(Found { filters, bounding: options.bounding, count })
}

fn wait(options: &Options, orders: &Orders) -> Result<Filters, Problem> {
    let begun = Instant::now();
    let mut asked: Option<Instant> = None;
    loop {
        if let Some(entry) = find::stored(options)? {
            return Ok(entry.filters);
        }
        if begun.elapsed() > LIMIT {
            let reason = "the cache has none with the task's options, and they could not be made \
                          in time: journalctl -u nomad-nspawn-filters; nomad-nspawnctl doctor";
            return Err(Problem::held("system call filters", reason));
        }
        if asked.is_none_or(|asked| asked.elapsed() > AGAIN) {
            orders.send(&WorkerReport::Missing(options.words())).at("helper socket")?;
            asked = Some(Instant::now());
        }
        sleep(PAUSE);
    }
}
