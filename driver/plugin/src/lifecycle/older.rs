//! Containers that the older Go driver has left running: never taken over, never ended by this driver, and
//! never given a second run beside them.
//!
//! That driver's executor has its own protocol and holds the exit status. Ending it takes root
//! and is the operator's: `nomad-nspawnctl retire`. Trusts machined's account of its machines.

use std::path::Path;

use nomad_proto::drivers::TaskHandle;
use proto::name::TaskKey;

use super::Driver;
use crate::error::Failure;

/// A link for each unit that is a machine, by which sd_pid_get_machine_name(3) finds its name.
const MACHINES: &str = "/run/systemd/machines";

/// The machine name that the older driver gave.
fn machine_name(key: &TaskKey) -> String {
    format!("{}-{}", key.task, key.alloc)
}

/// Whether such a machine runs in its own scope, as systemd-nspawn makes one unless asked to keep its
/// unit; this driver's machines are in services.
fn is_running(key: &TaskKey, machines: &Path) -> bool {
    let escaped = machine_name(key).replace('-', "\\x2d");
    machines.join(format!("unit:machine-{escaped}.scope")).symlink_metadata().is_ok()
}

/// What the operator has to do.
fn remedy(key: &TaskKey) -> String {
    format!("end it on this node with: nomad-nspawnctl retire {}", machine_name(key))
}

impl Driver {
    /// Why a task of the older driver is not taken over.
    pub(super) fn refuse_older(&self, handle: &TaskHandle) -> Failure {
        let config = handle.config.clone().unwrap_or_default();
        let key = match config.id.parse::<TaskKey>() {
            Ok(key) => key,
            Err(e) => return Failure::permanent(format!("task {}: {e}", config.id)),
        };
        let what = if is_running(&key, Path::new(MACHINES)) {
            format!(
                "it still runs and cannot be taken over; {}; until then this driver does not start \
                 the task again",
                remedy(&key)
            )
        } else {
            // Perhaps it was at its end anyway: Nomad hands over dead tasks too.
            "it does not run any more".to_owned()
        };
        let text = format!("Task {key} was started by the older nspawn driver: {what}");
        tracing::warn!(task = %key, "{text}");
        self.events.send(&config, &text);
        Failure::permanent(text)
    }
}

/// Two runs of one task would write to the same volumes.
///
/// # Errors
/// The older driver's container of this task still runs.
pub(super) fn refuse_beside_older(key: &TaskKey) -> Result<(), Failure> {
    if !is_running(key, Path::new(MACHINES)) {
        return Ok(());
    }
    Err(Failure::recoverable(format!(
        "the older nspawn driver's container of this task still runs; {}",
        remedy(key)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_the_older_drivers_when_it_is_in_a_scope_of_its_own() {
        let dir = std::env::temp_dir().join(format!("nspawn-older-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key: TaskKey = "1e8b1c2d-1111-2222-3333-444455556601/web/00000007".parse().unwrap();
        assert!(!is_running(&key, &dir));
        let link = |unit: &str| {
            std::os::unix::fs::symlink("web", dir.join(format!("unit:{unit}"))).unwrap();
        };
        link("nomad-nspawn-1e8b1c2d111122223333444455556601-00000007.service");
        assert!(!is_running(&key, &dir));
        link("machine-web\\x2d1e8b1c2d\\x2d1111\\x2d2222\\x2d3333\\x2d444455556601.scope");
        assert!(is_running(&key, &dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
