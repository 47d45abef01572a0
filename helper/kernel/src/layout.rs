//! Fixed places and numbers on the host that daemon and launcher share.

use std::path::{Path, PathBuf};

use proto::unit_id::UnitId;

/// Metric of the routes that keep what is sent to free addresses of a pool on the host: behind
/// every other route. The launcher makes them, and the daemon finds by it which pool tasks have
/// had.
pub const POOL_METRIC: u32 = 4_278_198_272;
/// Directory of the upper layers, one subdirectory a task; root's, 0700.
pub const UPPERS: &str = "/var/lib/nomad-nspawn";

/// Directory of the sockets on which systemd-nspawn reports that a task is ready, and of what
/// launchers leave there for the daemon: marks and options of filters.
pub const READY: &str = "/run/nomad-nspawn";
/// Directory of system call filters that were made once (the cache); root's, 0700.
pub const FILTERS: &str = "/run/nomad-nspawn/filters";
/// The cgroup of a task's payload, below that of its unit (nspawn-cgroup.c).
pub const PAYLOAD: &str = "payload";
/// Mode of a session's cgroup while the session lasts; root's.
pub const SESSION_LASTS: u32 = 0o555;
const EXECUTED: &str = "executed-";
const OPTIONS: &str = "options-";

/// Mark that a launcher makes right before it executes systemd-nspawn: an end of the unit's main
/// process is a payload's then. No exit status could mean that, because a payload may end with any.
#[must_use]
pub fn executed_mark(unit: UnitId) -> PathBuf {
    Path::new(READY).join(format!("{EXECUTED}{unit}"))
}

/// What such a mark says: how many system call filters the payload must be under at least. That of
/// an earlier build says nothing.
#[must_use]
pub fn filters_of_mark(text: &str) -> Option<u32> {
    text.split(' ').next()?.parse().ok()
}

/// Stands in a mark for the entry of the cache, where systemd-nspawn makes its filters itself.
pub const OWN_FILTERS: &str = "-";

/// Whether the filters of a mark are those of the cache.
#[must_use]
pub fn is_cached_mark(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(_, entry)| entry != OWN_FILTERS)
}

/// Filters that systemd-nspawn installs for each payload (nspawn-seccomp.c): on x86-64 one for each
/// of three architectures, and two for audit sockets.
pub const NSPAWN_FILTERS: u32 = if cfg!(target_arch = "x86_64") { 5 } else { 1 };

/// File in which a launcher names the entry of the cache that holds the payload's filters, and
/// behind it the options that they depend on: the words with which the verb `filters` makes the
/// entry. It is there for each start, also where systemd-nspawn makes its filters itself, but on a
/// host that is under filters, where they cannot be made for others; and goes with the task.
#[must_use]
pub fn filter_options(unit: UnitId) -> PathBuf {
    Path::new(READY).join(format!("{OPTIONS}{unit}"))
}

/// Whether a name in [`READY`] is that of such a file.
#[must_use]
pub fn is_filter_options(name: &str) -> bool {
    name.strip_prefix(OPTIONS).is_some_and(|unit| UnitId::parse(unit).is_some())
}

/// The entry and the words of such a file.
#[must_use]
pub fn entry_of_options(text: &str) -> Option<(&str, Vec<String>)> {
    let (entry, words) = text.split_once(' ')?;
    Some((entry, words.split(' ').map(str::to_owned).collect()))
}

/// The unit of a file in [`READY`] that a launcher has made.
#[must_use]
pub fn unit_of_file(name: &str) -> Option<UnitId> {
    UnitId::parse(name.strip_prefix(EXECUTED).or_else(|| name.strip_prefix(OPTIONS))?)
}

/// Socket on which systemd-nspawn says that a task is ready ([`proto::task_spec::process::Ready`]).
#[must_use]
pub fn ready_socket(unit: UnitId) -> PathBuf {
    Path::new(READY).join(format!("ready-{unit}"))
}

/// Directory of the files that tasks of zones see as /etc/hosts; root's, 0755.
pub const HOSTS: &str = "/run/nomad-nspawn/hosts";
/// Line of such a file before the names of the zone's members: the launcher writes what stands
/// above it, and the daemon what follows.
pub const HOSTS_MARKER: &str = "# Tasks of the zone follow; nomad-nspawn keeps them up to date.\n";

/// The file that a task of a zone sees as /etc/hosts.
#[must_use]
pub fn hosts_file(unit: UnitId) -> PathBuf {
    Path::new(HOSTS).join(unit.to_string())
}

/// Directory of one task's upper layer.
#[must_use]
pub fn upper(unit: UnitId) -> PathBuf {
    Path::new(UPPERS).join(unit.to_string())
}

/// Where distributions keep the binary.
const BINARIES: [&str; 2] =
    ["/usr/bin/systemd-nspawn", "/run/current-system/sw/bin/systemd-nspawn"];

/// Finds the binary.
#[must_use]
pub fn nspawn_binary() -> Option<&'static Path> {
    BINARIES.iter().map(Path::new).find(|path| path.exists())
}

/// Its image locks, one file for each root directory that is in use.
pub const LOCKS: &str = "/run/systemd/nspawn/locks";
/// Where systemd-journald takes messages, and systemd's programs write them (log.c).
pub const JOURNAL: &str = "/run/systemd/journal/socket";

#[cfg(test)]
mod tests {
    use super::*;
    use proto::name::{AllocId, Instance};

    #[test]
    fn files_of_launchers_lead_back_to_their_unit() {
        let unit = UnitId { alloc: AllocId([7; 16]), instance: Instance(9) };
        for (path, has_options) in [(executed_mark(unit), false), (filter_options(unit), true)] {
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!((unit_of_file(name), is_filter_options(name)), (Some(unit), has_options));
        }
        for name in ["executed-", "options-x", "ready-1", "filters"] {
            assert_eq!((unit_of_file(name), is_filter_options(name)), (None, false), "{name}");
        }
    }

    #[test]
    fn options_are_behind_the_name_of_their_entry() {
        let words = |all: &[&str]| all.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(entry_of_options("0a 1f ~@mount"), Some(("0a", words(&["1f", "~@mount"]))));
        assert_eq!(entry_of_options(""), None);
    }
}
