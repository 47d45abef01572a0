//! A further plugin process beside the stand's own.

use super::{Refused, Running, Stand};
use crate::plugin::Plugin;
use anyhow::{Context as _, Result};
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::drivers::{CapabilitiesRequest, DriverCapabilities, TaskConfig};
use serde_json::Value;

/// A further plugin process.
#[derive(Debug)]
pub struct Other<'a> {
    pub(super) stand: &'a Stand,
    pub(super) plugin: Plugin,
}

impl Other<'_> {
    /// Its description of this health.
    ///
    /// # Errors
    /// When it does not report that health in time.
    pub fn health(&self, wanted: HealthState) -> Result<String> {
        self.stand.runtime.block_on(self.plugin.health(wanted))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn capabilities(&self) -> Result<DriverCapabilities> {
        let mut driver = self.plugin.driver();
        let reply = self.stand.runtime.block_on(driver.capabilities(CapabilitiesRequest {}))?;
        reply.into_inner().capabilities.context("no capabilities")
    }

    /// Starts what `change` makes of the task, as [`Stand::start`].
    ///
    /// # Errors
    /// When the test host fails; the driver's refusal is the inner result.
    pub fn start(
        &self,
        config: &Value,
        change: impl FnOnce(&mut TaskConfig),
    ) -> Result<Result<Running<'_>, Refused>> {
        let allocation = self.stand.allocation("t")?;
        self.stand.start_by(self.plugin.driver(), allocation, 1, config, change)
    }

    /// Its process id in the host.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.plugin.pid()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.plugin.log()
    }
}
