//! Name resolution and time zone: what stands in the task's /etc/resolv.conf, /etc/hosts and
//! /etc/localtime. Files of the host that everybody may read are read here, at each start.

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nomad_proto::drivers::{DnsConfig, TaskConfig};
use proto::limits::ETC_FILE_MAX;
use proto::path::Relative;
use proto::task_spec::process::HostName;
use proto::task_spec::resolver::{EtcFile, ImageLink};
use proto::task_spec::{Names, Network, Root, Volatile};

use super::Node;
use super::place::below;
use crate::config::Problem;
use crate::config::plugin::NAMESERVERS_MAX;
use crate::config::task::TaskKeys;
use crate::config::words::{ResolvConf, TimezoneWord};

/// Search domains and options of a resolver, each.
const SEARCHES_MAX: usize = 32;

const UPLINK: &str = "/run/systemd/resolve/resolv.conf";
const STUB: &str = "/run/systemd/resolve/stub-resolv.conf";
const LOCALTIME: &str = "/etc/localtime";
const ZONES: &str = "/usr/share/zoneinfo";

/// How files of the host are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostFiles {
    /// The content of a file; an error without kind says itself what is wrong.
    pub(crate) read: fn(&str) -> io::Result<Vec<u8>>,
    /// Where a symbolic link leads to.
    pub(crate) link: fn(&str) -> io::Result<PathBuf>,
}

impl HostFiles {
    /// Those of this host.
    pub(crate) const REAL: Self = Self { read, link: |path| std::fs::read_link(path) };
}

/// A regular file, as long as the helper takes one.
fn read(path: &str) -> io::Result<Vec<u8>> {
    // Opened only then: a FIFO would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut content = Vec::new();
    let most = u64::try_from(ETC_FILE_MAX).unwrap_or(u64::MAX);
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() > ETC_FILE_MAX {
        return Err(io::Error::other(format!("is longer than {ETC_FILE_MAX} bytes")));
    }
    Ok(content)
}

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
        None => resolver(keys, network, node, problems),
    };
    let (localtime, zone) = timezone(keys, node, problems);
    let hosts = hosts(keys, task, problems).concat().into_bytes();
    Names { resolver, hosts, localtime, zone }
}

/// The group's `dns` block.
fn own(dns: &DnsConfig, problems: &mut Vec<Problem>) -> EtcFile {
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

/// A file of the task's own; what is seen through a link of the image is read-only, as a bind is.
fn put(content: Vec<u8>, link: ImageLink) -> EtcFile {
    EtcFile::Put { content, link, read_only: link == ImageLink::Follow }
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

fn resolver(
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
        Some(Network::Join(_)) if node.loopback_resolver => {
            let text = servers(&node.config.dns_servers);
            if !text.is_empty() {
                return put(text.into_bytes(), ImageLink::Cover);
            }
            Which::Uplink
        }
        Some(Network::Join(_) | Network::Host) => Which::Host,
    };
    of_host(which, link, node, problems)
}

/// One of the host's files, that systemd-nspawn would take.
fn of_host(which: Which, link: ImageLink, node: &Node<'_>, problems: &mut Vec<Problem>) -> EtcFile {
    const OWN: &str = "/etc/resolv.conf";
    let (path, hint) = match which {
        Which::Static => ("/usr/lib/systemd/resolv.conf", "it comes with systemd-resolved"),
        Which::Stub => (STUB, "systemd-resolved does not run"),
        Which::Uplink if (node.host.read)(UPLINK).is_ok() => (UPLINK, ""),
        Which::Uplink | Which::Host => (OWN, "the host itself resolves no names"),
    };
    let remedy = "use a \"…-host\" word or a dns block of the group";
    host_file("resolv_conf", path, hint, remedy, link, node, problems)
}

fn host_file(
    key: &str,
    path: &str,
    hint: &str,
    remedy: &str,
    link: ImageLink,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> EtcFile {
    let rule = match (node.host.read)(path) {
        Ok(content) => return put(content, link),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            format!("{path} is no file on this host ({hint})")
        }
        Err(e) => format!("{path} of the host: {e}"),
    };
    problems.push(Problem::new(key, rule).remedy(remedy));
    EtcFile::Keep
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
fn hosts(keys: &TaskKeys, task: &TaskConfig, problems: &mut Vec<Problem>) -> Vec<String> {
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

/// /etc/localtime, and the zone that it is to be a link to where the image has that zone.
fn timezone(
    keys: &TaskKeys,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> (EtcFile, Option<Relative>) {
    let (link, as_link) = match keys.timezone {
        None | Some(TimezoneWord::Off) => return (EtcFile::Keep, None),
        Some(TimezoneWord::Delete) => return (EtcFile::Delete, None),
        // What is seen through the image's link would change the zone that the link names.
        Some(TimezoneWord::Copy) => (ImageLink::Replace, false),
        Some(TimezoneWord::Bind) => (ImageLink::Follow, false),
        Some(TimezoneWord::Symlink) => (ImageLink::Follow, true),
        Some(TimezoneWord::Auto) => match super::root::mode(keys) {
            Root::ReadOnly | Root::Volatile(Volatile::State) => (ImageLink::Follow, false),
            Root::Plain
            | Root::Ephemeral(_)
            | Root::Volatile(Volatile::Yes | Volatile::Overlay) => (ImageLink::Follow, true),
        },
    };
    let (hint, remedy) = ("it has no time zone", "remove it, or set the host's: timedatectl");
    let file = host_file("timezone", LOCALTIME, hint, remedy, link, node, problems);
    let target = (node.host.link)(LOCALTIME).ok();
    (file, target.filter(|_| as_link).as_deref().and_then(zone))
}

/// The zone that a link at /etc/localtime names (timezone_from_path() of systemd).
fn zone(link: &Path) -> Option<Relative> {
    let relative = Path::new("..").join(ZONES.trim_start_matches('/'));
    let name = link.strip_prefix(ZONES).or_else(|_| link.strip_prefix(relative)).ok()?;
    below(name.to_str()?).ok().filter(|zone| !zone.components().is_empty())
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

    #[test]
    fn zones_are_those_below_the_zone_directory() {
        for link in ["/usr/share/zoneinfo/Europe/Berlin", "../usr/share/zoneinfo/Europe/Berlin"] {
            let zone = zone(Path::new(link)).unwrap();
            assert_eq!(zone.to_path(), Path::new("Europe/Berlin"), "{link}");
        }
        for link in ["/etc/zone", "Europe/Berlin", "/usr/share/zoneinfos/x", "/usr/share/zoneinfo"]
        {
            assert_eq!(zone(Path::new(link)), None, "{link}");
        }
    }

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        assert_eq!(read("/dev/zero").unwrap_err().kind(), io::ErrorKind::NotFound);
        let path = std::env::temp_dir().join(format!("names-{}", std::process::id()));
        let path = path.to_str().unwrap();
        std::fs::write(path, vec![0; ETC_FILE_MAX]).unwrap();
        assert_eq!(read(path).unwrap().len(), ETC_FILE_MAX);
        std::fs::write(path, vec![0; ETC_FILE_MAX + 1]).unwrap();
        assert!(read(path).unwrap_err().to_string().contains("longer"));
        std::fs::remove_file(path).unwrap();
    }
}
