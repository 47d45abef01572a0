//! The life of tasks: start, watch, stop, destroy, recover.
//!
//! | module | idea |
//! |---|---|
//! | [`start`] | from Nomad's request to a running container |
//! | [`recover`] | taking over tasks that another process started |
//! | [`check`] | finding out where a task stands; the one place that decides it has ended |
//! | [`stop`] | signal, stop, destroy |
//! | [`older`] | containers that the older driver has left running |
//! | [`claim`] | which of several starts of a task counts |
//! | [`leftovers`] | removals that the helper still owes |
//! | [`task`] | the table of tasks |
//! | [`handle`] | what Nomad keeps for us |
//!
//! The driver owns no container: PID 1 does. Whatever this process forgets, it learns again from
//! the handle, the helper and the bus. It has no side effects before Nomad configures it for
//! real, because the agent starts plugins several times just to ask who they are.

pub(crate) mod check;
mod claim;
pub(crate) mod handle;
mod leftovers;
mod older;
pub(crate) mod recover;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod task;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use proto::nomad::base::ClientTopology;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::plugin::PluginConfig;
use crate::error::Failure;
use crate::events::Events;
use crate::helper::{Health, Helper};
use crate::observe::bus::{self, Bus};
use crate::observe::stats::Compute;
use crate::process::privilege::{ACCOUNT, Standing};
use crate::process::sandbox::Sandbox;

/// The driver: everything that its services share.
#[derive(Debug)]
pub(crate) struct Driver {
    /// As whom the process runs.
    pub(crate) standing: Standing,
    /// What confines it.
    pub(crate) sandbox: Sandbox,
    /// The operator's configuration.
    pub(crate) config: watch::Sender<PluginConfig>,
    /// The node's computing power.
    pub(crate) compute: watch::Sender<Compute>,
    /// The root helper.
    pub(crate) helper: Helper,
    /// The tasks.
    pub(crate) tasks: task::Tasks,
    /// Messages to the people who look at a task.
    pub(crate) events: Events,
    /// The system bus.
    pub(crate) bus: Bus,
    leftovers: leftovers::Leftovers,
    claims: claim::Claims,
    /// Whether the last question about a task had no answer.
    unanswered: AtomicBool,
    folders: Vec<PathBuf>,
    boot: String,
    active: OnceLock<Instant>,
}

impl Driver {
    /// A driver that touches nothing yet; relative images are looked up below `folders`.
    pub(crate) fn new(standing: Standing, sandbox: Sandbox, folders: Vec<PathBuf>) -> Arc<Self> {
        let config = PluginConfig::default();
        let helper = Helper::new(PathBuf::from(&config.helper_socket));
        Arc::new(Self {
            standing,
            sandbox,
            config: watch::Sender::new(config),
            compute: watch::Sender::new(Compute::of_host()),
            helper,
            tasks: task::Tasks::default(),
            events: Events::default(),
            bus: Bus::default(),
            leftovers: leftovers::Leftovers::default(),
            claims: claim::Claims::default(),
            unanswered: AtomicBool::new(false),
            folders,
            boot: handle::boot_id(),
            active: OnceLock::new(),
        })
    }

    /// Takes a configuration; `real` when it came from the agent's driver manager and not from a
    /// validation. May be called any number of times.
    pub(crate) fn configure(
        self: &Arc<Self>,
        config: PluginConfig,
        real: bool,
        topology: Option<&ClientTopology>,
    ) {
        self.helper.set(PathBuf::from(&config.helper_socket), config.helper_timeout.0);
        self.config.send_replace(config);
        if let Some(compute) = topology.and_then(Compute::of_topology) {
            self.compute.send_replace(compute);
        }
        if real {
            self.activate();
        }
    }

    /// Starts what runs beside the requests. The first call counts.
    pub(crate) fn activate(self: &Arc<Self>) {
        // Without its account the plugin could do nothing with what it would learn.
        if self.is_nobody() || self.active.set(Instant::now()).is_err() {
            return;
        }
        let driver = Arc::clone(self);
        tokio::spawn(async move { driver.helper.monitor().await });
        tokio::spawn(bus::watch(Arc::clone(self)));
        tokio::spawn(leftovers::work(Arc::clone(self)));
        tokio::spawn(Arc::clone(self).follow_helper());
    }

    /// Whether the account is missing: the helper lets nobody else in.
    fn is_nobody(&self) -> bool {
        matches!(self.standing, Standing::Nobody { .. })
    }

    /// Whether [`Self::activate`] has started anything.
    pub(crate) fn is_active(&self) -> bool {
        self.active.get().is_some()
    }

    /// Looks at every task again whenever a helper process comes up: it may know of ends that
    /// nobody saw.
    async fn follow_helper(self: Arc<Self>) {
        let mut health = self.helper.health();
        loop {
            let up = matches!(*health.borrow_and_update(), Health::Up(_));
            if up {
                self.unanswered.store(false, Ordering::Relaxed);
                self.check_all();
            }
            if health.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether tasks can be started at all.
    ///
    /// # Errors
    /// The account is missing, or the operator has switched the driver off.
    fn able(&self) -> Result<(), Failure> {
        if self.is_nobody() {
            return Err(Failure::permanent(account_missing()));
        }
        if !self.config.borrow().enabled {
            return Err(Failure::permanent(
                "the nspawn driver is disabled on this node (enabled = false in the agent's \
                 plugin block)",
            ));
        }
        Ok(())
    }
}

/// Why a plugin without account does nothing, and the mend.
pub(crate) fn account_missing() -> String {
    format!(
        "account \"{ACCOUNT}\" is missing on this node; create it with: systemd-sysusers \
         /usr/lib/sysusers.d/nomad-nspawn.conf, then restart the Nomad agent"
    )
}
