//! Starts whose helper died: they go on where the payload may run, and are undone elsewhere.
//!
//! Trusts PID 1, the kernel and the launcher's mark; never takes an exit status for proof of what
//! has run.

use std::rc::Rc;
use std::time::Duration;

use proto::limits;
use proto::plan::LAUNCHER_FAILED;

use crate::context::Context;
use crate::process::Process;
use crate::start::arrival::await_payload;
use crate::start::conduct::{finish, limit_boost};
use crate::systemd::units::read::{self, Seen};
use crate::tasks::record::{Form, Record};

/// Goes on with a start whose helper died after "go", or undoes it. Before "go" the launcher ends.
pub(crate) async fn run(context: &Rc<Context>, record: &Record, main: &Process) {
    limit_boost(context, record);
    let gate = context.table.borrow().gate(&record.key);
    let _held = gate.lock().await;
    let limit = Duration::from_secs(limits::START_TIMEOUT_S);
    let arrived = await_payload(context, record, main, None);
    let started = match tokio::time::timeout(limit, arrived).await {
        Ok(Ok(())) => true,
        // The payload may have ended before we looked.
        Ok(Err(error)) => {
            tracing::warn!(key = %record.key, %error, "the payload was not found running");
            has_run(context, record).await
        }
        Err(_) => false,
    };
    finish(context, &record.key, started).await;
}

/// Undoes a start whose launcher ended before systemd-nspawn while no helper was there.
pub(crate) async fn abandon(context: &Rc<Context>, record: &Record) {
    let gate = context.table.borrow().gate(&record.key);
    let _held = gate.lock().await;
    finish(context, &record.key, false).await;
}

/// Whether systemd-nspawn was executed and has ended.
async fn has_run(context: &Context, record: &Record) -> bool {
    let seen = read::await_main_end(&context.bus, record.unit(), Duration::from_secs(1)).await;
    let marked = kernel::layout::executed_mark(record.unit()).exists();
    seen.is_some_and(|seen| seen.code != 0 && was_executed(record.form, marked, &seen))
}

/// Whether a main process that has ended was systemd-nspawn: its launcher leaves a mark. Those of
/// earlier builds have only their exit status, which a payload may have as well.
fn was_executed(form: Form, marked: bool, seen: &Seen) -> bool {
    match form {
        Form::Whole => marked,
        Form::Unmarked | Form::Unreadable => seen.status != i32::from(LAUNCHER_FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c4_a_payload_that_ends_as_a_failed_launcher_does_has_run() {
        let ended = |status| Seen { loaded: true, code: 1, status, ..Seen::default() };
        let failed = i32::from(LAUNCHER_FAILED);
        assert!(was_executed(Form::Whole, true, &ended(failed)));
        // It may have been killed with any status.
        assert!(!was_executed(Form::Whole, false, &ended(failed)));
        assert!(!was_executed(Form::Whole, false, &ended(0)));
        // An earlier build's launcher leaves no mark.
        assert!(was_executed(Form::Unmarked, false, &ended(0)));
        assert!(!was_executed(Form::Unmarked, false, &ended(failed)));
    }
}
