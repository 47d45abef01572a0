//! What every request works with.
//!
//! One thread shares it; it never leaves the process.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use proto::limits;
use proto::unit_id::UnitId;

use crate::exec::workers::Workers;
use crate::network::networks::Networks;
use crate::socket::pace::Pace;
use crate::start::filter_cache::FilterCache;
use crate::systemd::bus::Bus;
use crate::tasks::held_output::Streams;
use crate::tasks::table::Table;
use crate::tasks::uid_range::Ranges;
use policy::Policy;

/// The daemon's state.
pub(crate) struct Context {
    /// Random number of this process; requests made to another process carry another.
    pub(crate) epoch: u64,
    /// The policy in force.
    pub(crate) policy: RefCell<Rc<Policy>>,
    /// PID 1 and machined.
    pub(crate) bus: Bus,
    /// Tasks.
    pub(crate) table: RefCell<Table>,
    /// Removals of units that are not in the table.
    pub(crate) removing: RefCell<Vec<UnitId>>,
    /// Stored descriptors that may belong to a task whose record cannot be read.
    pub(crate) unclaimed: RefCell<HashMap<String, OwnedFd>>,
    /// Uid ranges.
    pub(crate) ranges: RefCell<Ranges>,
    /// Writers of the tasks' log FIFOs.
    pub(crate) streams: RefCell<Streams>,
    /// System call filters that are being made.
    pub(crate) filters: RefCell<FilterCache>,
    /// Who executes commands in tasks.
    pub(crate) workers: RefCell<Workers>,
    /// Held by each start that waits for its payload, so that their number is known.
    pub(crate) starting: Rc<()>,
    /// Networks of tasks' own.
    pub(crate) networks: RefCell<Networks>,
    /// Bytes of the specifications of all connections, see [`Held`].
    assembling: Cell<usize>,
    /// How often PID 1 is given work.
    pub(crate) pace: Pace,
    /// The same of commands in tasks: they neither take turns of starts nor wait for them.
    pub(crate) exec_pace: Pace,
    /// The version of systemd as PID 1 last gave it; empty before that.
    pub(crate) last_systemd: RefCell<String>,
}

impl Context {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            epoch: random(),
            policy: RefCell::new(Rc::new(policy)),
            bus: Bus::default(),
            table: RefCell::default(),
            removing: RefCell::default(),
            unclaimed: RefCell::default(),
            ranges: RefCell::default(),
            streams: RefCell::default(),
            filters: RefCell::default(),
            workers: RefCell::default(),
            starting: Rc::default(),
            networks: RefCell::default(),
            assembling: Cell::new(0),
            pace: Pace::default(),
            exec_pace: Pace::default(),
            last_systemd: RefCell::default(),
        }
    }

    /// The version of the running systemd; empty when it cannot be read now. Asked for each time: an
    /// upgrade executes PID 1 again, and this process goes on.
    pub(crate) async fn systemd(&self) -> String {
        let version = self.bus.systemd_version().await.unwrap_or_default();
        if !version.is_empty() {
            self.last_systemd.replace(version.clone());
        }
        version
    }

    /// The policy in force now; a reload does not change it under a running decision.
    pub(crate) fn policy(&self) -> Rc<Policy> {
        self.policy.borrow().clone()
    }
}

/// Bytes of one specification in the bound that all connections share; given back when dropped.
pub(crate) struct Held {
    context: Rc<Context>,
    bytes: usize,
}

impl Held {
    /// None yet.
    pub(crate) fn new(context: &Rc<Context>) -> Self {
        Self { context: context.clone(), bytes: 0 }
    }

    /// Whether as many more are within the bound.
    pub(crate) fn fits(&self, bytes: usize) -> bool {
        self.context.assembling.get().saturating_add(bytes) <= limits::ASSEMBLY_MAX
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.context.assembling.set(self.context.assembling.get() + bytes);
        self.bytes += bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let left = self.context.assembling.get().saturating_sub(self.bytes);
        self.context.assembling.set(left);
    }
}

/// A random number, never 0: 0 is the epoch of a greeting.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).max(1)
}
