//! Threads for calls in which the kernel waits: the deletion of a link takes it 15 ms, a long list of
//! connections or the files of a large zone more, and the daemon's own thread serves every task.
//!
//! Not those of [`tokio::task::spawn_blocking`]: file systems that hang may hold all of them, and a
//! removal waits for its link. Trusts its callers to ask for nothing but the kernel and files in /run.

use std::io;
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// Most at once; `TasksMax=` of the unit is larger than these and all others together.
static FREE: Semaphore = Semaphore::const_new(16);

/// A kernel that takes longer holds a link whose users do not go away; a removal is tried again.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `work` on a thread; it goes on when the caller does not wait any more.
///
/// # Errors
/// There is no thread, those of `work`, or `TimedOut`: then it goes on.
pub(super) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = FREE.acquire().await.map_err(io::Error::other)?;
    let (sender, result) = oneshot::channel();
    Builder::new().spawn(move || {
        let done = work();
        drop(place);
        // Nobody may wait any more.
        _ = sender.send(done);
    })?;
    match tokio::time::timeout(LIMIT, result).await {
        Ok(result) => result.map_err(io::Error::other)?,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}
