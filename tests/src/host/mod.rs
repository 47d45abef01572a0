//! One booted test host: a Debian container with systemd as PID 1, helper, driver and Nomad agent.
//!
//! For every end-to-end test, the benchmarks and `rig up`. It trusts [`supervisor`] to own everything
//! that exists outside the instance; a [`Rig`] value only talks to it and to processes inside. It
//! never enters the outer machine's own network: all requests go to the instance's loopback.

pub mod agent;
pub mod exec;
pub mod files;
pub mod here;
pub mod instance;
pub mod supervisor;

pub use exec::Output;

use crate::{api::Api, images, outer, product, product::Variant, rootfs, rootfs::Suite, wait};
use anyhow::{Context as _, Result, bail};
use instance::{Ready, Spec};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What an instance shall be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Debian release.
    pub suite: Suite,
    /// Which build of the product to install; `None` for a bare host.
    pub product: Option<Variant>,
    /// Whether a Nomad agent runs.
    pub agent: bool,
    /// Whether the instance gets a Debian image of its own, for jobs that write to the image. Else it
    /// is a read-only view of the cached one (copying takes seconds).
    pub own_debian: bool,
    /// Whether Docker, firewalld and ufw are installed; none of them runs.
    pub firewalls: bool,
}

impl Config {
    /// Product and agent, on the suite that `RIG_SUITE` names.
    ///
    /// # Errors
    /// When `RIG_SUITE` names no known suite.
    pub fn from_env() -> Result<Self> {
        Ok(Self::new(Suite::from_env()?))
    }

    /// Product and agent on `suite`.
    #[must_use]
    pub fn new(suite: Suite) -> Self {
        Self {
            suite,
            product: Some(Variant::Plain),
            agent: true,
            own_debian: false,
            firewalls: false,
        }
    }
}

/// A running instance. Dropping it takes the instance down, and so does the end of the process,
/// however it ends, unless [`Rig::keep`] was called.
#[derive(Debug)]
pub struct Rig {
    suite: Suite,
    ready: Ready,
    owned: Mutex<Option<Child>>,
}

impl Rig {
    /// Boots an instance, or takes the machine itself where `RIG` asks for that, and brings up what
    /// `config` asks for.
    ///
    /// # Errors
    /// When a step fails; the message names the step and holds the journal's end.
    pub fn up(config: &Config) -> Result<Self> {
        let built;
        let rig = if here::is_here() {
            built = config.product.map(product::build).transpose()?;
            here::take(config)?
        } else {
            outer::ensure_tools()?;
            // Builds first: a failing build should not cost a boot.
            built = config.product.map(product::build).transpose()?;
            let nomad = if config.agent { Some(crate::nomad::binary()?) } else { None };
            Self::boot(config, nomad.as_deref())?
        };
        let done = (|| {
            if config.agent {
                // First, because its election takes longer than the installation.
                rig.server_up()?;
            }
            if let Some(built) = &built {
                rig.install(built)?;
            }
            if config.agent { rig.agent_up(built.is_some()) } else { Ok(()) }
        })();
        match done {
            Ok(()) => Ok(rig),
            Err(error) => {
                let journal = rig.journal_tail(40);
                drop(rig.down());
                Err(error.context(format!("journal of the instance:\n{journal}")))
            }
        }
    }

    fn boot(config: &Config, nomad: Option<&std::path::Path>) -> Result<Self> {
        let spec = Spec {
            suite: config.suite,
            rootfs: if config.firewalls {
                rootfs::host_with_firewalls(config.suite)?
            } else {
                rootfs::host(config.suite)?
            },
            busybox: images::busybox(config.suite)?,
            debian: images::debian(config.suite)?,
            own_debian: config.own_debian,
            nomad: nomad.map(std::path::Path::to_path_buf),
        };
        instance::sweep()?;
        let start = Instant::now();
        let mut child = Command::new(instance::rig_binary()?)
            .arg("supervise")
            .arg(serde_json::to_string(&spec)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(instance::supervisor_log()?)
            .spawn()
            .context("cannot start the supervisor")?;
        let mut line = String::new();
        let out = child.stdout.take().context("the supervisor has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let answer: Result<Ready, String> = serde_json::from_str(&line)
            .with_context(|| format!("the supervisor died; it said {line:?}"))?;
        let ready = answer.map_err(anyhow::Error::msg)?;
        let rig = Self { suite: config.suite, ready, owned: Mutex::new(Some(child)) };
        rig.wait_booted()?;
        outer::say(&format!(
            "{} ({}) booted in {:.1} s",
            rig.ready.machine,
            config.suite.name(),
            start.elapsed().as_secs_f64()
        ));
        Ok(rig)
    }

    /// Lets the instance outlive this process (`rig up`); [`Rig::attach`] finds it again.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn keep(&self) -> Result<()> {
        let child = self.owned.lock().ok().and_then(|mut owned| owned.take());
        let stdin = child.and_then(|child| child.stdin).context("this process does not own it")?;
        { stdin }.write_all(supervisor::KEEP).context("the supervisor is gone")
    }

    fn wait_booted(&self) -> Result<()> {
        wait::until("systemd of the instance to finish booting", Duration::from_secs(60), || {
            let state = self.exec(&["systemctl", "is-system-running"])?.text();
            Ok(match state.trim() {
                "running" => Some(()),
                "degraded" => {
                    let failed = self.run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
                    bail!("units failed at boot:\n{failed}")
                }
                _ => None,
            })
        })
        .with_context(|| format!("console:\n{}", outer::tail(&self.ready.console(), 30)))
    }

    /// Takes hold of an instance that another process started detached.
    ///
    /// # Errors
    /// When its supervisor is gone.
    pub fn attach(suite: Suite, ready: Ready) -> Result<Self> {
        if !ready.alive() {
            bail!("{} is gone", ready.machine);
        }
        Ok(Self { suite, ready, owned: Mutex::new(None) })
    }

    /// What the supervisor said when the instance was up.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Debian release of this instance.
    #[must_use]
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Process id, on the outer machine, of the instance's PID 1.
    #[must_use]
    pub fn leader(&self) -> i32 {
        self.ready.leader
    }

    /// The agent's HTTP interface.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(self.leader())
    }

    /// Takes the instance down and waits until nothing of it is left.
    ///
    /// # Errors
    /// When its supervisor does not finish in time.
    pub fn down(&self) -> Result<()> {
        let Some(mut child) = self.owned.lock().ok().and_then(|mut owned| owned.take()) else {
            return self.ready.stop();
        };
        drop(child.stdin.take());
        self.ready.stop()?;
        child.wait()?;
        Ok(())
    }

    /// Last lines of the instance's journal.
    #[must_use]
    pub fn journal_tail(&self, lines: usize) -> String {
        let count = lines.to_string();
        self.exec(&["journalctl", "--no-pager", "-o", "short-precise", "-n", &count])
            .map_or_else(|error| format!("{error:#}"), |out| out.text())
    }

    /// The journal of one unit as plain messages.
    ///
    /// # Errors
    /// When journalctl fails.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--no-pager", "-o", "cat", "-u", unit])
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let owned = self.owned.lock().is_ok_and(|owned| owned.is_some());
        if owned && let Err(error) = self.down() {
            outer::say(&format!("taking {} down: {error:#}", self.ready.machine));
        }
    }
}
