//! Messages for `nomad alloc status`: one endless stream for all tasks.
//!
//! Nomad drops events of unknown tasks and does not ask twice, so nothing that matters depends on
//! one. Values of a job never come here.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use nomad_proto::drivers::{DriverTaskEvent, TaskConfig};
use prost_types::Timestamp;
use proto::name::TaskKey;
use tokio::sync::broadcast;

/// Events that are kept for a slow reader.
const QUEUE: usize = 128;

/// Where events are sent.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<DriverTaskEvent>,
}

impl Default for Events {
    fn default() -> Self {
        Self { sender: broadcast::Sender::new(QUEUE) }
    }
}

impl Events {
    /// Sends a message about the task of a start request.
    pub(crate) fn send(&self, task: &TaskConfig, message: &str) {
        self.publish(&task.id, &task.alloc_id, &task.name, message);
    }

    /// Sends a message about a known task.
    pub(crate) fn send_for(&self, key: &TaskKey, message: &str) {
        self.publish(&key.to_string(), &key.alloc.to_string(), key.task.as_str(), message);
    }

    fn publish(&self, task_id: &str, alloc_id: &str, task_name: &str, message: &str) {
        let event = DriverTaskEvent {
            task_id: task_id.to_owned(),
            alloc_id: alloc_id.to_owned(),
            task_name: task_name.to_owned(),
            timestamp: Some(timestamp(now_ms())),
            message: message.to_owned(),
            annotations: HashMap::new(),
        };
        // Without a reader the message is lost, which is fine.
        self.sender.send(event).ok();
    }

    /// A new reader.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<DriverTaskEvent> {
        self.sender.subscribe()
    }
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or_default()
}

/// Unix time in milliseconds as Nomad takes it; 0 is Go's zero time, "not yet".
pub(crate) fn timestamp(ms: u64) -> Timestamp {
    /// 0001-01-01T00:00:00Z.
    const GO_ZERO: i64 = -62_135_596_800;
    if ms == 0 {
        return Timestamp { seconds: GO_ZERO, nanos: 0 };
    }
    Timestamp {
        seconds: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from(ms % 1000 * 1_000_000).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_nomads() {
        assert_eq!(timestamp(0).seconds, -62_135_596_800);
        let time = timestamp(1_500);
        assert_eq!((time.seconds, time.nanos), (1, 500_000_000));
    }
}
