//! A plugin process in the test host, started and driven as the agent does it, without an agent.
//!
//! For benchmarks and for tests that drive hundreds of tasks: a call costs no scheduler. It runs
//! the installed binary as root, so it drops its rights as on a node.

use crate::{Rig, msgpack, product, world};
use anyhow::{Context as _, Result, bail};
use nomad_proto::base::base_plugin_client::BasePluginClient;
use nomad_proto::base::{NomadConfig, SetConfigRequest};
use nomad_proto::drivers::driver_client::DriverClient;
use nomad_proto::drivers::fingerprint_response::HealthState;
use nomad_proto::drivers::{
    AllocatedMemoryResources, AllocatedTaskResources, FingerprintRequest, Resources,
    StartTaskRequest, TaskConfig,
};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Nomad's cookie: without it the plugin does not serve.
const COOKIE: &str = "NOMAD_PLUGIN_MAGIC_COOKIE=\
                      e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255";

/// A running plugin.
#[derive(Debug)]
pub struct Plugin {
    life: Life,
    driver: DriverClient<Channel>,
    log: Arc<Mutex<String>>,
}

/// The plugin's process; it ends with this value.
#[derive(Debug)]
struct Life {
    /// Enters the test host; it passes no signal on.
    enter: Child,
    /// Ends the process in the test host.
    end: Command,
    pid: i32,
}

impl Drop for Life {
    fn drop(&mut self) {
        drop(self.end.status());
        drop(self.enter.kill());
        drop(self.enter.wait());
    }
}

impl Plugin {
    /// Starts and configures it, and waits until it reports itself healthy.
    ///
    /// # Errors
    /// When it does not start or does not become healthy.
    pub async fn start(rig: &Rig) -> Result<Self> {
        // An empty map: every key has its default.
        Self::start_with(rig, &[0x80]).await
    }

    /// The same with a configuration in msgpack; no bytes for none at all.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with(rig: &Rig, config: &[u8]) -> Result<Self> {
        // The shell says its number and becomes the plugin.
        let script = "echo $$; exec env \"$@\"";
        let words = ["sh", "-c", script, "sh", COOKIE, "PLUGIN_PROTOCOL_VERSIONS=2"];
        let mut command = rig.command(&[words.as_slice(), &[product::PLUGIN]].concat());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("plugin")?;
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().context("plugin's stderr")?;
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = lines.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (mut number, mut line) = (String::new(), String::new());
        let mut stdout = BufReader::new(child.stdout.take().context("plugin's stdout")?);
        stdout.read_line(&mut number)?;
        stdout.read_line(&mut line)?;
        let pid: i32 = number.trim_end().parse().context("the plugin's process")?;
        let Some(socket) = line.trim_end().split('|').nth(3) else {
            bail!("handshake {line:?}");
        };
        let mut end = rig.command(&["kill", "-KILL", &pid.to_string()]);
        // That it has ended before is no news.
        end.stdout(Stdio::null()).stderr(Stdio::null());
        let life = Life { enter: child, end, pid };
        let path = PathBuf::from(format!("/proc/{}/root{socket}", rig.leader()));
        let uri = format!("unix://{}", path.display());
        let channel = Endpoint::try_from(uri)?.connect().await?;
        let mut base = BasePluginClient::new(channel.clone());
        let config = SetConfigRequest {
            msgpack_config: config.to_vec(),
            nomad_config: Some(NomadConfig::default()),
            plugin_api_version: "v0.1.0".to_owned(),
        };
        base.set_config(config).await?;
        let driver = DriverClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { life, driver, log })
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first fingerprint with this health, with its description.
    ///
    /// # Errors
    /// When there is none within the time.
    pub async fn health(&self, wanted: HealthState) -> Result<String> {
        let mut stream = self.driver().fingerprint(FingerprintRequest {}).await?.into_inner();
        let limit = Duration::from_secs(20);
        tokio::time::timeout(limit, async {
            loop {
                let next = stream.message().await?.context("the stream ended")?;
                if next.health() == wanted {
                    return Ok(next.health_description);
                }
            }
        })
        .await
        .with_context(|| format!("never {wanted:?}"))?
    }

    /// A client of its driver service.
    #[must_use]
    pub fn driver(&self) -> DriverClient<Channel> {
        self.driver.clone()
    }

    /// Its process id in the test host.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.life.pid
    }
}

/// Makes an allocation's directory ($1) with one task's ($2).
const MAKE: &str = r#"
set -e; umask 0
mkdir -p -m 0711 /var/lib/nomad/alloc
mkdir -m 0755 "$1"
mkdir "$1/alloc" "$1/alloc/logs" "$1/$2" "$1/$2/local" "$1/$2/secrets"
mount -t tmpfs -o noexec,size=1m tmpfs "$1/$2/secrets"
mkfifo -m 0600 "$1/alloc/logs/.$2.stdout.fifo" "$1/alloc/logs/.$2.stderr.fifo"
"#;

/// One allocation's directories in the test host, with FIFOs that the test reads.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// Its id.
    pub id: String,
    /// The task's name.
    pub task: String,
}

impl Allocation {
    /// Makes the directories, the secrets mount and the FIFOs as the agent does.
    ///
    /// # Errors
    /// When a command in the host fails.
    pub fn create(rig: &Rig, id: &str, task: &str) -> Result<Self> {
        let allocation = Self { id: id.to_owned(), task: task.to_owned() };
        let dir = allocation.dir();
        rig.run(&["sh", "-c", MAKE, "sh", &dir, task])?;
        Ok(allocation)
    }

    /// Takes it away again; then nothing of its tasks may be left on the host.
    ///
    /// # Errors
    /// When something still holds it, or stays.
    pub fn remove(&self, rig: &Rig) -> Result<()> {
        const TAKE: &str = "umount \"$1/$2/secrets\" && rm -r \"$1\"";
        rig.run(&["sh", "-c", TAKE, "sh", &self.dir(), &self.task])?;
        world::wait_no_traces(rig.leader(), &self.id)
    }

    /// Its directory in the host.
    #[must_use]
    pub fn dir(&self) -> String {
        format!("/var/lib/nomad/alloc/{}", self.id)
    }

    /// Path of one stream's FIFO in the host.
    #[must_use]
    pub fn fifo(&self, stream: &str) -> String {
        format!("{}/alloc/logs/.{}.{stream}.fifo", self.dir(), self.task)
    }

    /// A start request for one run of the task.
    #[must_use]
    pub fn request(&self, run: u32, image: &str, command: &[&str]) -> StartTaskRequest {
        let memory = AllocatedMemoryResources { memory_mb: 64, memory_max_mb: 0 };
        let resources = AllocatedTaskResources { memory: Some(memory), ..Default::default() };
        StartTaskRequest {
            task: Some(TaskConfig {
                id: self.task_id(run),
                name: self.task.clone(),
                alloc_id: self.id.clone(),
                alloc_dir: self.dir(),
                stdout_path: self.fifo("stdout"),
                stderr_path: self.fifo("stderr"),
                msgpack_driver_config: config(image, command),
                resources: Some(Resources {
                    allocated_resources: Some(resources),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        }
    }

    /// Nomad's id of one run.
    #[must_use]
    pub fn task_id(&self, run: u32) -> String {
        format!("{}/{}/{run:08x}", self.id, self.task)
    }
}

/// The task configuration of an ephemeral command, in msgpack.
fn config(image: &str, command: &[&str]) -> Vec<u8> {
    msgpack::encode(&json!({
        "image": image, "boot": false, "ephemeral": true, "command": command,
    }))
}
