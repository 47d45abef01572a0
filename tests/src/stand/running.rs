//! A task that has been started: what it writes, how it ends.

use super::{Other, Outcome, Refused, Stand};
use crate::plugin::Allocation;
use crate::{Rig, wait};
use anyhow::{Context as _, Result};
use nomad_proto::drivers::driver_client::DriverClient;
use nomad_proto::drivers::{
    DestroyTaskRequest, InspectTaskRequest, NetworkOverride, RecoverTaskRequest, SignalTaskRequest,
    StopTaskRequest, TaskHandle, TaskStats, TaskStatsRequest, WaitTaskRequest,
};
use std::fs::File;
use std::io::Read as _;
use std::time::Duration;
use tonic::transport::Channel;

/// Longest life of a task that is awaited.
const LIMIT: Duration = Duration::from_secs(60);

/// A task that has been started.
#[derive(Debug)]
pub struct Running<'a> {
    pub(super) stand: &'a Stand,
    /// Its allocation.
    pub allocation: Allocation,
    pub(super) id: String,
    pub(super) handle: TaskHandle,
    pub(super) network: Option<NetworkOverride>,
    pub(super) driver: DriverClient<Channel>,
    pub(super) streams: [File; 2],
    pub(super) taken: [Vec<u8>; 2],
}

impl Running<'_> {
    /// The host that it runs on.
    #[must_use]
    pub fn rig(&self) -> &Rig {
        &self.stand.rig
    }

    /// The network that the driver reported at its start.
    #[must_use]
    pub fn network(&self) -> Option<&NetworkOverride> {
        self.network.as_ref()
    }

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
        let mut driver = self.driver.clone();
        let reply = self.stand.runtime.block_on(driver.inspect_task(request))?.into_inner();
        let driver = reply.driver.context("no driver status")?;
        driver.attributes.get("pid").cloned().context("no pid")
    }

    /// Sends a signal by the plugin that has the task; the driver's refusal is the inner result.
    ///
    /// # Errors
    /// Never; for uniformity.
    pub fn signal(&self, signal: &str) -> Result<Result<(), Refused>> {
        let request = SignalTaskRequest { task_id: self.id.clone(), signal: signal.to_owned() };
        let mut driver = self.driver.clone();
        let reply = self.stand.runtime.block_on(driver.signal_task(request));
        Ok(reply.map(drop).map_err(Refused::from))
    }

    /// Passes the task's figures on, one every `interval`, until `each` returns false.
    ///
    /// # Errors
    /// When the stream ends before, or nothing comes in time.
    pub fn watch_statistics(
        &self,
        interval: Duration,
        mut each: impl FnMut(TaskStats) -> bool,
    ) -> Result<()> {
        let request = TaskStatsRequest {
            task_id: self.id.clone(),
            collection_interval: Some(interval.try_into()?),
        };
        let mut driver = self.driver.clone();
        self.stand.runtime.block_on(async {
            let mut stream = driver.task_stats(request).await?.into_inner();
            loop {
                let next = tokio::time::timeout(LIMIT, stream.message()).await??;
                let stats = next.and_then(|next| next.stats).context("no more figures")?;
                if !each(stats) {
                    return Ok(());
                }
            }
        })
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
            oom_killed: result.oom_killed,
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
        self.ask_to_stop(signal)?;
        self.finish()
    }

    /// The same; the allocation stays, for another run.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop_run(mut self, signal: &str) -> Result<(Outcome, Allocation)> {
        self.ask_to_stop(signal)?;
        self.finish_run()
    }

    /// `StopTask`, as often as wanted.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn ask_to_stop(&mut self, signal: &str) -> Result<()> {
        let request = StopTaskRequest {
            task_id: self.id.clone(),
            timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            signal: signal.to_owned(),
        };
        self.stand.runtime.block_on(self.driver.stop_task(request))?;
        Ok(())
    }
}
