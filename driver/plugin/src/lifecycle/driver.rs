//! The driver: everything that its services share, and what runs beside them.
//!
//! It owns no container: PID 1 does. It has no side effects before Nomad configures it for real, because
//! the agent starts plugins several times only to identify them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nomad_proto::base::ClientTopology;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::plugin::PluginConfig;
use crate::error::Failure;
use crate::events::Events;
use crate::helper_client::{Health, Helper};
use crate::metrics::{endpoint, socket::Sockets};
use crate::node::memory_events::MemoryEvents;
use crate::node::unit_signals::{self, Bus};
use crate::node::usage::Compute;
use crate::startup::privilege::{Standing, account_missing};
use crate::startup::sandbox::Sandbox;

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
    pub(crate) helper: Arc<Helper>,
    /// The tasks.
    pub(crate) tasks: super::task::Tasks,
    /// Messages for `nomad alloc status`.
    pub(crate) events: Events,
    /// The system bus.
    pub(crate) bus: Arc<Bus>,
    /// What the kernel reports about the memory of tasks.
    pub(super) memory_events: Arc<MemoryEvents>,
    pub(super) leftovers: Arc<super::pending_removals::Leftovers>,
    pub(super) claims: super::newest_start::Claims,
    /// Whether the last question about a task had no answer.
    pub(super) unanswered: AtomicBool,
    pub(super) directories: Vec<PathBuf>,
    pub(super) boot: String,
    pub(super) active: OnceLock<Instant>,
    /// For the metrics endpoint, until the first real configuration decides about it.
    sockets: Mutex<Option<Sockets>>,
}

impl Driver {
    /// A driver that touches nothing yet; relative images are looked up below `directories`.
    pub(crate) fn new(
        standing: Standing,
        sandbox: Sandbox,
        directories: Vec<PathBuf>,
        sockets: Sockets,
    ) -> Arc<Self> {
        let config = PluginConfig::default();
        let helper = Helper::new(PathBuf::from(&config.helper_socket));
        Arc::new(Self {
            standing,
            sandbox,
            config: watch::Sender::new(config),
            compute: watch::Sender::new(Compute::of_host()),
            helper: Arc::new(helper),
            tasks: super::task::Tasks::default(),
            events: Events::default(),
            bus: Arc::default(),
            memory_events: Arc::default(),
            leftovers: Arc::default(),
            claims: super::newest_start::Claims::default(),
            unanswered: AtomicBool::new(false),
            directories,
            boot: super::handle::boot_id(),
            active: OnceLock::new(),
            sockets: Mutex::new(Some(sockets)),
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
            self.serve_metrics();
        }
    }

    /// Starts the metrics endpoint where it is configured, once; else closes its sockets.
    fn serve_metrics(self: &Arc<Self>) {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sockets) = sockets {
            tokio::spawn(endpoint::run(Arc::clone(self), sockets));
        }
    }

    /// The figures of this process, as the metrics endpoint answers.
    pub(crate) fn metrics_page(&self) -> String {
        let systemd = match &*self.helper.health().borrow() {
            Health::Up(welcome) => welcome.systemd_text.clone(),
            Health::Down(_) | Health::Unknown => String::new(),
        };
        self.helper.figures.page(&systemd, self.tasks.count())
    }

    /// Starts what runs beside the requests. The first call counts.
    pub(crate) fn activate(self: &Arc<Self>) {
        // Without its account the plugin could do nothing with what it would learn.
        if self.is_nobody() || self.active.set(Instant::now()).is_err() {
            return;
        }
        let helper = Arc::clone(&self.helper);
        tokio::spawn(async move { helper.monitor().await });
        tokio::spawn(unit_signals::watch(Arc::clone(&self.bus), Arc::clone(self)));
        let leftovers = Arc::clone(&self.leftovers);
        tokio::spawn(super::pending_removals::work(Arc::clone(&self.helper), leftovers));
        tokio::spawn(Arc::clone(self).follow_helper());
    }

    /// Whether the account is missing: the helper accepts no other.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self.standing, Standing::Nobody { .. })
    }

    /// Whether [`Self::activate`] has started anything.
    pub(crate) fn is_active(&self) -> bool {
        self.active.get().is_some()
    }

    /// Looks at every task again whenever a helper process comes up: it may know of ends that
    /// were missed.
    pub(super) async fn follow_helper(self: Arc<Self>) {
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

    /// Refuses a start where no task can be started at all.
    ///
    /// # Errors
    /// The account is missing, or the operator has switched the driver off.
    pub(super) fn refuse_unable(&self) -> Result<(), Failure> {
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
