//! `policy check` and `policy explain`.

use std::path::{Path, PathBuf};

use proto::systemd;

use super::job::{self, Task};
use crate::policy::{self, Policy};

/// Says whether a policy file is valid.
///
/// # Errors
/// It cannot be read.
pub(super) fn check(file: &str) -> Result<bool, String> {
    let path = Path::new(file);
    let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
    let policy = match policy::parse(&text) {
        Ok(policy) => policy,
        Err(reason) => {
            println!("{file}: not valid: {reason}");
            return Ok(false);
        }
    };
    let preset = if is_compat(&policy) { "compat: root-equivalent" } else { "strict" };
    println!("{file}: valid (preset {preset})");
    // A draft may lie anywhere; where the daemon reads it, its owners count.
    match policy::load(path) {
        Ok(_) => Ok(true),
        Err(reason) if path == Path::new(super::POLICY) => {
            println!("{file}: the helper will not read it: {reason}");
            Ok(false)
        }
        Err(reason) => {
            println!("note: as it lies here the helper would not read it: {reason}");
            Ok(true)
        }
    }
}

/// Says of each nspawn task of a job what the policy makes of it; `false` when one is refused.
///
/// # Errors
/// Policy or job cannot be read, or the job has no task for this driver.
pub(super) fn explain(file: &str, job: &str) -> Result<bool, String> {
    let path = Path::new(file);
    let policy = if path == Path::new(super::POLICY) {
        policy::load(path)?
    } else {
        let text = std::fs::read_to_string(path).map_err(|e| format!("{file}: {e}"))?;
        policy::parse(&text).map_err(|e| format!("{file}: {e}"))?
    };
    let root = policy.alloc_dirs.first().map_or_else(|| "/".into(), |dir| dir.to_path());
    let tasks = job::read(job, &root)?;
    if tasks.is_empty() {
        return Err(format!("{job}: no task with driver = \"nspawn\""));
    }
    let mut all = true;
    for task in &tasks {
        all &= explain_one(task, &policy);
    }
    Ok(all)
}

/// Whether the file has the compat preset: nothing is out of bounds for binds then.
pub(super) fn is_compat(policy: &Policy) -> bool {
    policy.binds_never.is_empty()
}

fn explain_one(task: &Task, policy: &Policy) -> bool {
    let folders = [PathBuf::from("/opt/nomad/plugins")];
    let version = super::systemd_version().unwrap_or_default();
    let verdict = driver::explain::specification(&task.config, systemd::major(&version), &folders)
        .and_then(|spec| policy::decide(&spec, policy).map_err(|r| r.to_string()));
    let allowed = verdict.is_ok();
    let word = if allowed { "allowed" } else { "refused" };
    println!("{}: {word}", task.name);
    match verdict {
        Ok(decision) => println!("  image {}", decision.image),
        Err(reason) => println!("  {reason}"),
    }
    for note in &task.notes {
        println!("  note: {note}");
    }
    allowed
}
