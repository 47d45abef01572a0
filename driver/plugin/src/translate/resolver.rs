//! Name resolution: what stands in the task's /etc/resolv.conf.
//!
//! The group's `dns` block wins over the job's `resolv_conf`. The host's files are read at each start.

use std::io::ErrorKind;
use std::net::IpAddr;

use nomad_proto::drivers::{DnsConfig, TaskConfig};
use proto::task_spec::Network;
use proto::task_spec::resolver::{EtcFile, ImageLink};

use super::host_files::put;
use super::node::Node;
use crate::config::Problem;
use crate::config::plugin::NAMESERVERS_MAX;
use crate::config::task::TaskKeys;
use crate::config::words::ResolvConf;

/// Search domains and options of a resolver, each.
const SEARCHES_MAX: usize = 32;

const OWN: &str = "/etc/resolv.conf";
const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";

/// The task's /etc/resolv.conf.
pub(crate) fn resolver(
    keys: &TaskKeys,
    task: &TaskConfig,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> EtcFile {
    let dns = task.dns.as_ref().filter(|dns| {
        !dns.servers.is_empty() || !dns.searches.is_empty() || !dns.options.is_empty()
    });
    match dns {
        Some(dns) => of_group(dns, problems),
        None => of_key(keys, network, node, problems),
    }
}

/// The group's `dns` block.
fn of_group(dns: &DnsConfig, problems: &mut Vec<Problem>) -> EtcFile {
    let mut invalid = |key: &str, value: &str, rule: &str| {
        problems.push(Problem::new(key, rule).value(value).remedy("see the group's dns block"));
    };
    let is_word = |text: &String, most: usize, others: &[u8]| {
        let known = |b: u8| b.is_ascii_alphanumeric() || others.contains(&b);
        (1..=most).contains(&text.len()) && text.bytes().all(known)
    };
    for text in dns.servers.iter().filter(|text| text.parse::<IpAddr>().is_err()) {
        invalid("dns.servers", text, "must be IP addresses");
    }
    for text in dns.searches.iter().filter(|text| !is_word(text, 253, b"._-")) {
        invalid("dns.searches", text, "must be 1 to 253 letters, digits and ._-");
    }
    for text in dns.options.iter().filter(|text| !is_word(text, 64, b":_-.")) {
        invalid("dns.options", text, "must be 1 to 64 letters, digits and :_-. (resolv.conf(5))");
    }
    if dns.servers.is_empty() {
        problems.push(
            Problem::new("dns.servers", "is empty: the host's servers are not mixed in")
                .remedy("name the servers in the group's dns block, or remove the block"),
        );
    }
    for (key, count, most) in [
        ("dns.servers", dns.servers.len(), NAMESERVERS_MAX),
        ("dns.searches", dns.searches.len(), SEARCHES_MAX),
        ("dns.options", dns.options.len(), SEARCHES_MAX),
    ] {
        if count > most {
            problems.push(Problem::new(key, format!("{count}, but at most {most} are used")));
        }
    }
    let mut text = servers(&dns.servers);
    for (key, words) in [("search", &dns.searches), ("options", &dns.options)] {
        if !words.is_empty() {
            text.push_str(&format!("{key} {}\n", words.join(" ")));
        }
    }
    put(text.into_bytes(), ImageLink::Cover)
}

fn servers(servers: &[String]) -> String {
    // In the one spelling of each address.
    let servers = servers.iter().filter_map(|text| text.parse::<IpAddr>().ok());
    servers.map(|server| format!("nameserver {server}\n")).collect()
}

/// Which resolver file of the host (systemd-nspawn(1), `--resolv-conf=`).
#[derive(Debug, Clone, Copy)]
enum Which {
    /// /etc/resolv.conf.
    Host,
    /// systemd's own, with the local stub.
    Static,
    /// The servers that systemd-resolved uses itself, else /etc/resolv.conf.
    Uplink,
    /// The local stub of systemd-resolved, with the search domains of the host.
    Stub,
}

/// What the job's `resolv_conf` asks for.
fn of_key(
    keys: &TaskKeys,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> EtcFile {
    use ImageLink::{Cover, Follow, Keep};
    use Which::{Host, Static, Stub, Uplink};
    let (link, which) = match keys.resolv_conf.unwrap_or_default() {
        ResolvConf::Auto => return automatic(keys, network, node, problems),
        ResolvConf::Off => return EtcFile::Keep,
        ResolvConf::Delete => return EtcFile::Delete,
        ResolvConf::CopyHost => (Keep, Host),
        ResolvConf::CopyStatic => (Keep, Static),
        ResolvConf::CopyUplink => (Keep, Uplink),
        ResolvConf::CopyStub => (Keep, Stub),
        ResolvConf::ReplaceHost => (Cover, Host),
        ResolvConf::ReplaceStatic => (Cover, Static),
        ResolvConf::ReplaceUplink => (Cover, Uplink),
        ResolvConf::ReplaceStub => (Cover, Stub),
        ResolvConf::BindHost => (Follow, Host),
        ResolvConf::BindStatic => (Follow, Static),
        ResolvConf::BindUplink => (Follow, Uplink),
        ResolvConf::BindStub => (Follow, Stub),
    };
    of_host(which, link, node, problems)
}

/// As systemd-nspawn's `auto`, but where the host's resolver listens on a loopback address that
/// the task's network does not have, the task gets servers that it can reach; and a link in the image
/// gives way where nothing would make the file that it leads to. The init of a booted image starts what
/// does, such as systemd-resolved.
fn automatic(
    keys: &TaskKeys,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> EtcFile {
    let link = if keys.boots() { ImageLink::Keep } else { ImageLink::Cover };
    let which = match network {
        Some(Network::Loopback) | None => return EtcFile::Keep,
        // The host names no servers that could be given; the image may.
        Some(network)
            if !matches!(network, Network::Host | Network::Join(_)) && is_missing(node, OWN) =>
        {
            return EtcFile::Keep;
        }
        Some(network) if *network != Network::Host && node.loopback_resolver => {
            let text = servers(&node.config.dns_servers);
            if !text.is_empty() {
                return put(text.into_bytes(), ImageLink::Cover);
            }
            Which::Uplink
        }
        Some(_) => Which::Host,
    };
    of_host(which, link, node, problems)
}

fn is_missing(node: &Node<'_>, path: &str) -> bool {
    (node.host.read)(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// One of the host's files, that systemd-nspawn would take.
fn of_host(which: Which, link: ImageLink, node: &Node<'_>, problems: &mut Vec<Problem>) -> EtcFile {
    let (path, hint) = match which {
        Which::Static => ("/usr/lib/systemd/resolv.conf", "it comes with systemd-resolved"),
        Which::Stub => (STUB, "systemd-resolved does not run"),
        Which::Uplink if (node.host.read)(UPLINK).is_ok() => (UPLINK, ""),
        Which::Uplink | Which::Host => (OWN, "the host itself resolves no names"),
    };
    let remedy = "use a \"…-host\" word or a dns block of the group";
    node.host.copy("resolv_conf", (path, hint), remedy, link, problems)
}
