//! What the three streams of the Driver service send, each by a task of its own that ends when
//! the agent stops listening.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nomad_proto::drivers::{DriverTaskEvent, FingerprintResponse, TaskStatsResponse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::helper_client::Health;
use crate::lifecycle::Driver;
use crate::lifecycle::task::Task;
use crate::node::fingerprint;
use crate::node::usage::Sampler;

/// A stream of answers.
pub(super) type Answers<T> = ReceiverStream<Result<T, Status>>;

/// Time in which a fingerprint is repeated.
const REPEAT: Duration = Duration::from_secs(30);
/// Time that the first fingerprint waits for the first word about the helper.
const FIRST: Duration = Duration::from_secs(1);
/// Shortest interval between statistics.
const STATS_MIN: Duration = Duration::from_millis(100);

/// Fingerprints: the first at once, then at each change, and now and then. Never ends.
pub(super) fn fingerprints(driver: Arc<Driver>) -> Answers<FingerprintResponse> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut helper = driver.helper.health();
        let mut config = driver.config.subscribe();
        // Without an answer in time, the fingerprint reports that. A plugin without account gets
        // none.
        if driver.is_active() {
            let first_word = helper.wait_for(|health| !matches!(health, Health::Unknown));
            timeout(FIRST, first_word).await.ok();
        }
        loop {
            let fingerprint = fingerprint::take(
                &config.borrow_and_update().clone(),
                &driver.standing,
                &driver.sandbox,
                &helper.borrow_and_update().clone(),
            );
            if sender.send(Ok(fingerprint)).await.is_err() {
                return;
            }
            tokio::select! {
                _ = helper.changed() => {}
                _ = config.changed() => {}
                () = tokio::time::sleep(REPEAT) => {}
                () = sender.closed() => return,
            }
        }
    });
    receiver.into()
}

/// Task events. Never ends; a reader that is too slow misses some.
pub(super) fn events(driver: &Driver) -> Answers<DriverTaskEvent> {
    let (sender, receiver) = mpsc::channel(1);
    let mut events = driver.events.subscribe();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
            };
            match event {
                Ok(event) => {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "the agent reads task events too slowly");
                }
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    });
    receiver.into()
}

/// Statistics of one task: the first at once, then one each `every`, until it ends. An unknown
/// task has none: the stream ends without error.
pub(super) fn stats(
    driver: &Arc<Driver>,
    task: Option<Arc<Task>>,
    every: Duration,
) -> Answers<TaskStatsResponse> {
    let (sender, receiver) = mpsc::channel(1);
    if let Some(task) = task {
        let driver = Arc::clone(driver);
        tokio::spawn(async move {
            let group = || driver.bus.control_group(&task.identity.unit);
            let sampler = Sampler::new(*driver.compute.borrow());
            tokio::select! {
                () = sample(&task.id, group, sampler, every, &sender) => {}
                _ = task.wait_until_ended() => {}
                () = sender.closed() => {}
            }
        });
    }
    receiver.into()
}

/// The control group is looked up until there is an answer: the bus may start after this process.
async fn sample<F: Future<Output = Option<String>>>(
    id: &str,
    group: impl Fn() -> F,
    mut sampler: Sampler,
    every: Duration,
    sender: &mpsc::Sender<Result<TaskStatsResponse, Status>>,
) {
    let every = every.max(STATS_MIN);
    loop {
        if sampler.is_blind() {
            sampler.find(group().await.as_deref());
        }
        let stats = Some(sampler.sample(id));
        if sender.send(Ok(TaskStatsResponse { stats })).await.is_err() {
            return;
        }
        sleep_until(next_tick(origin(), every, Instant::now())).await;
    }
}

/// The moment that the ticks of all streams are counted from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

/// The next tick of this period: that of all streams with the same period, so that one wake-up of
/// the process serves all of them.
fn next_tick(origin: Instant, every: Duration, now: Instant) -> Instant {
    let passed = now.saturating_duration_since(origin);
    let into_period = passed.as_nanos() % every.as_nanos().max(1);
    let into_period = u64::try_from(into_period).map(Duration::from_nanos).unwrap_or_default();
    now + every.saturating_sub(into_period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::usage::Compute;
    use std::cell::Cell;

    #[test]
    fn d41_streams_of_one_period_tick_together() {
        let origin = Instant::now();
        let every = Duration::from_secs(1);
        let at = |ms| next_tick(origin, every, origin + Duration::from_millis(ms));
        assert_eq!((at(1), at(999)), (origin + every, origin + every));
        assert_eq!(at(1000), origin + 2 * every);
        assert_eq!(at(0), origin + every);
    }

    #[tokio::test]
    async fn stats_find_their_group_when_the_bus_comes_later() {
        let asked = Cell::new(0);
        let group = async || {
            asked.set(asked.get() + 1);
            (asked.get() == 3).then(|| "/x.service".to_owned())
        };
        let (sender, mut receiver) = mpsc::channel::<Result<TaskStatsResponse, Status>>(1);
        let sampler = Sampler::new(Compute::of_host());
        let read = async {
            for _ in 0..6 {
                assert!(receiver.recv().await.unwrap().unwrap().stats.is_some());
            }
        };
        tokio::select! {
            () = sample("id", group, sampler, STATS_MIN, &sender) => panic!("ended"),
            () = read => {}
        }
        assert_eq!(asked.get(), 3);
    }
}
