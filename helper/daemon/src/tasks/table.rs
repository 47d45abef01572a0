//! The table of tasks. Everything in it can be derived again from PID 1's units.
//!
//! Trusts what the daemon enters; does no I/O and never decides what is allowed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

use proto::error::{Code, Refusal, printable};
use proto::limits;
use proto::name::{Instance, TaskKey};
use proto::plan::FilterSource;
use proto::unit_id::UnitId;
use proto::wire::{Page, Phase};

use crate::process::Process;
use crate::tasks::record::Record;

/// One task.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) record: Record,
    /// Unix time of the start in milliseconds.
    pub(crate) started_ms: u64,
    /// PID 1 of the container.
    pub(crate) leader: Option<Process>,
    /// The command below the stub init, when the task has one.
    pub(crate) payload: Option<Process>,
    /// The launcher's remarks.
    pub(crate) notes: Vec<String>,
    /// Where the system call filters of its start are from.
    pub(crate) filters: Option<FilterSource>,
    /// Whether its start is still under way.
    pub(crate) starting: bool,
    /// How far that has got.
    pub(crate) phase: Phase,
    /// Whether its ports lead to it.
    pub(crate) published: bool,
    /// Set once its link is gone from the host, and the kernel's entries for its connections.
    pub(crate) withdrawn: Rc<tokio::sync::OnceCell<()>>,
    /// Whether systemd-machined has it, registered for its unit.
    pub(crate) registered: bool,
    /// Held by a start, its registration and its removal: one of them at a time.
    pub(crate) gate: Rc<tokio::sync::Mutex<()>>,
}

impl Entry {
    pub(crate) fn new(record: Record, started_ms: u64, starting: bool) -> Self {
        Self {
            record,
            started_ms,
            leader: None,
            payload: None,
            notes: Vec::new(),
            filters: None,
            starting,
            phase: Phase::default(),
            published: false,
            withdrawn: Rc::default(),
            registered: false,
            gate: Rc::default(),
        }
    }
}

/// Tasks by key.
#[derive(Debug, Default)]
pub(crate) struct Table {
    tasks: BTreeMap<TaskKey, Entry>,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(crate) fn get(&self, key: &TaskKey) -> Option<&Entry> {
        self.tasks.get(key).or_else(|| self.tasks.get(&self.find_unreadable(key)?))
    }

    pub(crate) fn get_mut(&mut self, key: &TaskKey) -> Option<&mut Entry> {
        let key = self.find_unreadable(key).unwrap_or_else(|| key.clone());
        self.tasks.get_mut(&key)
    }

    /// The key of that task's entry when its record could not be read: its name may be unknown.
    fn find_unreadable(&self, key: &TaskKey) -> Option<TaskKey> {
        let unit = UnitId::from(key);
        self.unreadable().find(|record| record.unit() == unit).map(|record| record.key.clone())
    }

    /// A task that a request is about; `step` is what fails without it.
    pub(crate) fn find(&self, key: &TaskKey, step: &str) -> Result<Entry, Refusal> {
        let unknown = || Refusal::new(Code::Unknown, step, key, "no such task");
        self.get(key).cloned().ok_or_else(unknown)
    }

    /// The gate of a task.
    pub(crate) fn gate(&self, key: &TaskKey) -> Rc<tokio::sync::Mutex<()>> {
        self.get(key).map(|entry| entry.gate.clone()).unwrap_or_default()
    }

    /// Records of the tasks whose own could not be read.
    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &Record> {
        self.records().filter(|record| !record.is_readable())
    }

    /// Puts a remark before those of the launcher.
    pub(crate) fn note(&mut self, key: &TaskKey, note: String) {
        if let Some(entry) = self.get_mut(key) {
            entry.notes.insert(0, printable(&note));
            entry.notes.truncate(limits::NOTES_MAX);
        }
    }

    /// Takes note of how far a start has got.
    pub(crate) fn reach(&mut self, key: &TaskKey, phase: Phase) {
        if let Some(entry) = self.get_mut(key) {
            entry.phase = phase;
        }
    }

    /// Whether a unit of this id exists: the task's name is no part of it.
    pub(crate) fn holds(&self, unit: UnitId) -> bool {
        self.tasks.keys().any(|key| UnitId::from(key) == unit)
    }

    /// Another run of the same task.
    pub(crate) fn other_run(&self, wanted: &TaskKey) -> Option<Instance> {
        let same = |key: &&TaskKey| (key.alloc, &key.task) == (wanted.alloc, &wanted.task);
        self.tasks.keys().find(same).map(|key| key.instance)
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
        self.tasks.insert(entry.record.key.clone(), entry);
    }

    pub(crate) fn remove(&mut self, key: &TaskKey) -> Option<Entry> {
        let key = self.find_unreadable(key).unwrap_or_else(|| key.clone());
        self.tasks.remove(&key)
    }

    /// The task beside which another one cannot run, and why.
    pub(crate) fn holder(&self, wanted: &Record) -> Option<(&TaskKey, &'static str)> {
        self.records().find_map(|record| Some((&record.key, record.clash(wanted)?)))
    }

    /// Every task.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.tasks.values()
    }

    /// Every task's record.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.tasks.values().map(|entry| &entry.record)
    }

    /// One page of keys, in their order.
    pub(crate) fn page(&self, after: Option<&TaskKey>) -> Page {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = self.tasks.range((from, Bound::Unbounded));
        let keys = rest.by_ref().take(limits::LIST_PAGE).map(|(key, _)| key.clone()).collect();
        Page { keys, more: rest.next().is_some() }
    }
}
