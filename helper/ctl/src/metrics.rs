//! `metrics`: what shows of the driver from outside, in Prometheus's text format, for a textfile
//! collector where no endpoint shall listen.
//!
//! Trusts PID 1. It writes the names that the plugin's endpoint writes; what only the plugin counts
//! (starts, requests) is not here.

use driver::exposition::Page;
use proto::unit_id::UnitId;
use serde_json::Value;

use super::{systemd_version, tasks};

/// Prints it.
///
/// # Errors
/// PID 1 cannot be asked.
pub(super) fn run() -> Result<bool, String> {
    print!("{}", page(&systemd_version()?, &tasks::units()?));
    Ok(true)
}

fn page(systemd: &str, units: &[Value]) -> String {
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
    page.into_text()
}

/// Of a unit's name and its two states, as PID 1 has them; `None` when it is no task's.
fn state_of(unit: &str, active: &str, sub: &str) -> Option<&'static str> {
    let id = unit.strip_prefix("nomad-nspawn-")?.strip_suffix(".service")?;
    UnitId::parse(id)?;
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
        let text = page("257 (257.1-1)", &units);
        for line in [
            "nomad_nspawn_tasks{state=\"starting\"} 1",
            "nomad_nspawn_tasks{state=\"running\"} 2",
            "nomad_nspawn_tasks{state=\"ended\"} 2",
            "# TYPE nomad_nspawn_build_info gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
