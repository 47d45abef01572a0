//! The agent's `plugin "nspawn" { config { … } }` block.

use super::Problem;
use super::table::keys;
use crate::msgpack;

keys! {
    /// What the operator configures in the agent.
    pub(crate) struct PluginConfig {
        /// Whether the driver offers itself at all.
        enabled: bool = true;
        /// Whether jobs may mount volumes.
        volumes: bool = true;
        /// Socket of the root helper.
        helper_socket: String = "/run/nomad-nspawn/helper.sock";
    }
}

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
        let config = Self::read(value, &mut problems);
        let path = &config.helper_socket;
        if !path.starts_with('/') || path.len() > 107 || path.contains('\0') {
            problems.push(
                Problem::new("helper_socket", "must be an absolute path of at most 107 bytes")
                    .value(path),
            );
        }
        if problems.is_empty() {
            return Ok(config);
        }
        let list: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Err(format!("plugin configuration: {}", list.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_and_no_values_mean_the_defaults() {
        let config = PluginConfig::decode(b"").unwrap();
        assert!(config.enabled && config.volumes);
        assert_eq!(config.helper_socket, "/run/nomad-nspawn/helper.sock");
        assert_eq!(PluginConfig::decode(b"\x80").unwrap(), config);
        assert_eq!(PluginConfig::decode(b"\x81\xa7enabled\xc0").unwrap(), config);
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
}
