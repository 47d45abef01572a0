//! A test host with one plugin process, for tests that ask hundreds of single tasks.
//!
//! The plugin is driven as the agent does it, over its own socket; no scheduler is between. Each
//! task has an allocation of its own, so tests may run side by side.

mod other;
mod running;

pub use other::Other;
pub use running::Running;

use crate::plugin::{Allocation, Plugin};
use crate::{Config, Rig, msgpack};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use nomad_proto::drivers::driver_client::DriverClient;
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::drivers::{
    AllocatedMemoryResources, AllocatedTaskResources, Resources, StartTaskRequest, TaskConfig,
};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

/// The host and the plugin.
#[derive(Debug)]
pub struct Stand {
    /// The host.
    pub rig: Rig,
    runtime: Runtime,
    plugin: Plugin,
}

/// How a task ended, and what it wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code.
    pub code: i32,
    /// Signal that ended it; 0 for none.
    pub signal: i32,
    /// Whether the kernel killed for want of memory.
    pub oom_killed: bool,
}

/// Why a start was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The text that the task's events would show.
    pub text: String,
    /// Whether Nomad would try again.
    pub recoverable: bool,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        // The only detail that the driver sends.
        let recoverable = status.details().windows(16).any(|w| w == b"RecoverableError");
        Self { text: status.message().to_owned(), recoverable }
    }
}

impl Stand {
    /// Boots the host with this policy file and starts the plugin.
    ///
    /// # Errors
    /// When something does not start.
    pub fn up(policy: &str) -> Result<Self> {
        Self::up_on(&Config { agent: false, ..Config::from_env()? }, policy)
    }

    /// The same on a host like this.
    ///
    /// # Errors
    /// When something does not start.
    pub fn up_on(config: &Config, policy: &str) -> Result<Self> {
        let rig = Rig::up(config)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let plugin = runtime.block_on(Plugin::start(&rig))?;
        let stand = Self { rig, runtime, plugin };
        stand.rig.set_policy(policy)?;
        Ok(stand)
    }

    /// Another plugin process on the same helper, as after a crash of the first.
    ///
    /// # Errors
    /// When it does not start.
    pub fn another_plugin(&self) -> Result<Other<'_>> {
        self.another_plugin_with(&Value::Object(serde_json::Map::new()))
    }

    /// Another plugin process with this configuration; null for none at all.
    ///
    /// # Errors
    /// When it does not start.
    pub fn another_plugin_with(&self, config: &Value) -> Result<Other<'_>> {
        let bytes = if config.is_null() { Vec::new() } else { msgpack::encode(config) };
        let plugin = self.runtime.block_on(Plugin::start_with(&self.rig, &bytes))?;
        Ok(Other { stand: self, plugin })
    }

    /// The plugin's process id in the host.
    #[must_use]
    pub fn plugin_pid(&self) -> i32 {
        self.plugin.pid()
    }

    /// The plugin's description of this health.
    ///
    /// # Errors
    /// When it does not report that health in time.
    pub fn health(&self, wanted: HealthState) -> Result<String> {
        self.runtime.block_on(self.plugin.health(wanted))
    }

    /// Makes a new allocation.
    ///
    /// # Errors
    /// When its directories cannot be made.
    pub fn allocation(&self, task: &str) -> Result<Allocation> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        Allocation::create(&self.rig, id.trim(), task)
    }

    /// What Nomad would send for a task of this configuration.
    #[must_use]
    pub fn config(allocation: &Allocation, run: u32, config: &Value) -> TaskConfig {
        let memory = AllocatedMemoryResources { memory_mb: 300, memory_max_mb: 0 };
        let resources = AllocatedTaskResources { memory: Some(memory), ..Default::default() };
        TaskConfig {
            id: allocation.task_id(run),
            name: allocation.task.clone(),
            alloc_id: allocation.id.clone(),
            alloc_dir: allocation.dir(),
            stdout_path: allocation.fifo("stdout"),
            stderr_path: allocation.fifo("stderr"),
            msgpack_driver_config: msgpack::encode(config),
            resources: Some(Resources {
                allocated_resources: Some(resources),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Starts what `change` makes of the task.
    ///
    /// # Errors
    /// When the test host fails; the driver's refusal is the inner result.
    pub fn start(
        &self,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Result<Running<'_>, Refused>> {
        let allocation = self.allocation("t")?;
        self.start_in(allocation, 1, config, change)
    }

    /// The same in an allocation that is there already.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_in(
        &self,
        allocation: Allocation,
        run: u32,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Result<Running<'_>, Refused>> {
        self.start_by(self.plugin.driver(), allocation, run, config, change)
    }

    fn start_by(
        &self,
        mut driver: DriverClient<Channel>,
        allocation: Allocation,
        run: u32,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Result<Running<'_>, Refused>> {
        let open = |stream: &str| {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            self.rig.open(&allocation.fifo(stream), flags, 0)
        };
        let streams = [open("stdout")?, open("stderr")?];
        let mut task = Self::config(&allocation, run, config);
        change(&mut task);
        let id = task.id.clone();
        let request = StartTaskRequest { task: Some(task) };
        match self.runtime.block_on(driver.start_task(request)) {
            Ok(reply) => {
                let reply = reply.into_inner();
                let (handle, network) =
                    (reply.handle.context("no handle")?, reply.network_override);
                let taken = [Vec::new(), Vec::new()];
                Ok(Ok(Running {
                    stand: self,
                    allocation,
                    id,
                    handle,
                    network,
                    driver,
                    streams,
                    taken,
                }))
            }
            Err(status) => {
                allocation.remove(&self.rig)?;
                Ok(Err(Refused::from(status)))
            }
        }
    }

    /// Runs a task to its end.
    ///
    /// # Errors
    /// When it is refused or does not end.
    pub fn run(&self, config: &Value) -> Result<Outcome> {
        self.run_with(config, |_| {})
    }

    /// Runs what `change` makes of the task to its end.
    ///
    /// # Errors
    /// When it is refused or does not end.
    pub fn run_with(
        &self,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Outcome> {
        match self.start(config, change)? {
            Ok(running) => running.finish(),
            Err(refused) => bail!("refused: {}", refused.text),
        }
    }

    /// The refusal of a task that must not start.
    ///
    /// # Errors
    /// When it starts.
    pub fn refusal(&self, config: &Value) -> Result<Refused> {
        self.refusal_with(config, |_| {})
    }

    /// The refusal of what `change` makes of the task.
    ///
    /// # Errors
    /// When it starts.
    pub fn refusal_with(
        &self,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Refused> {
        match self.start(config, change)? {
            Ok(running) => {
                running.stop("SIGKILL")?;
                bail!("started: {config}")
            }
            Err(refused) => Ok(refused),
        }
    }
}
