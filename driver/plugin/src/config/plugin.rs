//! The agent's `plugin "nspawn" { config { … } }` block.

use std::net::SocketAddr;
use std::time::Duration;

use proto::limits;

use super::Problem;
use super::nested::{Block, Labelled};
use super::table::{Table as _, keys};
use super::value::{Period, Size};
use super::words::{LogDriver, NetworkSetup, UserNamespaces};
use crate::msgpack;

/// Nameservers of one task: the C library reads three (resolv.conf(5)).
pub(crate) const NAMESERVERS_MAX: usize = 3;

keys! {
    /// What the operator configures in the agent.
    pub(crate) struct PluginConfig {
        /// Whether the driver offers itself. `false`: it is not detected on this node.
        enabled: bool = true;
        /// Whether jobs may mount volumes. `false`: tasks with a `volume_mount` are refused.
        volumes: bool = true;
        /// Absolute path of the root helper's socket.
        helper_socket: String = "/run/nomad-nspawn/helper.sock";
        /// Time for one short request to the helper, 1s to 10m.
        helper_timeout: Period = "30s";
        /// Time for a complete image download, 0s for no limit.
        image_pull_timeout: Period, later = "30m";
        /// Time without a byte after which an image download has failed.
        pull_activity_timeout: Period, later = "2m";
        /// Credentials for image registries.
        auth: Block<Auth>, later;
        /// Settings of one image registry, by its host.
        registry: Labelled<Registry>, later;
        /// Removal of downloaded images and of what crashes left.
        gc: Block<Gc>, later;
        /// Networks of tasks.
        network: Block<Network>;
        /// Endpoint for Prometheus. Without the block there is none.
        metrics: Block<Metrics>;
        /// Nameservers for tasks in another network than the host's, on a host whose resolver
        /// listens on loopback only. Unset: the servers that the host's resolver asks.
        dns_servers: Vec<String>;
        /// Where tasks' output goes when the job does not set it.
        logging: Block<PluginLogging>;
        /// Whether Nomad collects no logs at all on this node, and starts no log collectors.
        /// Needs `logging.driver` journald or none.
        disable_log_collection: bool = false;
        /// Journal fields on every task's lines. Patterns with `*` over job_name, job_id,
        /// task_group_name, task_name, namespace, node_name, node_id. The field has the name in
        /// capitals.
        extra_labels: Vec<String>;
        /// How long, from the plugin's start, taking tasks over waits for a helper that does not
        /// answer; 1s to 10m, for all tasks together. After that, tasks count as running until the
        /// helper answers.
        recover_timeout: Period = "10s";
        /// Default of `private_users`. pick, identity, or managed (systemd 258, not yet).
        user_namespaces: UserNamespaces = "pick";
    }
}

keys! {
    /// Default of the task's `logging`.
    pub(crate) struct PluginLogging {
        /// Where output goes. nomad, journald, both, none.
        driver: LogDriver = "nomad";
    }
}

keys! {
    /// Credentials for image registries.
    pub(crate) struct Auth {
        /// File in the form of docker's config.json.
        config: Option<String>;
        /// Credential helper, as the suffix of its name or as its absolute path.
        helper: Option<String>;
    }
}

keys! {
    /// One image registry.
    pub(crate) struct Registry {
        /// Addresses that are tried first.
        mirrors: Vec<String>;
        /// Whether connections without TLS are allowed.
        insecure: bool = false;
        /// File with the CA certificates for its TLS certificate.
        ca_file: Option<String>;
    }
}

keys! {
    /// Removal of images.
    pub(crate) struct Gc {
        /// Whether downloaded images that no task uses are removed.
        image: bool = true;
        /// How long an image stays after its last task.
        image_delay: Period = "1h";
        /// Maximum bytes of downloaded images; unset: no limit.
        cache_max_size: Option<Size>;
        /// Bytes that stay free on the image store's file system; unset: no limit.
        min_free: Option<Size>;
        /// Search for what crashes left.
        dangling: Block<Dangling>;
    }
}

keys! {
    /// Search for leftovers.
    pub(crate) struct Dangling {
        /// Whether the search runs.
        enabled: bool = true;
        /// Time between two searches.
        period: Period = "5m";
        /// Age below which nothing is removed.
        creation_grace: Period = "5m";
        /// Whether findings are only logged.
        dry_run: bool = false;
    }
}

keys! {
    /// Networks of tasks.
    pub(crate) struct Network {
        /// Default of `network_setup`. helper, container, auto.
        default_setup: NetworkSetup = "helper";
        /// How long a start waits for an address with `network_setup = "container"`, 0s to 10m. After
        /// that the task runs on, and an event says so.
        address_timeout: Period = "30s";
        /// Refused: `pool` of the policy file's `[network]` is it.
        pool_ipv4: Option<String>;
        /// Refused: `pool_ipv6` of the policy file's `[network]` is it.
        pool_ipv6: Option<String>;
    }
}

keys! {
    /// Endpoint for Prometheus.
    pub(crate) struct Metrics {
        /// Address and port that `GET /metrics` is answered at, of loopback, 1024 to 65535.
        address: String = "127.0.0.1:9631";
    }
}

/// What `extra_labels` may name.
pub(crate) const LABELS: [&str; 7] =
    ["job_name", "job_id", "task_group_name", "task_name", "namespace", "node_name", "node_id"];

impl PluginConfig {
    /// Reads what SetConfig brings. No bytes at all means the defaults.
    ///
    /// # Errors
    /// Every problem in one text.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let value = msgpack::decode(bytes)
            .map_err(|e| format!("plugin configuration cannot be read: {e}"))?;
        let mut problems = Vec::new();
        let config = Self::read(value, "", &mut problems);
        config.check(&mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        let list: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Err(format!("plugin configuration: {}", list.join("; ")))
    }

    /// Where output goes when the job does not say it.
    pub(crate) fn log_driver(&self) -> LogDriver {
        self.logging.0.as_ref().map(|logging| logging.driver).unwrap_or_default()
    }

    /// Who makes a task's network when the job does not say it.
    pub(crate) fn default_setup(&self) -> NetworkSetup {
        self.network.0.as_ref().map(|network| network.default_setup).unwrap_or_default()
    }

    /// How long a start waits for an address from outside, in seconds.
    pub(crate) fn address_timeout_s(&self) -> u32 {
        let Period(timeout) = self.network.0.clone().unwrap_or_default().address_timeout;
        u32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
    }

    /// Where figures are served, if at all.
    pub(crate) fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.0.as_ref().and_then(|metrics| metrics.address.parse().ok())
    }

    fn check_metrics(&self, problems: &mut Vec<Problem>) {
        let Some(metrics) = &self.metrics.0 else { return };
        let served = |address: SocketAddr| address.ip().is_loopback() && address.port() >= 1024;
        if !metrics.address.parse().is_ok_and(served) {
            let rule = "must be an address of loopback with a port of 1024 to 65535";
            let problem = Problem::new("metrics.address", rule).value(&metrics.address);
            problems.push(problem.remedy("write \"127.0.0.1:9631\" or \"[::1]:9631\""));
        }
    }

    fn check_network(&self, problems: &mut Vec<Problem>) {
        let Some(network) = &self.network.0 else { return };
        let most = Duration::from_secs(limits::ADDRESS_TIMEOUT_MAX_S.into());
        if network.address_timeout.0 > most {
            let problem = Problem::new("network.address_timeout", "must be 0s to 10m");
            problems.push(problem.value(network.address_timeout.0));
        }
        for (key, value, own) in [
            ("network.pool_ipv4", &network.pool_ipv4, "pool"),
            ("network.pool_ipv6", &network.pool_ipv6, "pool_ipv6"),
        ] {
            if let Some(value) = value {
                let rule = "is the helper's to choose, which does not trust the driver with it";
                let remedy = format!(
                    "write {own} = {value:?} into [network] of /etc/nomad-nspawn/policy.toml"
                );
                problems.push(Problem::new(key, rule).value(value).remedy(remedy));
            }
        }
    }

    fn check(&self, problems: &mut Vec<Problem>) {
        self.check_network(problems);
        self.check_metrics(problems);
        let path = &self.helper_socket;
        if !path.starts_with('/') || path.len() > 107 || path.contains('\0') {
            problems.push(
                Problem::new("helper_socket", "must be an absolute path of at most 107 bytes")
                    .value(path),
            );
        }
        let range = Duration::from_secs(1)..=Duration::from_secs(600);
        for (key, Period(timeout)) in
            [("helper_timeout", self.helper_timeout), ("recover_timeout", self.recover_timeout)]
        {
            if !range.contains(&timeout) {
                problems.push(Problem::new(key, "must be 1s to 10m").value(timeout));
            }
        }
        let collected = matches!(self.log_driver(), LogDriver::Nomad | LogDriver::Both);
        if self.disable_log_collection && collected {
            problems.push(
                Problem::new("disable_log_collection", "leaves nobody to read the tasks' output")
                    .value(true)
                    .remedy("add logging { driver = \"journald\" } or \"none\""),
            );
        }
        for server in &self.dns_servers {
            if server.parse::<std::net::IpAddr>().is_err() {
                problems.push(Problem::new("dns_servers", "must be IP addresses").value(server));
            }
        }
        if self.dns_servers.len() > NAMESERVERS_MAX {
            problems.push(Problem::new("dns_servers", "the C library reads three at most"));
        }
        for pattern in &self.extra_labels {
            if !LABELS.iter().any(|label| glob(pattern, label)) {
                problems.push(
                    Problem::new("extra_labels", "fits no label")
                        .value(pattern)
                        .remedy(format!("patterns with * over {}", LABELS.join(", "))),
                );
            }
        }
    }
}

/// Whether the whole text fits the pattern, in which `*` stands for any characters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            tail.char_indices()
                .map(|(at, _)| at)
                .chain([tail.len()])
                .any(|at| tail.get(at..).is_some_and(|tail| glob(rest, tail)))
        }),
    }
}

#[cfg(test)]
mod tests;
