//! What is known of the node that a task is to run on.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::host_files::HostFiles;
use crate::config::plugin::PluginConfig;

/// What is known of the node that a task is to run on.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    /// Version of the running systemd; 0: not known.
    pub(crate) systemd: u32,
    /// Whether tasks may run without user namespace at all; `None`: not known.
    pub(crate) host_users: Option<bool>,
    /// The operator's configuration.
    pub(crate) config: &'a PluginConfig,
    /// Directories below which relative images are looked up, in order; the last is the plugin's.
    pub(crate) directories: &'a [PathBuf],
    /// Cores of the node, as the agent counts them.
    pub(crate) cores: f64,
    /// Whether SELinux is active.
    pub(crate) selinux: bool,
    /// How files of the host are read.
    pub(crate) host: HostFiles,
    /// Whether the host's resolver listens on loopback alone.
    pub(crate) loopback_resolver: bool,
}

impl<'a> Node<'a> {
    /// Looks at the host. Blocks on the file system.
    pub(crate) fn of_host(
        systemd: u32,
        host_users: Option<bool>,
        cores: f64,
        config: &'a PluginConfig,
        directories: &'a [PathBuf],
    ) -> Self {
        // A host without the file has no resolver that a task could not reach.
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self {
            systemd,
            host_users,
            config,
            directories,
            cores,
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            host: HostFiles::REAL,
            loopback_resolver: has_only_loopback(&resolver),
        }
    }
}

/// Whether a resolv.conf names loopback addresses alone.
fn has_only_loopback(text: &str) -> bool {
    let mut servers = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .peekable();
    servers.peek().is_some() && servers.all(|server| server.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_distinguished_from_servers() {
        for (text, alone) in [
            ("nameserver 127.0.0.53\noptions edns0\n", true),
            ("nameserver ::1\n nameserver 127.0.0.1\n", true),
            ("nameserver 127.0.0.53\nnameserver 9.9.9.9\n", false),
            ("# nameserver 127.0.0.53\n", false),
            ("nameserver\n", false),
            ("", false),
        ] {
            assert_eq!(has_only_loopback(text), alone, "{text:?}");
        }
    }
}
