//! Limits of the unit, and the signal that ends a payload.

use std::ops::RangeInclusive;

use proto::limits;
use proto::task_spec::{Payload, Resources, TaskSpec};

use super::{Denial, Policy, invalid, refuse};

/// TasksMax= of nspawn@.service, for a job that asks for none.
const TASKS_DEFAULT: u64 = 16_384;

/// Checks the ranges of PID 1 and the kernel.
pub(super) fn check(wanted: Resources) -> Result<(), Denial> {
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    let check = |name: &str, value: Option<u64>, range: &RangeInclusive<u64>| match value {
        Some(v) if !range.contains(&v) => {
            let rule = format!("{} to {}", range.start(), range.end());
            Err(invalid("resources", format!("{name} {v}"), rule))
        }
        _ => Ok(()),
    };
    check("memory limit", wanted.memory_max, &memory)?;
    check("memory reservation", wanted.memory_low, &memory)?;
    check("cpu weight", wanted.cpu_weight, &limits::CPU_WEIGHT)?;
    check("task limit", wanted.tasks_max, &limits::TASKS_LIMIT)
}

/// The limits that the unit gets, when they are below the policy's ceilings.
pub(super) fn within(wanted: Resources, policy: &Policy) -> Result<Resources, Denial> {
    if let Some(most) = policy.limits.memory.map(|size| size.0) {
        let (object, asked) = match wanted.memory_max {
            Some(memory) => (format!("memory limit {memory}"), memory),
            None => ("no memory limit".to_owned(), u64::MAX),
        };
        if asked > most {
            let reason = format!("[limits] memory = {most} in the policy file is the most");
            return Err(refuse("limits.memory", object, reason));
        }
    }
    let most = policy.limits.tasks.map_or(u64::MAX, |size| size.0);
    if let Some(tasks) = wanted.tasks_max.filter(|tasks| *tasks > most) {
        let reason = format!("[limits] tasks = {most} in the policy file is the most");
        return Err(refuse("limits.tasks", format!("task limit {tasks}"), reason));
    }
    let tasks_max = wanted.tasks_max.unwrap_or(TASKS_DEFAULT).min(most);
    Ok(Resources { tasks_max: Some(tasks_max), ..wanted })
}

/// The signal that asks the payload to end.
pub(super) fn kill_signal(spec: &TaskSpec) -> Result<u8, Denial> {
    match spec.stop_signal {
        Some(signal) => check_signal(signal),
        // systemd shuts down on SIGRTMIN+3 (systemd(1)); SIGRTMIN is 34 for the C library.
        None if matches!(spec.payload, Payload::Boot { .. }) => Ok(37),
        None => Ok(15),
    }
}

/// Checks that a number is a signal that a payload may get.
///
/// # Errors
/// Not a Linux signal number.
pub fn check_signal(signal: u8) -> Result<u8, Denial> {
    if (1..=64).contains(&signal) && !matches!(signal, 32 | 33) {
        return Ok(signal);
    }
    Err(invalid("signal", format!("signal {signal}"), "1 to 31 and 34 to 64 (signal(7))"))
}

#[cfg(test)]
mod tests {
    use crate::tests::{Change, change, check_invalid};
    use proto::limits;
    use proto::task_spec::Resources;

    fn limits_of(set: impl Fn(&mut Resources, u64) + 'static, value: u64) -> Change {
        change(move |s| set(&mut s.resources, value))
    }

    fn signal(number: u8) -> Change {
        change(move |s| s.stop_signal = Some(number))
    }

    #[test]
    fn numbers_have_ranges() {
        type Set = fn(&mut Resources, u64);
        let memory: Set = |r, n| r.memory_max = Some(n);
        let low: Set = |r, n| r.memory_low = Some(n);
        let weight: Set = |r, n| r.cpu_weight = Some(n);
        let tasks: Set = |r, n| r.tasks_max = Some(n);
        let (least, most) = (limits::MEMORY_MIN, limits::MEMORY_MAX);
        check_invalid(vec![
            ("memory limit", limits_of(memory, least - 1), limits_of(memory, least)),
            ("memory limit", limits_of(memory, most + 1), limits_of(memory, most)),
            ("memory reservation", limits_of(low, 0), limits_of(low, least)),
            ("cpu weight", limits_of(weight, 0), limits_of(weight, 1)),
            ("cpu weight", limits_of(weight, 10_001), limits_of(weight, 10_000)),
            ("task limit", limits_of(tasks, 0), limits_of(tasks, 1)),
            ("task limit", limits_of(tasks, 4_194_305), limits_of(tasks, 4_194_304)),
            ("signal 0", signal(0), signal(1)),
            ("signal 32", signal(32), signal(31)),
            ("signal 33", signal(33), signal(34)),
            ("signal 65", signal(65), signal(64)),
        ]);
    }
}
