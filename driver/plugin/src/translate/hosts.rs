//! Lines for the task's /etc/hosts.

use std::net::IpAddr;

use nomad_proto::drivers::TaskConfig;
use proto::task_spec::process::HostName;

use crate::config::Problem;
use crate::config::task::TaskKeys;

/// Lines for /etc/hosts: Nomad's own for the group's network, then the job's.
pub(crate) fn hosts(
    keys: &TaskKeys,
    task: &TaskConfig,
    problems: &mut Vec<Problem>,
) -> Vec<String> {
    let mut hosts = Vec::new();
    let nomad = task.network_isolation_spec.as_ref().and_then(|spec| spec.hosts_config.as_ref());
    if let Some(own) = nomad.filter(|own| !own.hostname.is_empty() && !own.address.is_empty()) {
        hosts.extend(entry("hosts of the group's network", &own.hostname, &own.address, problems));
    }
    for text in &keys.extra_hosts {
        let Some((name, address)) = text.split_once(':') else {
            problems.push(
                Problem::new("extra_hosts", "must be name:address")
                    .value(text)
                    .remedy("e.g. \"db:10.0.0.5\" or \"db:[fd00::5]\""),
            );
            continue;
        };
        let address =
            address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
        hosts.extend(entry("extra_hosts", name, address, problems));
    }
    hosts
}

fn entry(key: &str, name: &str, address: &str, problems: &mut Vec<Problem>) -> Option<String> {
    let mut refuse = |rule: String| {
        problems.push(
            Problem::new(key, rule)
                .value(format!("{name}:{address}"))
                .remedy("e.g. \"db:10.0.0.5\" or \"db:[fd00::5]\""),
        );
    };
    match (HostName::new(name), address.parse::<IpAddr>()) {
        (Ok(name), Ok(address)) => Some(format!("{address} {name}\n")),
        (Err(e), _) => {
            refuse(e.to_string());
            None
        }
        (_, Err(_)) => {
            refuse("the address must be an IP address".to_owned());
            None
        }
    }
}
