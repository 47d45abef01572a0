//! What the three streams of the Driver service send, each by a task of its own that ends when
//! the agent stops listening.

use std::sync::Arc;
use std::time::Duration;

use proto::nomad::drivers::{DriverTaskEvent, FingerprintResponse, TaskStatsResponse};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::helper::Health;
use crate::life::Driver;
use crate::life::task::Task;
use crate::observe::fingerprint;
use crate::observe::stats::Sampler;

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
        // Without word in time, the fingerprint says so. A plugin without account hears nothing.
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

/// Task events. Never ends; a reader that falls behind misses some.
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
            tokio::select! {
                () = sample(&driver, &task, every, &sender) => {}
                _ = task.ended() => {}
                () = sender.closed() => {}
            }
        });
    }
    receiver.into()
}

async fn sample(
    driver: &Driver,
    task: &Task,
    every: Duration,
    sender: &mpsc::Sender<Result<TaskStatsResponse, Status>>,
) {
    let group = driver.bus.control_group(&task.identity.unit).await;
    let compute = *driver.compute.borrow();
    let mut sampler = Sampler::new(group.as_deref(), compute);
    let mut ticks = interval(every.max(STATS_MIN));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let stats = Some(sampler.sample(&task.id));
        if sender.send(Ok(TaskStatsResponse { stats })).await.is_err() {
            return;
        }
    }
}
