//! One journal line a decision, and a count where a peer asks for more lines than anyone can read.

use std::cell::Cell;
use std::time::Duration;

use proto::error::Refusal;
use proto::wire::{Request, Verb};

use crate::socket::journal::Lines;

/// Lines a second; the rest is counted and reported in one line.
const LINES: u32 = 50;

thread_local! {
    static WRITTEN: Cell<u32> = const { Cell::new(0) };
    static KILLS: Cell<u32> = const { Cell::new(0) };
    static DROPPED: Cell<u64> = const { Cell::new(0) };
    static MALFORMED: Cell<u64> = const { Cell::new(0) };
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    pub(crate) pid: i32,
}

fn may_write() -> bool {
    if WRITTEN.get() < LINES {
        WRITTEN.set(WRITTEN.get() + 1);
        return true;
    }
    DROPPED.set(DROPPED.get() + 1);
    false
}

/// Writes the line of a decision. `task` is the task that the request is about.
pub(crate) fn log_decision(peer: Peer, request: &Request, task: &str, refusal: Option<&Refusal>) {
    let verb = request.verb.name();
    // Reading changes nothing and happens often; a command that is executed has a line of its own.
    let reading = matches!(
        request.verb,
        Verb::Hello(_) | Verb::Part(_) | Verb::Status(_) | Verb::List(_) | Verb::Exec(_)
    );
    // A flood of refusals must not hide what was started or killed. Only the second costs nothing;
    // starts have a pace.
    let acted = refusal.is_none()
        && match request.verb {
            Verb::Start(_) => true,
            Verb::Kill(_) => KILLS.replace(KILLS.get() + 1) < LINES,
            _ => false,
        };
    if (reading && refusal.is_none()) || !(may_write() || acted) {
        return;
    }
    let Peer { uid, pid } = peer;
    match refusal {
        None => tracing::info!(request = request.id, uid, pid, verb, task, decision = "allowed"),
        Some(refusal) => tracing::warn!(
            request = request.id,
            uid,
            pid,
            verb,
            task,
            decision = "refused",
            code = ?refusal.code,
            rule = %refusal
        ),
    }
}

/// Writes that a connection was refused or closed for what it did.
pub(crate) fn log_closed(peer: Peer, why: &str) {
    if may_write() {
        tracing::warn!(uid = peer.uid, pid = peer.pid, why, "connection closed");
    }
}

/// Counts a message that could not be decoded.
pub(crate) fn count_malformed() {
    MALFORMED.set(MALFORMED.get() + 1);
}

/// Writes the counts once a second, when there are any.
pub(crate) async fn summarize(journal: Lines) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        WRITTEN.set(0);
        KILLS.set(0);
        let (lines, malformed) = (DROPPED.take(), MALFORMED.take());
        if lines > 0 || malformed > 0 {
            tracing::warn!(lines, malformed, "more refusals than are written one by one");
        }
        let dropped = journal.take_dropped();
        if dropped > 0 {
            tracing::warn!(dropped, "lines were lost: the journal did not take them in time");
        }
    }
}
