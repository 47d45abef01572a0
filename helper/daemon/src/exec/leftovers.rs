//! What the worker of a session has left that was killed: its command has ended with it, but not
//! what that has started.
//!
//! The daemon sees the session's cgroup, whose mode says that the session lasts, and has no worker
//! for it. It may not write there, so another worker kills what is in it. Trusts the cgroup's
//! owner: only root's are looked at. Without a user namespace container root can make such groups
//! itself, and in every task any number of others: after a session only its own name is looked up,
//! and after a start of the daemon the names are read in another thread, up to a bound.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::layout::{PAYLOAD, SESSION_LASTS};
use proto::exec::{SessionId, Work};
use proto::path::Absolute;
use proto::unit_id::UnitId;

use crate::context::Context;
use crate::exec::workers;
use crate::systemd::units::read;
use crate::systemd::units::worker::Reach;
use crate::tasks::record::Record;

/// Time for a worker to kill and remove one.
const LIMIT: Duration = Duration::from_secs(10);
/// Workers that are asked for it: whoever has killed the session's can kill the next as well.
const TRIES: u32 = 3;
/// One that has taken longer was not killed: it could not do it, and the next could not either.
const QUICK: Duration = Duration::from_secs(1);
/// Entries of a payload's cgroup that are looked at. Those that are missed go with the task.
const LOOKS: usize = 65_536;

/// Kills what sessions of any task have left that have no worker.
pub(crate) async fn sweep(context: &Context) {
    let units: Vec<UnitId> = context.table.borrow().records().map(Record::unit).collect();
    for unit in units {
        let Ok(cgroup) = read::cgroup(&context.bus, unit).await else { continue };
        let most = context.policy().exec.max_sessions.0;
        let payload = payload(&cgroup);
        let found = tokio::task::spawn_blocking(move || find(&payload, most)).await;
        for session in found.unwrap_or_default() {
            context.workers.borrow_mut().place(session, unit);
            clear(context, &cgroup, session).await;
        }
    }
}

/// The same for one session of a task.
pub(crate) async fn sweep_session_of(context: &Context, unit: UnitId, session: SessionId) {
    // A task without cgroup has no processes.
    if let Ok(cgroup) = read::cgroup(&context.bus, unit).await {
        sweep_session(context, &cgroup, session).await;
    }
}

/// The same by the cgroup of the task's unit.
pub(crate) async fn sweep_session(context: &Context, cgroup: &Absolute, session: SessionId) {
    if is_lasting(&payload(cgroup).join(session.leaf())) {
        clear(context, cgroup, session).await;
    }
}

fn payload(cgroup: &Absolute) -> PathBuf {
    format!("/sys/fs/cgroup{cgroup}/{PAYLOAD}").into()
}

/// At most `most` sessions.
fn find(payload: &Path, most: u64) -> Vec<SessionId> {
    let entries = fs::read_dir(payload).into_iter().flatten().flatten().take(LOOKS);
    let named = entries.filter_map(|entry| SessionId::parse_leaf(entry.file_name().to_str()?));
    let lasting = named.filter(|session| is_lasting(&payload.join(session.leaf())));
    lasting.take(most.try_into().unwrap_or(usize::MAX)).collect()
}

fn is_lasting(leaf: &Path) -> bool {
    fs::symlink_metadata(leaf)
        .is_ok_and(|meta| meta.uid() == 0 && meta.permissions().mode() & 0o7777 == SESSION_LASTS)
}

/// Has one cleared, unless its worker is there.
async fn clear(context: &Context, cgroup: &Absolute, session: SessionId) {
    if context.workers.borrow().is_busy(session) {
        return;
    }
    tracing::warn!(%session, %cgroup, "the worker of a session was killed: the rest is as well");
    let leaf = payload(cgroup).join(session.leaf());
    let mut error = String::new();
    for _ in 0..TRIES {
        let begun = Instant::now();
        let tried = try_clear(context, cgroup, session).await;
        if !is_lasting(&leaf) {
            return;
        }
        let is_last = begun.elapsed() > QUICK;
        error = tried.err().unwrap_or_else(|| "the worker has ended before it was done".to_owned());
        if is_last {
            break;
        }
    }
    tracing::error!(
        %session, %cgroup, error,
        "processes of a session are left: they end with the task, or by cgroup.kill"
    );
}

async fn try_clear(context: &Context, cgroup: &Absolute, session: SessionId) -> Result<(), String> {
    let failed = |error: proto::error::Refusal| error.to_string();
    // PID 1 makes a unit for each, as for a command.
    context.exec_pace.wait().await;
    let worker = workers::take(context, Reach::UserNamespace).await.map_err(failed)?;
    let work = Work::Clear { cgroup: cgroup.clone(), session };
    worker.send(&work, &[]).await.map_err(failed)?;
    let ended = tokio::time::timeout(LIMIT, worker.await_end()).await;
    let late = |_| "the worker has not ended within 10 s".to_owned();
    ended.map_err(late)?.map_err(|error| error.to_string())
}
