//! A test host with one plugin process, for tests that ask hundreds of single tasks.
//!
//! The plugin is driven as the agent does it, over its own socket; no scheduler is between. Each
//! task has an allocation of its own, so tests may run side by side.

use crate::plugin::{Allocation, Plugin};
use crate::{Config, Rig, msgpack, wait};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use proto::nomad::drivers::driver_client::DriverClient;
use proto::nomad::drivers::fingerprint_response::HealthState;
use proto::nomad::drivers::{
    AllocatedMemoryResources, AllocatedTaskResources, DestroyTaskRequest, InspectTaskRequest,
    RecoverTaskRequest, Resources, SignalTaskRequest, StartTaskRequest, StopTaskRequest,
    TaskConfig, TaskHandle, WaitTaskRequest,
};
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::transport::Channel;

/// Longest life of a task that is awaited.
const LIMIT: Duration = Duration::from_secs(60);

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

/// A task that has been started.
#[derive(Debug)]
pub struct Running<'a> {
    stand: &'a Stand,
    /// Its allocation.
    pub allocation: Allocation,
    id: String,
    handle: TaskHandle,
    driver: DriverClient<Channel>,
    streams: [File; 2],
    taken: [Vec<u8>; 2],
}

impl Stand {
    /// Boots the host with this policy file and starts the plugin.
    ///
    /// # Errors
    /// When something does not start.
    pub fn up(policy: &str) -> Result<Self> {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env()? })?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let plugin = runtime.block_on(Plugin::start(&rig))?;
        let stand = Self { rig, runtime, plugin };
        stand.set_policy(policy)?;
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

    /// Replaces the policy file and makes the helper read it.
    ///
    /// # Errors
    /// When the helper does not take it.
    pub fn set_policy(&self, policy: &str) -> Result<()> {
        self.rig.write_file("/etc/nomad-nspawn/policy.toml", policy, 0o644)?;
        self.rig.run(&["systemctl", "reload", "nomad-nspawn-helper.service"]).map(drop)
    }

    /// Makes a new allocation.
    ///
    /// # Errors
    /// When its folders cannot be made.
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
        let open = |stream: &str| {
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
            self.rig.open(&allocation.fifo(stream), flags, 0)
        };
        let streams = [open("stdout")?, open("stderr")?];
        let mut task = Self::config(&allocation, run, config);
        change(&mut task);
        let id = task.id.clone();
        let mut driver = self.plugin.driver();
        let request = StartTaskRequest { task: Some(task) };
        match self.runtime.block_on(driver.start_task(request)) {
            Ok(reply) => {
                let handle = reply.into_inner().handle.context("no handle")?;
                let taken = [Vec::new(), Vec::new()];
                Ok(Ok(Running { stand: self, allocation, id, handle, driver, streams, taken }))
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

/// A further plugin process.
#[derive(Debug)]
pub struct Other<'a> {
    stand: &'a Stand,
    plugin: Plugin,
}

impl Other<'_> {
    /// Its description of this health.
    ///
    /// # Errors
    /// When it does not report that health in time.
    pub fn health(&self, wanted: HealthState) -> Result<String> {
        self.stand.runtime.block_on(self.plugin.health(wanted))
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.plugin.log()
    }
}

impl Running<'_> {
    /// Its unit.
    #[must_use]
    pub fn unit(&self) -> String {
        let run = self.id.rsplit('/').next().unwrap_or_default();
        format!("nomad-nspawn-{}-{run}.service", self.allocation.id.replace('-', ""))
    }

    /// Process id of its PID 1 in the host.
    ///
    /// # Errors
    /// When it does not run.
    pub fn leader(&self) -> Result<String> {
        let request = InspectTaskRequest { task_id: self.id.clone() };
        let mut driver = self.stand.plugin.driver();
        let reply = self.stand.runtime.block_on(driver.inspect_task(request))?.into_inner();
        let driver = reply.driver.context("no driver status")?;
        driver.attributes.get("pid").cloned().context("no pid")
    }

    /// Sends a signal; the driver's refusal is the inner result.
    ///
    /// # Errors
    /// Never; for uniformity.
    pub fn signal(&self, signal: &str) -> Result<Result<(), Refused>> {
        let request = SignalTaskRequest { task_id: self.id.clone(), signal: signal.to_owned() };
        let mut driver = self.stand.plugin.driver();
        let reply = self.stand.runtime.block_on(driver.signal_task(request));
        Ok(reply.map(drop).map_err(Refused::from))
    }

    /// Makes another plugin take the task over by its handle.
    ///
    /// # Errors
    /// When it does not.
    pub fn recover_by(&mut self, other: &Other<'_>) -> Result<()> {
        let request =
            RecoverTaskRequest { task_id: self.id.clone(), handle: Some(self.handle.clone()) };
        self.stand.runtime.block_on(other.plugin.driver().recover_task(request))?;
        self.driver = other.plugin.driver();
        Ok(())
    }

    /// Destroys it while it runs, by force; its allocation stays.
    ///
    /// # Errors
    /// When it does not go.
    pub fn destroy(mut self) -> Result<Allocation> {
        let request = DestroyTaskRequest { task_id: self.id.clone(), force: true };
        self.stand.runtime.block_on(self.driver.destroy_task(request))?;
        Ok(self.allocation)
    }

    /// What has been written so far to standard output (0) or standard error (1).
    ///
    /// # Errors
    /// The kernel's.
    pub fn written(&mut self, stream: usize) -> Result<String> {
        let file = self.streams.get_mut(stream).context("two streams")?;
        let taken = self.taken.get_mut(stream).context("two streams")?;
        let mut some = [0; 65_536];
        loop {
            match file.read(&mut some) {
                Ok(0) => break,
                Ok(length) => taken.extend_from_slice(some.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8_lossy(taken).into_owned())
    }

    /// Waits until standard output holds the text.
    ///
    /// # Errors
    /// When it does not come in time.
    pub fn wait_output(&mut self, text: &str) -> Result<String> {
        wait::until(&format!("{text:?} in the output"), LIMIT, || {
            let written = self.written(0)?;
            Ok(written.contains(text).then_some(written))
        })
    }

    /// Waits for its end, then removes it and its allocation.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn finish(self) -> Result<Outcome> {
        let rig = &self.stand.rig;
        let (outcome, allocation) = self.finish_run()?;
        allocation.remove(rig)?;
        Ok(outcome)
    }

    /// Waits for its end and removes it; the allocation stays, for another run.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn finish_run(mut self) -> Result<(Outcome, Allocation)> {
        let runtime = &self.stand.runtime;
        let mut driver = self.driver.clone();
        let request = WaitTaskRequest { task_id: self.id.clone() };
        let ended = runtime.spawn(async move { driver.wait_task(request).await });
        // The pipes are emptied meanwhile: a full one would hold the task up.
        wait::true_within("the task's end", LIMIT, || {
            self.written(0)?;
            self.written(1)?;
            Ok(ended.is_finished())
        })?;
        let result = runtime.block_on(ended)??.into_inner().result.context("no result")?;
        let outcome = Outcome {
            stdout: self.written(0)?,
            stderr: self.written(1)?,
            code: result.exit_code,
            signal: result.signal,
        };
        let request = DestroyTaskRequest { task_id: self.id.clone(), force: true };
        runtime.block_on(self.driver.destroy_task(request))?;
        Ok((outcome, self.allocation))
    }

    /// Asks it to end by this signal, waits, and removes it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(mut self, signal: &str) -> Result<Outcome> {
        let request = StopTaskRequest {
            task_id: self.id.clone(),
            timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            signal: signal.to_owned(),
        };
        self.stand.runtime.block_on(self.driver.stop_task(request))?;
        self.finish()
    }
}
