//! Name resolution and time zone.

use std::net::IpAddr;

use proto::limits;
use proto::nomad::drivers::{DnsConfig, TaskConfig};
use proto::spec::process::HostName;
use proto::spec::resolver::{
    HostEntry, Resolver, ResolverFile, ResolverOption, ResolverUse, SearchDomain, Timezone,
};
use proto::spec::{Names, Network, Root, Volatile};

use super::Node;
use crate::config::Problem;
use crate::config::blocks::{ResolvConf, TimezoneWord};
use crate::config::task::TaskKeys;

/// Everything about names.
pub(crate) fn names(
    keys: &TaskKeys,
    task: &TaskConfig,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Names {
    let dns = task.dns.as_ref().filter(|dns| {
        !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty()
    });
    let resolver = match dns {
        Some(dns) => own(dns, problems),
        None => resolver(keys, network, node),
    };
    Names { resolver, hosts: hosts(keys, task, problems), timezone: timezone(keys) }
}

/// The group's `dns` block.
fn own(dns: &DnsConfig, problems: &mut Vec<Problem>) -> Resolver {
    let mut invalid = |key: &str, value: &str, rule: String| {
        problems.push(Problem::new(key, rule).value(value).remedy("see the group's dns block"));
    };
    let mut servers: Vec<IpAddr> = Vec::new();
    for text in &dns.servers {
        match text.parse() {
            Ok(server) => servers.push(server),
            Err(_) => invalid("dns.servers", text, "must be IP addresses".to_owned()),
        }
    }
    let mut searches = Vec::new();
    for text in &dns.searches {
        match SearchDomain::new(text) {
            Ok(search) => searches.push(search),
            Err(e) => invalid("dns.searches", text, e.to_string()),
        }
    }
    let mut options = Vec::new();
    for text in &dns.options {
        match ResolverOption::new(text) {
            Ok(option) => options.push(option),
            Err(e) => invalid("dns.options", text, e.to_string()),
        }
    }
    if dns.servers.is_empty() {
        problems.push(
            Problem::new("dns.servers", "is empty: the host's servers are not mixed in")
                .remedy("name the servers in the group's dns block, or remove the block"),
        );
    }
    for (key, count, most) in [
        ("dns.servers", servers.len(), limits::NAMESERVERS_MAX),
        ("dns.searches", searches.len(), limits::SEARCHES_MAX),
        ("dns.options", options.len(), limits::SEARCHES_MAX),
    ] {
        if count > most {
            problems.push(Problem::new(key, format!("{count}, but at most {most} are used")));
        }
    }
    Resolver::Own { servers, searches, options }
}

fn resolver(keys: &TaskKeys, network: Option<&Network>, node: &Node<'_>) -> Resolver {
    use ResolverFile::{Host, Static, Stub, Uplink};
    use ResolverUse::{Bind, Copy, Replace};
    let (how, which) = match keys.resolv_conf.unwrap_or_default() {
        ResolvConf::Auto => return automatic(keys, network, node),
        ResolvConf::Off => return Resolver::Off,
        ResolvConf::Delete => return Resolver::Delete,
        ResolvConf::CopyHost => (Copy, Host),
        ResolvConf::CopyStatic => (Copy, Static),
        ResolvConf::CopyUplink => (Copy, Uplink),
        ResolvConf::CopyStub => (Copy, Stub),
        ResolvConf::ReplaceHost => (Replace, Host),
        ResolvConf::ReplaceStatic => (Replace, Static),
        ResolvConf::ReplaceUplink => (Replace, Uplink),
        ResolvConf::ReplaceStub => (Replace, Stub),
        ResolvConf::BindHost => (Bind, Host),
        ResolvConf::BindStatic => (Bind, Static),
        ResolvConf::BindUplink => (Bind, Uplink),
        ResolvConf::BindStub => (Bind, Stub),
    };
    Resolver::Host { how, which }
}

/// As systemd-nspawn's `auto`, but where the host's resolver listens on a loopback address that
/// the task's network does not have, the task gets servers that it can reach; and a link in the image
/// gives way where nothing would make the file that it leads to. The init of a booted image starts what
/// does, such as systemd-resolved.
fn automatic(keys: &TaskKeys, network: Option<&Network>, node: &Node<'_>) -> Resolver {
    let how = if keys.boots() { ResolverUse::Copy } else { ResolverUse::Replace };
    let host = |which| Resolver::Host { how, which };
    match network {
        Some(Network::Loopback) | None => Resolver::Off,
        Some(Network::Join(_)) if node.loopback_resolver => {
            let servers: Vec<IpAddr> =
                node.config.dns_servers.iter().filter_map(|text| text.parse().ok()).collect();
            if servers.is_empty() {
                return host(ResolverFile::Uplink);
            }
            Resolver::Own { servers, searches: Vec::new(), options: Vec::new() }
        }
        Some(Network::Join(_) | Network::Host) => host(ResolverFile::Host),
    }
}

/// Whether a resolv.conf names loopback addresses alone.
pub(crate) fn loopback_alone(text: &str) -> bool {
    let mut servers = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .peekable();
    servers.peek().is_some() && servers.all(|server| server.is_loopback())
}

/// Lines for /etc/hosts: Nomad's own for the group's network, then the job's.
fn hosts(keys: &TaskKeys, task: &TaskConfig, problems: &mut Vec<Problem>) -> Vec<HostEntry> {
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

fn entry(key: &str, name: &str, address: &str, problems: &mut Vec<Problem>) -> Option<HostEntry> {
    let mut refuse = |rule: String| {
        problems.push(
            Problem::new(key, rule)
                .value(format!("{name}:{address}"))
                .remedy("e.g. \"db:10.0.0.5\" or \"db:[fd00::5]\""),
        );
    };
    match (HostName::new(name), address.parse()) {
        (Ok(name), Ok(address)) => Some(HostEntry { address, name }),
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

fn timezone(keys: &TaskKeys) -> Timezone {
    match keys.timezone {
        None | Some(TimezoneWord::Off) => Timezone::Off,
        Some(TimezoneWord::Copy) => Timezone::Copy,
        Some(TimezoneWord::Bind) => Timezone::Bind,
        Some(TimezoneWord::Symlink) => Timezone::Symlink,
        Some(TimezoneWord::Delete) => Timezone::Delete,
        Some(TimezoneWord::Auto) => match super::root::mode(keys) {
            Root::ReadOnly | Root::Volatile(Volatile::State) => Timezone::Bind,
            Root::Plain
            | Root::Ephemeral(_)
            | Root::Volatile(Volatile::Yes | Volatile::Overlay) => Timezone::Symlink,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stubs_are_told_from_servers() {
        for (text, alone) in [
            ("nameserver 127.0.0.53\noptions edns0\n", true),
            ("nameserver ::1\n nameserver 127.0.0.1\n", true),
            ("nameserver 127.0.0.53\nnameserver 9.9.9.9\n", false),
            ("# nameserver 127.0.0.53\n", false),
            ("nameserver\n", false),
            ("", false),
        ] {
            assert_eq!(loopback_alone(text), alone, "{text:?}");
        }
    }
}
