//! The agent's `plugin "nspawn" { config { … } }` block.

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
mod tests {
    use super::*;
    use crate::config::doc_table::Row;
    use crate::msgpack::{Value, tests::encode};

    fn decode(entries: &[(&str, Value)]) -> Result<PluginConfig, String> {
        let map = entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let mut bytes = Vec::new();
        encode(&Value::Map(map), &mut bytes);
        PluginConfig::decode(&bytes)
    }

    fn list(texts: &[&str]) -> Value {
        Value::List(texts.iter().map(|text| Value::from(*text)).collect())
    }

    fn block(key: &str, value: Value) -> Value {
        Value::Map(vec![(key.to_owned(), value)])
    }

    #[test]
    fn no_bytes_and_no_values_mean_the_defaults() {
        let config = PluginConfig::decode(b"").unwrap();
        assert!(config.enabled && config.volumes);
        assert_eq!(config.helper_socket, "/run/nomad-nspawn/helper.sock");
        assert_eq!(config.helper_timeout, Period(Duration::from_secs(30)));
        assert_eq!(config.log_driver(), LogDriver::Nomad);
        assert_eq!(PluginConfig::decode(b"\x80").unwrap(), config);
        assert_eq!(PluginConfig::decode(b"\x81\xa7enabled\xc0").unwrap(), config);
        let empty = ["helper_timeout", "recover_timeout", "user_namespaces"];
        assert_eq!(decode(&empty.map(|key| (key, Value::from("")))).unwrap(), config);
    }

    #[test]
    fn values_are_taken_and_checked() {
        let config = PluginConfig::decode(b"\x81\xa7enabled\xc2").unwrap();
        assert!(!config.enabled);
        let refused = PluginConfig::decode(b"\x82\xa7enabled\x01\xadhelper_socket\xa1x");
        let refused = refused.unwrap_err();
        assert!(refused.contains("enabled") && refused.contains("helper_socket"), "{refused}");
        assert!(PluginConfig::decode(b"\x91\xc0").is_err());
        assert!(PluginConfig::decode(b"\xc1").is_err());
    }

    #[test]
    fn each_rule_names_its_key() {
        for (key, value, part) in [
            ("helper_timeout", Value::from("0"), "must be 1s to 10m"),
            ("disable_log_collection", Value::from(true), "nobody to read"),
            ("recover_timeout", Value::from("1h"), "must be 1s to 10m"),
            ("dns_servers", list(&["one"]), "must be IP addresses"),
            ("dns_servers", list(&["1.1.1.1", "::1", "9.9.9.9", "8.8.8.8"]), "three at most"),
            ("extra_labels", list(&["jobname"]), "fits no label"),
            ("logging", block("driver", Value::from("syslog")), "nomad, journald, both, none"),
            ("user_namespaces", Value::from("no"), "must be one of"),
            ("volumes", block("enabled", Value::from(true)), "must be true or false"),
        ] {
            let refused = decode(&[(key, value)]).unwrap_err();
            assert!(refused.contains(key) && refused.contains(part), "{key}: {refused}");
        }
    }

    #[test]
    fn networks_have_a_default_and_pools_are_the_policys() {
        let config = decode(&[]).unwrap();
        assert_eq!(
            (config.default_setup(), config.address_timeout_s()),
            (NetworkSetup::Helper, 30)
        );
        let network = |key: &str, value: &str| decode(&[("network", block(key, value.into()))]);
        let config = network("default_setup", "auto").unwrap();
        assert_eq!(config.default_setup(), NetworkSetup::Auto);
        assert_eq!(network("address_timeout", "1500ms").unwrap().address_timeout_s(), 2);
        for (key, value, words) in [
            ("default_setup", "host", "must be one of helper, container, auto"),
            ("address_timeout", "601s", "must be 0s to 10m"),
            ("pool_ipv4", "10.0.0.0/20", "pool = \"10.0.0.0/20\" into [network]"),
            ("pool_ipv6", "fd00::/64", "pool_ipv6 = \"fd00::/64\" into [network]"),
        ] {
            let refused = network(key, value).unwrap_err();
            assert!(refused.contains(key) && refused.contains(words), "{refused}");
        }
    }

    #[test]
    fn later_keys_are_refused() {
        let empty = || Value::Map(Vec::new());
        let cases = [
            ("image_pull_timeout", Value::from("1m")),
            ("pull_activity_timeout", "1m".into()),
            ("auth", block("config", "/etc/auth.json".into())),
            ("registry", block("example.org", empty())),
            ("gc", block("dangling", empty())),
        ];
        for (key, value) in &cases {
            let refused = decode(&[(*key, value.clone())]).unwrap_err();
            let said = refused.starts_with(&format!("plugin configuration: {key}"));
            assert!(said && refused.contains("cannot do it yet: "), "{refused}");
        }
        assert_eq!(Row::unsupported::<PluginConfig>(), cases.map(|(key, _)| key));
        assert!(decode(&[("image_pull_timeout", "30m".into()), ("registry", empty())]).is_ok());
    }

    #[test]
    fn blocks_are_read() {
        let config = decode(&[
            ("logging", block("driver", Value::from("journald"))),
            ("disable_log_collection", Value::from(true)),
            ("extra_labels", list(&["job_*", "node_id"])),
        ])
        .unwrap();
        assert_eq!(config.log_driver(), LogDriver::Journald);
    }

    #[test]
    fn patterns_fit_the_whole_text() {
        for (pattern, text, fits) in [
            ("job_name", "job_name", true),
            ("job_*", "job_name", true),
            ("*", "", true),
            ("*_n*e", "job_name", true),
            ("*b*", "job_name", true),
            ("job", "job_name", false),
            ("*x*", "job_name", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
