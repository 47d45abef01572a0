//! Limits that the payload sees from its first instruction.
//!
//! Those of the unit hold for everything in it, but a container sees only its own part of the tree:
//! there `memory.max` would be `max`, and runtimes that size themselves by it would take the host's.
//! So the same values go into the cgroup that systemd-nspawn moves the payload to, before it does:
//! it takes one that is there (create_subcgroup() of nspawn-cgroup.c). Its files stay root's: in a user
//! namespace nobody can change them.
//!
//! Trusts the plan and the kernel. Writes below the unit's own cgroup alone; the unit's limits are PID
//! 1's. Before systemd 254 the launcher is in the unit's own cgroup, and the kernel enables no
//! controller below one that holds processes: nothing is written then.

use proto::plan::Plan;
use proto::task_spec::Payload;
use proto::task_spec::resources::{Property, Swap};

use super::network::PAYLOAD;
use super::stage::OwnPath;
use super::step::{At, Problem};

/// Period of a CPU quota in microseconds, that of PID 1 (CPUQuotaPeriodSec=).
const PERIOD_US: u64 = 100_000;
const SECOND_US: u64 = 1_000_000;

/// Writes them; where the host has no controller, not its files.
pub(super) fn show(plan: &Plan) -> Result<(), Problem> {
    let own = "own cgroup";
    let (Some(here), Some(unit)) =
        (OwnPath::own_cgroup().at(own)?, OwnPath::unit_cgroup().at(own)?)
    else {
        return Ok(());
    };
    if here == unit {
        return Ok(());
    }
    let offered = unit.join("cgroup.controllers");
    let offered = String::from_utf8_lossy(&offered.read().at(&offered)?).into_owned();
    let enabled = unit.join("cgroup.subtree_control");
    let payload = unit.join(PAYLOAD);
    for (controller, files) in values(plan) {
        if !offered.split_whitespace().any(|name| name == controller) {
            continue;
        }
        // One at a time: the kernel takes all of a line or nothing.
        enabled.write(&format!("+{controller}")).at(&enabled)?;
        // There already, and frozen, where a network is connected from outside.
        payload.make_dirs(0o755)?;
        for (name, value) in files {
            let file = payload.join(name);
            // Of swap there is none where the kernel does not count it.
            if file.metadata().is_ok() {
                file.write(&value).at(&file)?;
            }
        }
    }
    Ok(())
}

/// Files of the cgroup by controller (cgroup-v2.rst).
fn values(plan: &Plan) -> [(&'static str, Vec<(&'static str, String)>); 3] {
    let wanted = &plan.resources;
    let number = |name, value: Option<u64>| value.map(|value| (name, value.to_string()));
    let swap = match wanted.swap {
        Swap::Unlimited => None,
        limit => Some(limit.bytes()),
    };
    let high = wanted.properties.iter().find_map(|property| match property {
        Property::MemoryHigh(bytes) => Some(*bytes),
        Property::Io { .. } => None,
    });
    let memory = [
        number("memory.max", wanted.memory_max),
        number("memory.low", wanted.memory_low),
        number("memory.high", high),
        number("memory.swap.max", swap),
    ];
    let quota = wanted.cpu_quota_us.map(|us| us.saturating_mul(PERIOD_US) / SECOND_US);
    let cpu = quota.map(|quota| ("cpu.max", format!("{quota} {PERIOD_US}")));
    // The stub init is systemd-nspawn's.
    let stub = u64::from(matches!(plan.payload, Payload::ProcessTwo { .. }));
    let pids = number("pids.max", wanted.tasks_max.map(|most| most.saturating_add(stub)));
    [
        ("memory", memory.into_iter().flatten().collect()),
        ("cpu", cpu.into_iter().collect()),
        ("pids", pids.into_iter().collect()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nspawn::tests::plan;
    use proto::task_spec::Resources;

    #[test]
    fn files_are_the_kernels() {
        let mut plan = plan(&[]);
        plan.resources = Resources {
            memory_max: Some(134_217_728),
            memory_low: Some(1 << 20),
            cpu_quota_us: Some(1_500_000),
            tasks_max: Some(50),
            properties: vec![Property::MemoryHigh(7)],
            ..Resources::default()
        };
        let lines = |plan: &Plan| {
            let all = values(plan).into_iter().flat_map(|(_, files)| files);
            all.map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>()
        };
        let expected = [
            "memory.max 134217728",
            "memory.low 1048576",
            "memory.high 7",
            "memory.swap.max 0",
            "cpu.max 150000 100000",
            "pids.max 50",
        ];
        assert_eq!(lines(&plan), expected);
        plan.payload = Payload::ProcessTwo { words: vec![] };
        plan.resources = Resources { tasks_max: Some(1), ..Resources::default() };
        assert_eq!(lines(&plan), ["memory.swap.max 0", "pids.max 2"]);
        plan.resources.swap = Swap::Unlimited;
        assert_eq!(lines(&plan), ["pids.max 2"]);
    }
}
