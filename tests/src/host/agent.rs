//! The Nomad agent of an instance: its configuration, its unit, its starts and ends.
//!
//! For [`Rig::up`] and the tests that restart or kill it. The unit is written as on a real node
//! (KillMode=process: tasks and plugin outlive the agent). The server is a process of its own, as on
//! real clusters: an agent that is both is refused by itself for up to a minute after a restart,
//! because the client asks before the server has unlocked its keyring. It never uses `-dev`, which
//! would destroy tasks when the agent stops.

#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a missing key is null")]

use super::Rig;
use crate::{api::CLIENT_PORT, wait};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::time::Duration;

/// How long an agent may take to be of use.
const LIMIT: Duration = Duration::from_secs(60);
/// The agent's unit.
pub const UNIT: &str = "nomad.service";

/// The server's unit.
pub const SERVER: &str = "nomad-server.service";

fn service(what: &str, file: &str) -> String {
    format!(
        "\
[Unit]
Description=Nomad {what} of the test host
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/local/bin/nomad agent -config /etc/nomad.d/{file}
KillMode=process
KillSignal=SIGINT
Delegate=yes
LimitNOFILE=65536
TasksMax=infinity
SuccessExitStatus=1
"
    )
}

fn server_config(address: &str) -> String {
    format!(
        r#"name = "server"
data_dir = "/var/lib/nomad-server"
bind_addr = "0.0.0.0"
log_level = "INFO"
disable_update_check = true

advertise {{
  http = "{address}"
  rpc  = "{address}"
  serf = "{address}"
}}

server {{
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
  # A killed client on a busy machine is not lost.
  heartbeat_grace  = "5m"
}}
"#
    )
}

/// Compute and memory are claimed generously, so that a hundred small tasks can be placed; cloud
/// fingerprinters cost two seconds a start.
fn client_config(address: &str, product: bool) -> String {
    let plugin = if product { "plugin \"nspawn\" {\n  config {}\n}\n" } else { "" };
    format!(
        r#"name = "rig"
data_dir = "/var/lib/nomad"
plugin_dir = "/opt/nomad/plugins"
bind_addr = "0.0.0.0"
log_level = "DEBUG"
disable_update_check = true

ports {{
  http = {CLIENT_PORT}
}}

advertise {{
  http = "{address}"
  rpc  = "{address}"
  serf = "{address}"
}}

client {{
  enabled           = true
  servers           = ["127.0.0.1:4647"]
  network_interface = "host0"
  cni_path          = "/usr/lib/cni"
  cpu_total_compute = 100000
  memory_total_mb   = 100000
  gc_max_allocs     = 10000
  gc_disk_usage_threshold  = 99
  gc_inode_usage_threshold = 99
  options = {{
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }}
}}

telemetry {{
  publish_allocation_metrics = true
  publish_node_metrics       = true
}}

plugin "raw_exec" {{
  config {{ enabled = true }}
}}

{plugin}"#
    )
}

impl Rig {
    /// Starts the server; it elects itself while other things are done.
    pub(crate) fn server_up(&self) -> Result<()> {
        self.run(&["mkdir", "-p", "/etc/nomad.d"])?;
        let config = server_config(&self.ready().address);
        self.write_file("/etc/nomad.d/server.hcl", config, 0o644)?;
        let unit = service("server", "server.hcl");
        self.write_file("/etc/systemd/system/nomad-server.service", unit, 0o644)?;
        self.run(&["systemctl", "daemon-reload"])?;
        self.run(&["systemctl", "start", SERVER]).map(drop)
    }

    /// Starts the agent and waits until it can run jobs.
    pub(crate) fn agent_up(&self, product: bool) -> Result<()> {
        let config = client_config(&self.ready().address, product);
        self.write_file("/etc/nomad.d/client.hcl", config, 0o644)?;
        let unit = service("agent", "client.hcl");
        self.write_file("/etc/systemd/system/nomad.service", unit, 0o644)?;
        self.run(&["systemctl", "daemon-reload"])?;
        // A client that registers before the keyring is there fails and waits half a minute.
        wait::true_within("the Nomad server to lead and have its keyring", LIMIT, || {
            let keys = self.api().get("/v1/operator/keyring/keys");
            Ok(keys.is_ok_and(|keys| keys.as_array().is_some_and(|keys| !keys.is_empty())))
        })
        .with_context(|| self.unit_tail(SERVER, 30))?;
        self.agent_start()?;
        if product { self.wait_driver("nspawn") } else { Ok(()) }
    }

    /// Starts the agent's unit and waits until the node is ready.
    ///
    /// # Errors
    /// When it does not get there in time.
    pub fn agent_start(&self) -> Result<()> {
        self.run(&["systemctl", "start", UNIT])?;
        self.wait_agent()
    }

    /// Stops the agent the orderly way; tasks keep running.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn agent_stop(&self) -> Result<()> {
        self.run(&["systemctl", "stop", UNIT]).map(drop)
    }

    /// Stops and starts the agent.
    ///
    /// # Errors
    /// When it does not come back in time.
    pub fn agent_restart(&self) -> Result<()> {
        self.agent_stop()?;
        self.agent_start()
    }

    /// Kills the agent with signal 9 and waits until PID 1 has noticed; it is not started again.
    ///
    /// # Errors
    /// When it is still there after the limit.
    pub fn agent_kill9(&self) -> Result<()> {
        self.run(&["systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT])?;
        wait::true_within("the agent's end", LIMIT, || {
            Ok(self.run(&["systemctl", "show", "-P", "MainPID", UNIT])? == "0")
        })?;
        // A failed unit would be news for the next look at `systemctl --failed`.
        self.exec(&["systemctl", "reset-failed", UNIT]).map(drop)
    }

    /// Main process of a unit, as numbered inside the instance; 0 when it does not run.
    ///
    /// # Errors
    /// When systemctl fails.
    pub fn main_pid(&self, unit: &str) -> Result<i32> {
        Ok(self.run(&["systemctl", "show", "-P", "MainPID", unit])?.parse()?)
    }

    /// Waits until the agent that runs now has registered its node and answers.
    ///
    /// # Errors
    /// When it does not get there in time; the message holds the agent's last lines.
    pub fn wait_agent(&self) -> Result<()> {
        let id = self.run(&["systemctl", "show", "-P", "InvocationID", UNIT])?;
        let this = format!("_SYSTEMD_INVOCATION_ID={id}");
        wait::true_within("the Nomad agent to register its node", LIMIT, || {
            if self.main_pid(UNIT)? == 0 {
                bail!("the agent ended");
            }
            let log = self.run(&["journalctl", "--no-pager", "-o", "cat", &this])?;
            Ok(log.contains("client: node registration complete")
                && self.node().is_ok_and(|node| node["Status"] == "ready"))
        })
        .with_context(|| self.unit_tail(UNIT, 30))
    }

    /// Tied to Nomad's version: 1.6.3 keeps a file of each group network that it makes open until its
    /// garbage collector runs, unmounts the network without MNT_DETACH and gives up where that is
    /// busy, whatever the driver (nsutil.NewNS, nsutil.UnmountNS); 1.11.3 detaches. Only what its own
    /// log names is taken away here: another leftover stays and is found.
    ///
    /// # Errors
    /// When the host cannot be asked.
    pub fn unmount_what_nomad_could_not(&self) -> Result<()> {
        let words = ["journalctl", "--no-pager", "-o", "cat", "-g", "failed to unmount NS", "-u"];
        let log = self.exec(&[words.as_slice(), &[UNIT]].concat())?.text();
        for line in log.lines() {
            let busy = line.split_once("failed to unmount NS: at /var/run/netns/");
            let Some((id, "device or resource busy\"")) = busy.and_then(|it| it.1.split_once(": "))
            else {
                continue;
            };
            let path = format!("/run/netns/{id}");
            // Busy until the last process has left it: whoever waits for it asks again.
            if self.exists(&path) && self.exec(&["umount", &path])?.success() {
                self.run(&["rm", &path])?;
            }
        }
        Ok(())
    }

    /// The agent's own node, in full.
    ///
    /// # Errors
    /// When there is none yet.
    pub fn node(&self) -> Result<Value> {
        let list = self.api().get("/v1/nodes")?;
        let id = list[0]["ID"].as_str().context("no node yet")?;
        self.api().get(&format!("/v1/node/{id}"))
    }

    /// Waits until the node reports the driver as detected and healthy.
    ///
    /// # Errors
    /// When it does not in time; the message holds what the driver says of itself.
    pub fn wait_driver(&self, driver: &str) -> Result<()> {
        let mut last = Value::Null;
        wait::true_within(&format!("driver {driver} to be healthy"), LIMIT, || {
            last = self.node()?["Drivers"][driver].clone();
            Ok(last["Healthy"] == true)
        })
        .with_context(|| format!("driver: {last}\n{}", self.unit_tail(UNIT, 30)))
    }

    /// Last lines of one unit's journal, for messages.
    #[must_use]
    pub fn unit_tail(&self, unit: &str, lines: usize) -> String {
        let count = lines.to_string();
        self.exec(&["journalctl", "--no-pager", "-o", "cat", "-n", &count, "-u", unit])
            .map_or_else(|error| format!("{error:#}"), |out| out.text())
    }
}
