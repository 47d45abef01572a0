//! `metrics`: what shows of the driver from outside, in Prometheus's text format, for a textfile
//! collector where no endpoint shall listen.
//!
//! Trusts PID 1 and the kernel. It writes the names that the plugin's endpoint writes; what only the plugin counts
//! (starts, requests) is not here.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use driver::exposition::{Kind, Page};
use kernel::layout::{PAYLOAD, SESSION_LASTS};
use launcher::CachedFilters;
use proto::exec::SessionId;
use proto::unit_id::UnitId;
use serde_json::Value;

use super::{systemd_version, tasks};

/// Where the tree of cgroups begins.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Slices within slices that are looked through: tasks are in the third, or in one of the operator's.
const DEPTH: u32 = 16;
/// Entries of a payload's cgroup that are looked at: container root can make any number.
const LOOKS: usize = 65_536;

/// Prints it.
///
/// # Errors
/// PID 1 cannot be asked, or the cache of filters cannot be read.
pub(super) fn run() -> Result<bool, String> {
    let filters = match launcher::cached_filters() {
        // Root's alone; the rest is for everybody.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Vec::new(),
        other => other.map_err(|e| format!("the cache of filters: {e}"))?,
    };
    let sessions = count_sessions(Path::new(CGROUPS), DEPTH);
    print!("{}", page(&systemd_version()?, &tasks::units()?, sessions, &filters));
    Ok(true)
}

/// Commands that run in tasks: each has a cgroup of root's below that of its task's payload, with a
/// mode that says so (helper/launcher/src/enter/leaf.rs).
fn count_sessions(slice: &Path, depth: u32) -> u64 {
    let Some(depth) = depth.checked_sub(1) else { return 0 };
    let mut count = 0;
    for entry in fs::read_dir(slice).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if name.ends_with(".slice") {
            count += count_sessions(&path, depth);
        } else if unit_of(name).is_some() {
            let sessions = fs::read_dir(path.join(PAYLOAD)).into_iter().flatten().flatten();
            let sessions = sessions.take(LOOKS).filter(is_session).count();
            count += u64::try_from(sessions).unwrap_or_default();
        }
    }
    count
}

fn is_session(entry: &fs::DirEntry) -> bool {
    let is_lasting =
        |meta: fs::Metadata| meta.uid() == 0 && meta.permissions().mode() & 0o7777 == SESSION_LASTS;
    entry.file_name().to_str().and_then(SessionId::parse_leaf).is_some()
        && entry.metadata().is_ok_and(is_lasting)
}

fn page(systemd: &str, units: &[Value], sessions: u64, filters: &[CachedFilters]) -> String {
    let mut states = [("starting", 0_usize), ("running", 0), ("ended", 0)];
    for unit in units {
        let text = |n: usize| unit.get(n).and_then(Value::as_str).unwrap_or_default();
        let Some(state) = state_of(text(0), text(3), text(4)) else { continue };
        for (name, count) in &mut states {
            *count += usize::from(*name == state);
        }
    }
    let mut page = Page::default();
    page.build_info(systemd);
    page.tasks(&states);
    page.sessions(sessions);
    let help = "Sets of system call filters in the cache: used by starts; of a systemd-nspawn with \
                which that has not been tried; of one that has been replaced.";
    page.family("seccomp_cache_sets", Kind::Gauge, help);
    for state in ["current", "untested", "stale"] {
        let number = filters.iter().filter(|set| state_of_set(set) == state).count();
        page.count(
            "seccomp_cache_sets",
            &[("state", state)],
            number.try_into().unwrap_or(u64::MAX),
        );
    }
    page.into_text()
}

fn state_of_set(set: &CachedFilters) -> &'static str {
    match (set.is_current, set.is_tested) {
        (false, _) => "stale",
        (true, false) => "untested",
        (true, true) => "current",
    }
}

fn unit_of(name: &str) -> Option<UnitId> {
    UnitId::parse(name.strip_prefix("nomad-nspawn-")?.strip_suffix(".service")?)
}

/// Of a unit's name and its two states, as PID 1 has them; `None` when it is no task's.
fn state_of(unit: &str, active: &str, sub: &str) -> Option<&'static str> {
    unit_of(unit)?;
    Some(match (active, sub) {
        ("activating" | "reloading", _) => "starting",
        // RemainAfterExit= keeps the exit status until it is read.
        ("active", "exited") | ("failed" | "inactive", _) => "ended",
        _ => "running",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tasks_are_counted_by_state_and_other_units_are_not() {
        let unit =
            |run: u32| format!("nomad-nspawn-0e8b1c2d111122223333444455556666-{run:08x}.service");
        let row = |name: String, active, sub| json!([name, "", "loaded", active, sub]);
        let units = [
            row(unit(1), "active", "running"),
            row(unit(2), "active", "exited"),
            row(unit(3), "failed", "failed"),
            row(unit(4), "activating", "start"),
            row(unit(5), "deactivating", "stop-sigterm"),
            row("nomad-nspawn-helper.service".to_owned(), "active", "running"),
        ];
        let set = |is_current, is_tested| CachedFilters {
            name: String::new(),
            options: Vec::new(),
            count: 5,
            is_current,
            version: 257,
            is_tested,
        };
        let sets = [set(true, true), set(true, true), set(false, true), set(true, false)];
        let text = page("257 (257.1-1)", &units, 3, &sets);
        for line in [
            "nomad_nspawn_tasks{state=\"starting\"} 1",
            "nomad_nspawn_tasks{state=\"running\"} 2",
            "nomad_nspawn_tasks{state=\"ended\"} 2",
            "nomad_nspawn_exec_sessions 3",
            "nomad_nspawn_seccomp_cache_sets{state=\"current\"} 2",
            "nomad_nspawn_seccomp_cache_sets{state=\"untested\"} 1",
            "nomad_nspawn_seccomp_cache_sets{state=\"stale\"} 1",
            "# TYPE nomad_nspawn_build_info gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_session_is_a_cgroup_of_roots_that_says_so() {
        assert!(nix::unistd::geteuid().is_root(), "it makes directories of root's: run it as root");
        let top = std::env::temp_dir().join(format!("nspawn-sessions-{}", std::process::id()));
        let unit = "nomad-nspawn-0e8b1c2d111122223333444455556666-00000001.service";
        let payload = top.join("machine.slice/machine-nspawn.slice").join(unit).join(PAYLOAD);
        let make = |name: &str, mode, uid| {
            let path = payload.join(name);
            fs::create_dir_all(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(uid), None).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(count_sessions(&top, DEPTH), 0);
        make("nomad-exec-0000000000c0ffee.scope", SESSION_LASTS, 0);
        // Ended, with processes left behind; the payload's own; no session's name.
        make("nomad-exec-0000000000c0ffef.scope", 0o755, 0);
        make("nomad-exec-0000000000c0fff0.scope", SESSION_LASTS, 524_288);
        make("init.scope", SESSION_LASTS, 0);
        assert_eq!(count_sessions(&top, DEPTH), 1);
        fs::remove_dir_all(&top).unwrap();
    }
}
