//! Checks of what the host's network does to tasks with a network of their own: other firewalls,
//! routes, saved rules, forwarding, resolver.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use policy::{Forwarding, Policy};

use super::POLICY;
use super::check::Check;
use super::firewall::{blocker, ruleset};
use super::own_table;
use super::routes::{self, Prefix, Route};

/// The files that nftables.service loads, on Debian and on Red Hat's systems.
const SAVED: [&str; 2] = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"];
/// Files that one includes, and those include.
const INCLUDES: usize = 256;

/// All of them.
pub(super) fn all(policy: &Policy) -> Vec<Check> {
    let routes = routes::all();
    let known = routes.as_deref().unwrap_or_default();
    let rulesets = ruleset::read();
    let mut pools = own_table::read().ok().flatten().unwrap_or_default().pools;
    if pools.is_empty() {
        pools = routes::pools(known);
    }
    let mut checks = firewalls(&rulesets, &pools, known);
    checks.push(match &routes {
        Ok(routes) => overlaps(&pools, routes, policy),
        Err(error) => Check::warning("pools of tasks", error.clone(), "run it as root"),
    });
    checks.extend([
        saved_rules(&SAVED.map(Path::new)),
        forwarding(policy),
        resolver(Path::new("/")),
    ]);
    checks
}

/// Rules of others that drop what the host forwards for tasks: a check each.
fn firewalls(rulesets: &ruleset::Rulesets, pools: &[Prefix], routes: &[Route]) -> Vec<Check> {
    let name = "forward firewall";
    let uplink = routes::uplink(routes).unwrap_or("eth0");
    let mut checks: Vec<Check> = blocker::find(rulesets, pools, uplink)
        .iter()
        .map(|blocker| Check::bad(name, blocker.to_string(), blocker.mend()))
        .collect();
    checks.extend(rulesets.unread.iter().map(|(error, package)| {
        let found = format!("rules of others cannot be read: {error}");
        Check::warning(name, found, format!("apt install {package}, and run it as root"))
    }));
    if checks.is_empty() {
        checks.push(Check::good(name, "no rule of another program drops packets of tasks"));
    }
    checks
}

/// Where the host has addresses or routes, tasks and others cannot reach each other.
fn overlaps(pools: &[Prefix], routes: &[Route], policy: &Policy) -> Check {
    let name = "pools of tasks";
    if pools.is_empty() {
        return Check::good(name, "none yet: the first task with a network of its own gets one");
    }
    let text = |(address, bits): &Prefix| format!("{address}/{bits}");
    let all = pools.iter().map(text).collect::<Vec<_>>().join(", ");
    let clash = |route: &Route| {
        let to = route.to.filter(|to| to.1 > 0 && route.is_foreign())?;
        let pool = pools.iter().find(|pool| routes::overlap(**pool, to))?;
        // The operator has named a part of it.
        let is_wider = to.1 < pool.1;
        let is_named = if pool.0.is_ipv4() {
            policy.network.pool.is_some()
        } else {
            policy.network.pool_ipv6.is_some()
        };
        (!(is_wider && is_named)).then(|| {
            let over = route.link.as_ref().map(|link| format!(" over {link}")).unwrap_or_default();
            (*pool, format!("{}{over}", text(&to)))
        })
    };
    let mut clashes: Vec<(Prefix, String)> = routes.iter().filter_map(clash).collect();
    clashes.dedup();
    let Some((pool, _)) = clashes.first() else { return Check::good(name, all) };
    let key = if pool.0.is_ipv4() { "pool" } else { "pool_ipv6" };
    let others: Vec<_> = clashes.iter().map(|(_, route)| route.as_str()).collect();
    Check::warning(
        name,
        format!(
            "{}: the host has addresses or routes there ({}), so tasks do not reach these, nor \
             they tasks",
            text(pool),
            others.join(", ")
        ),
        format!(
            "{key} = \"…\" in [network] of {POLICY}, with a network that nobody uses; \
             nomad-nspawnctl reload; drain the node: the next task gets it"
        ),
    )
}

/// A copy of the helper's table in a file that is loaded.
fn saved_rules(files: &[&Path]) -> Check {
    let name = "saved rules";
    let mut waiting: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
    let mut seen = Vec::new();
    while let Some(file) = waiting.pop().filter(|_| seen.len() < INCLUDES) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if seen.contains(&file) {
            continue;
        }
        if text.lines().any(names_own_table) {
            return Check::warning(
                name,
                format!(
                    "{} has a copy of table inet nomad_nspawn: while the helper runs, the file \
                     cannot be loaded, other tables of it neither (\"Operation not permitted\")",
                    file.display()
                ),
                format!("delete that table from {}", file.display()),
            );
        }
        waiting.extend(text.lines().flat_map(|line| included(&file, line)));
        seen.push(file);
    }
    Check::good(name, "no file of nftables.service has the helper's table")
}

fn names_own_table(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(words.as_slice(), ["table", "inet", "nomad_nspawn", ..])
        || matches!(words.as_slice(), ["add" | "create", "table", "inet", "nomad_nspawn", ..])
}

/// The files of an `include` line of nft(8): a path, whose last part may have a `*`.
fn included(from: &Path, line: &str) -> Vec<PathBuf> {
    let Some(rest) = line.trim().strip_prefix("include") else { return Vec::new() };
    let path = rest.trim().trim_matches(['"', '\'', ';']);
    // Others are looked up in a directory that was compiled into nft, /etc for all distributions.
    let base = from.parent().filter(|_| path.starts_with('.')).unwrap_or(Path::new("/etc"));
    let path = base.join(path);
    let pattern = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some((begin, end)) = pattern.split_once('*') else { return vec![path] };
    let directory = path.parent().map(fs::read_dir);
    let entries = directory.into_iter().flatten().flatten().flatten();
    let matches = |name: &str| {
        name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
    };
    let files = entries.filter(|entry| entry.file_name().to_str().is_some_and(matches));
    files.map(|entry| entry.path()).collect()
}

fn forwarding(policy: &Policy) -> Check {
    let name = "forwarding";
    let on = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.trim() != "0");
    let v4 = on("/proc/sys/net/ipv4/ip_forward");
    let v6_file = "/proc/sys/net/ipv6/conf/all/forwarding";
    let v6 = on(v6_file) || !Path::new(v6_file).exists();
    judge_forwarding(name, (v4, v6), policy.network.forwarding.0)
}

fn judge_forwarding(name: &'static str, on: (bool, bool), rule: Forwarding) -> Check {
    let off = match on {
        (true, true) => return Check::good(name, "on"),
        (true, false) => "IPv6",
        (false, true) => "IPv4",
        (false, false) => "IPv4 and IPv6",
    };
    match rule {
        Forwarding::Enable => {
            Check::good(name, format!("off for {off}; the first task that needs it switches it on"))
        }
        Forwarding::Check => Check::bad(
            name,
            format!(
                "off for {off}, and forwarding = \"check\" in [network] of {POLICY}: tasks with a \
                 network of their own are refused"
            ),
            "install example/network/90-nomad-nspawn.conf in /etc/sysctl.d, then sysctl --system",
        ),
    }
}

/// Servers for names that a task can reach: the host's loopback addresses are none.
fn resolver(root: &Path) -> Check {
    let name = "resolver";
    let read = |path: &str| fs::read_to_string(root.join(path)).ok();
    let Some(own) = read("etc/resolv.conf") else {
        return Check::good(name, "the host has no /etc/resolv.conf: images keep theirs");
    };
    let reachable = |text: &str| servers(text).into_iter().filter(|it| !it.is_loopback()).count();
    if reachable(&own) > 0 {
        return Check::good(name, "/etc/resolv.conf has servers that tasks reach");
    }
    let uplink = "run/systemd/resolve/resolv.conf";
    match read(uplink).map(|text| reachable(&text)) {
        Some(count) if count > 0 => {
            Check::good(name, "tasks get the servers that systemd-resolved uses")
        }
        _ if servers(&own).is_empty() => {
            Check::warning(name, "/etc/resolv.conf names no server", "name one there")
        }
        _ => Check::warning(
            name,
            format!(
                "/etc/resolv.conf has loopback addresses alone, and /{uplink} has no server either: \
                 tasks with a network of their own resolve no names"
            ),
            "dns_servers = [\"ADDRESS\"] in the config of plugin \"nspawn\" of the agent, or a dns \
             block in the job's group",
        ),
    }
}

fn servers(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::State;
    use policy::parse;

    /// A directory of the test's own with these files.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ctl-{name}-{}", std::process::id()));
            for (file, text) in files {
                let file = root.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_saved_copy_of_the_table_is_found_in_what_is_included() {
        let look = |name: &str, main: &str, other: &str| {
            let files = Files::new(name, &[("nftables.conf", main), ("nft.d/10-all.nft", other)]);
            let absent = files.0.join("sysconfig");
            let check = saved_rules(&[&files.0.join("nftables.conf"), &absent]);
            assert_eq!(check.mend.is_empty(), check.state == State::Good, "{check}");
            (check.state == State::Warning)
                .then(|| check.found.split(' ').next().unwrap().to_owned())
        };
        let table = "table inet nomad_nspawn { # progname nomad-nspawn-he\n\tflags owner\n";
        let ends = |file: Option<String>, end: &str| file.is_some_and(|file| file.ends_with(end));
        let plain = "flush ruleset\ntable inet filter {\n}\n";
        assert!(ends(look("copy", table, ""), "/nftables.conf"));
        assert!(ends(look("add", "add table inet nomad_nspawn\n", ""), "/nftables.conf"));
        assert!(ends(look("part", "include \"./nft.d/10-all.nft\"\n", table), "/10-all.nft"));
        assert!(ends(look("all", "include './nft.d/*.nft'\n", table), "/10-all.nft"));
        assert_eq!(look("other", "include \"./nft.d/*.rules\"\n", table), None);
        assert_eq!(look("none", plain, table), None);
        assert_eq!(look("mentioned", "# not table inet nomad_nspawn\n", ""), None);
        // Files that include each other.
        assert_eq!(look("loop", "include \"./nftables.conf\"\n", ""), None);
    }

    fn route(to: &str, link: &str) -> Route {
        let (address, bits) = to.split_once('/').unwrap();
        let to = Some((address.parse().unwrap(), bits.parse().unwrap()));
        Route::new(to, Some(link))
    }

    #[test]
    fn routes_of_the_host_within_a_pool_are_found() {
        let pools = [("10.64.0.0".parse().unwrap(), 20), ("fd64::".parse().unwrap(), 64)];
        let look = |file: &str, routes: &[Route]| overlaps(&pools, routes, &parse(file).unwrap());
        let harmless = [
            route("0.0.0.0/0", "eth0"),
            route("192.168.0.0/16", "eth0"),
            route("10.64.0.7/32", "nv-0123456789ab"),
            Route::new(None, Some("eth0")),
        ];
        let check = look("", &harmless);
        assert_eq!((check.state, check.found.as_str()), (State::Good, "10.64.0.0/20, fd64::/64"));
        let check = look("", &[harmless.as_slice(), &[route("10.64.8.0/24", "tun0")]].concat());
        assert_eq!(check.state, State::Warning);
        assert!(check.found.contains("10.64.8.0/24 over tun0"), "{check}");
        assert!(check.mend.starts_with("pool = "), "{check}");
        let check = look("", &[route("fd64::7/128", "eth0")]);
        assert!(check.mend.starts_with("pool_ipv6 = "), "{check}");
        // A part of a larger network is the operator's to give to tasks.
        let wide = [route("10.0.0.0/8", "eth0")];
        assert_eq!(look("", &wide).state, State::Warning);
        let named = "[network]\npool = \"10.64.0.0/20\"\n";
        assert_eq!(look(named, &wide).state, State::Good);
        assert_eq!(look(named, &[route("10.64.8.0/24", "tun0")]).state, State::Warning);
        assert_eq!(overlaps(&[], &wide, &parse("").unwrap()).state, State::Good);
    }

    #[test]
    fn forwarding_that_is_off_matters_where_nobody_switches_it_on() {
        let look = |on, rule| judge_forwarding("forwarding", on, rule);
        assert_eq!(look((true, true), Forwarding::Check).state, State::Good);
        assert_eq!(look((false, false), Forwarding::Enable).state, State::Good);
        let check = look((true, false), Forwarding::Check);
        assert_eq!(check.state, State::Bad);
        assert!(check.found.contains("off for IPv6,"), "{check}");
    }

    #[test]
    fn servers_that_tasks_cannot_reach_are_none() {
        let look = |name: &str, files: &[(&str, &str)]| {
            let files = Files::new(name, &[&[("etc/hostname", "host\n")], files].concat());
            resolver(&files.0)
        };
        let own = |text| ("etc/resolv.conf", text);
        let uplink = |text| ("run/systemd/resolve/resolv.conf", text);
        let stub = own("nameserver 127.0.0.53\nsearch example.org\n");
        let server = "# from the network\nnameserver 192.0.2.53\n";
        assert_eq!(look("plain", &[own(server)]).state, State::Good);
        assert_eq!(look("uplink", &[stub, uplink(server)]).state, State::Good);
        assert_eq!(look("absent", &[]).state, State::Good);
        for files in [&[stub][..], &[stub, uplink("# no servers\n")], &[own("search x\n")]] {
            let check = look("without", files);
            assert!(check.state == State::Warning && !check.mend.is_empty(), "{check}");
        }
    }
}
