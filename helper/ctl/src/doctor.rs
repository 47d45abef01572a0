//! `doctor`: all checks in one run, for people or as JSON.

use std::path::Path;

use super::check::{Check, State};
use super::{host, product};

/// Runs all checks; `false` when something must be mended.
///
/// # Errors
/// An option that there is not.
pub(super) fn run(options: &[&str]) -> Result<bool, String> {
    let (mut json, mut unit, mut plugin) = (false, "nomad.service", default_plugin());
    let mut rest = options.iter();
    while let Some(option) = rest.next() {
        let mut value = || rest.next().copied().ok_or(format!("{option} needs a value"));
        match *option {
            "--json" => json = true,
            "--agent-unit" => unit = value()?,
            "--plugin" => plugin = value()?,
            other => return Err(format!("doctor has no option {other}")),
        }
    }
    let mut checks = host::all();
    checks.extend(product::all(unit, plugin));
    let healthy = checks.iter().all(|check| check.state != State::Bad);
    if json {
        println!("{}", to_json(&checks, healthy));
    } else {
        for check in &checks {
            println!("{check}");
        }
        let count = |state| checks.iter().filter(|check| check.state == state).count();
        let (bad, warnings) = (count(State::Bad), count(State::Warning));
        println!("\n{bad} to mend, {warnings} warnings, {} ok", count(State::Good));
    }
    Ok(healthy)
}

/// That of the package where it is installed, else of an installation by hand.
fn default_plugin() -> &'static str {
    const PACKAGED: &str = "/usr/lib/nomad/plugins/nspawn";
    if Path::new(PACKAGED).exists() { PACKAGED } else { "/opt/nomad/plugins/nspawn" }
}

fn to_json(checks: &[Check], healthy: bool) -> serde_json::Value {
    let checks: Vec<serde_json::Value> = checks
        .iter()
        .map(|check| {
            serde_json::json!({
                "check": check.name,
                "state": check.state.name().to_ascii_lowercase(),
                "found": check.found,
                "mend": check.mend,
            })
        })
        .collect();
    serde_json::json!({ "healthy": healthy, "checks": checks })
}
