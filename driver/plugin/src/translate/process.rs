//! The payload: start mode, command, user, directory, host name, console, readiness, signal.

use std::time::Duration;

use proto::limits;
use proto::secret::Secret;
use proto::task_spec::process::{Console, HostName, Ready, User};
use proto::task_spec::{Payload, Process};

use super::paths::absolute;
use super::signal;
use crate::config::Problem;
use crate::config::task::TaskKeys;
use crate::config::words::{ConsoleWord, ReadyMode, VolatileWord};

/// What runs, and how.
pub(crate) fn payload(keys: &TaskKeys) -> Payload {
    let mut words: Vec<_> = keys.command.iter().map(|word| Secret::new(word.as_str())).collect();
    if !keys.boots() {
        return match keys.process_two {
            true => Payload::ProcessTwo { words },
            false => Payload::Command { words },
        };
    }
    // An empty /etc is a first boot, at which systemd-firstboot(1) would wait for a key.
    const FIRST_BOOT: &str = "systemd.firstboot=";
    let asked = keys.command.iter().any(|word| word.starts_with(FIRST_BOOT));
    if keys.volatile() == Some(VolatileWord::Yes) && !asked {
        words.push(Secret::new(format!("{FIRST_BOOT}no")));
    }
    Payload::Boot { arguments: words }
}

/// As whom and where. `user` is the task's own, which Nomad also takes for the owner of its files;
/// so a booted task may have one.
pub(crate) fn process(keys: &TaskKeys, user: &str, problems: &mut Vec<Problem>) -> Process {
    let user = match (&keys.user, keys.boots()) {
        // Refused by the rules where it has a user key.
        (_, true) => None,
        (Some(user), false) => Some(user.as_str()),
        (None, false) => Some(user).filter(|user| !user.is_empty()),
    };
    let mut invalid = |key: &str, value: &str, rule: String, remedy: &str| {
        problems.push(Problem::new(key, rule).value(value).remedy(remedy));
    };
    let user = user.and_then(|user| {
        let remedy = "user or user:group, each a name of the image or a number, e.g. www-data";
        User::parse(user).map_err(|e| invalid("user", user, e.to_string(), remedy)).ok()
    });
    let hostname = keys.hostname.as_deref().and_then(|name| {
        HostName::new(name).map_err(|e| invalid("hostname", name, e.to_string(), "e.g. web-1")).ok()
    });
    let directory = keys
        .working_directory
        .as_deref()
        .and_then(|it| absolute("working_directory", it, problems));
    Process { user, directory, hostname, console: console(keys), ready: ready(keys) }
}

fn console(keys: &TaskKeys) -> Console {
    match keys.console {
        None => Console::Automatic,
        Some(ConsoleWord::Interactive) => Console::Interactive,
        Some(ConsoleWord::ReadOnly) => Console::ReadOnly,
        Some(ConsoleWord::Passive) => Console::Passive,
        // systemd-nspawn takes a terminal only when it has one itself, which it never has here.
        Some(ConsoleWord::Pipe | ConsoleWord::Autopipe) => Console::Pipe,
    }
}

fn ready(keys: &TaskKeys) -> Ready {
    let Some(ready) = &keys.ready.0 else { return Ready::Started };
    let seconds = ready.timeout.0.as_millis().div_ceil(1000);
    let timeout_s = u32::try_from(seconds).unwrap_or(u32::MAX);
    match ready.mode {
        // The driver itself executes the command, once the payload is.
        ReadyMode::Started | ReadyMode::Exec => Ready::Started,
        ReadyMode::Notify => Ready::Notify { timeout_s },
        ReadyMode::Network => Ready::Network { timeout_s },
    }
}

/// A command whose success means that the task is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Probe {
    /// What is executed.
    pub(crate) command: Vec<String>,
    /// Time between two tries.
    pub(crate) interval: Duration,
    /// Time for all of them.
    pub(crate) timeout: Duration,
}

/// The command of a job that has one.
pub(crate) fn probe(keys: &TaskKeys) -> Option<Probe> {
    let ready = keys.ready.0.as_ref().filter(|ready| ready.mode == ReadyMode::Exec)?;
    Some(Probe {
        command: ready.command.clone(),
        interval: ready.interval.0,
        timeout: ready.timeout.0,
    })
}

/// Milliseconds between the stop signal and the kill when the host shuts down. Nomad passes the
/// job's kill_timeout to the driver only when it stops a task.
pub(crate) fn shutdown_timeout_ms(keys: &TaskKeys, problems: &mut Vec<Problem>) -> u64 {
    let given = keys.shutdown_timeout.0;
    let range = limits::KILL_TIMEOUT_MIN_MS..=limits::KILL_TIMEOUT_MAX_MS;
    let within = u64::try_from(given.as_millis()).ok().filter(|given| range.contains(given));
    within.unwrap_or_else(|| {
        problems.push(
            Problem::new("shutdown_timeout", "must be 5s to 90s")
                .value(given)
                .remedy("e.g. \"30s\""),
        );
        limits::KILL_TIMEOUT_MIN_MS
    })
}

/// The signal that asks the payload to end; `None`: the start mode's own.
pub(crate) fn stop_signal(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Option<u8> {
    let name = keys.stop_signal.as_deref()?;
    let number = signal::parse(name);
    if number.is_none() {
        problems.push(
            Problem::new("stop_signal", "is not a signal")
                .value(name)
                .remedy("write a name like SIGTERM or SIGRTMIN+3"),
        );
    }
    number
}
