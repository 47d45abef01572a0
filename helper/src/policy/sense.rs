//! Numbers out of range, and wishes that exclude each other.

use proto::limits::READY_TIMEOUT_MAX_S;
use proto::spec::process::Ready;
use proto::spec::{ImageKind, Logs, Ownership, Payload, Root, TaskSpec};

use super::{Denial, devices, invalid};

pub(super) fn check(spec: &TaskSpec) -> Result<(), Denial> {
    check_root(spec)?;
    check_process(spec)?;
    spec.files.devices.iter().try_for_each(devices::check)?;
    for limit in &spec.isolation.limits {
        // No limit is the highest.
        if limit.soft.unwrap_or(u64::MAX) > limit.hard.unwrap_or(u64::MAX) {
            let object = format!("process limit {}", limit.resource.name());
            return Err(invalid("limit", object, "the soft limit is above the hard limit"));
        }
    }
    for tmpfs in &spec.files.tmpfs {
        if let Some(mode) = tmpfs.mode.filter(|mode| *mode > 0o7777) {
            let object = format!("mode {mode:o} of the tmpfs at {}", tmpfs.target);
            return Err(invalid("mode", object, "at most 7777"));
        }
    }
    Ok(())
}

fn check_root(spec: &TaskSpec) -> Result<(), Denial> {
    let object = "private_users_ownership";
    let bad = |reason| Err(invalid("ownership", object, reason));
    match spec.root.ownership {
        Ownership::Map => Ok(()),
        _ if !spec.users.isolates() => bad("has no meaning without a user namespace"),
        Ownership::Off => Ok(()),
        Ownership::Chown if spec.root.mode != Root::Plain => {
            bad("chown changes the image: not with ephemeral, read_only or volatile")
        }
        Ownership::Chown if spec.root.kind != ImageKind::Tree => {
            bad("chown needs an image that is a folder")
        }
        Ownership::Chown => Ok(()),
    }
}

fn check_process(spec: &TaskSpec) -> Result<(), Denial> {
    let boots = matches!(spec.payload, Payload::Boot { .. });
    if spec.process.user.is_some() && boots {
        return Err(invalid("user", "user", "a booted image decides on users itself"));
    }
    if let Ready::Notify { timeout_s } = spec.process.ready {
        if matches!(spec.payload, Payload::ProcessTwo { .. }) {
            let reason = "the stub init of process_two does not pass READY=1 on";
            return Err(invalid("ready", "ready = notify", reason));
        }
        if !(1..=READY_TIMEOUT_MAX_S).contains(&timeout_s) {
            return Err(invalid("ready", format!("ready timeout {timeout_s} s"), "1 to 3,600 s"));
        }
    }
    if let Logs::Container { priority } = spec.logs {
        if !boots {
            return Err(invalid("logs", "journal = true", "only a booted image has a journal"));
        }
        if priority > 7 {
            return Err(invalid("logs", format!("priority {priority}"), "0 to 7 (syslog(3))"));
        }
    }
    Ok(())
}
