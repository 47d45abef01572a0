//! The state of a task, as the agent reports it: events, exit, restarts.
//!
//! For [`crate::job`] and the tests. It only reads; a field the agent does not send counts as empty.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a missing key is null")]

use anyhow::{Result, bail};
use serde_json::Value;

/// The state of one task, as the agent reports it.
#[derive(Clone, Debug)]
pub struct Task {
    /// The whole `TaskState` object.
    pub raw: Value,
}

/// One task event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Type, as "Started" or "Terminated".
    pub kind: String,
    /// Message for people.
    pub message: String,
    /// Details, as `exit_code` and `signal`.
    pub details: Value,
}

impl Task {
    /// The state of task `name` in an allocation object.
    ///
    /// # Errors
    /// When there is none.
    pub fn of(alloc: &Value, name: &str) -> Result<Self> {
        let raw = alloc["TaskStates"][name].clone();
        if raw.is_null() {
            bail!("allocation {} has no state of task {name}", alloc["ID"]);
        }
        Ok(Self { raw })
    }

    /// `pending`, `running` or `dead`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.raw["State"].as_str().unwrap_or_default()
    }

    /// Whether Nomad counts it as failed.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.raw["Failed"] == true
    }

    /// All events, oldest first (Nomad keeps the last ten).
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let list = self.raw["Events"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|event| Event {
                kind: event["Type"].as_str().unwrap_or_default().to_owned(),
                message: event["DisplayMessage"].as_str().unwrap_or_default().to_owned(),
                details: event["Details"].clone(),
            })
            .collect()
    }

    /// Exit code and signal of the last end.
    #[must_use]
    pub fn exit(&self) -> Option<(i64, i64)> {
        let event = self.events().into_iter().rev().find(|event| event.kind == "Terminated")?;
        let number = |key: &str| event.details[key].as_str().and_then(|text| text.parse().ok());
        Some((number("exit_code")?, number("signal").unwrap_or(0)))
    }

    /// Whether the last end was by the out-of-memory killer.
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        let event = self.events().into_iter().rev().find(|event| event.kind == "Terminated");
        event.is_some_and(|event| event.details["oom_killed"] == "true")
    }

    /// How often Nomad restarted it.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.raw["Restarts"].as_u64().unwrap_or(0)
    }
}

/// The events of all tasks, for messages.
pub(crate) fn story(alloc: &Value) -> String {
    let mut text = String::new();
    for name in alloc["TaskStates"].as_object().into_iter().flat_map(|tasks| tasks.keys()) {
        for event in Task::of(alloc, name).map(|task| task.events()).unwrap_or_default() {
            text.push_str(&format!("\n  {name}: {}: {}", event.kind, event.message));
        }
    }
    text
}
