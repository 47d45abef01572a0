//! Limits of the task's unit from Nomad's resources.

use nomad_proto::drivers;
use proto::limits;
use proto::task_spec::Resources;

const MIB: u64 = 1024 * 1024;

/// Hard limit: `memory_max`, none when that is -1, else `memory`; `memory` is then the share
/// that reclaim spares. `memory_limit_bytes` is not used: it is wrong for -1.
pub(crate) fn limits(resources: Option<&drivers::Resources>) -> Resources {
    let allocated = resources.and_then(|r| r.allocated_resources.as_ref());
    let memory = allocated.and_then(|a| a.memory.as_ref());
    let reserved = memory.and_then(|m| bytes(m.memory_mb));
    let (memory_max, memory_low) = match memory.map_or(0, |m| m.memory_max_mb) {
        0 => (reserved, None),
        most if most > 0 => (bytes(most), reserved),
        _ => (None, reserved),
    };
    let shares = allocated.and_then(|a| a.cpu.as_ref()).map_or(0, |cpu| cpu.cpu_shares);
    Resources { memory_max, memory_low, cpu_weight: weight(shares), tasks_max: None }
}

/// Whether the job reserves cores, which tasks do not get yet.
pub(crate) fn asks_for_cores(resources: Option<&drivers::Resources>) -> bool {
    let linux = resources.and_then(|r| r.linux_resources.as_ref());
    linux.is_some_and(|linux| !linux.cpuset_cpus.is_empty())
}

fn bytes(mib: i64) -> Option<u64> {
    let mib = u64::try_from(mib).ok().filter(|mib| *mib > 0)?;
    Some(mib.saturating_mul(MIB).clamp(limits::MEMORY_MIN, limits::MEMORY_MAX))
}

/// CPU shares on the scale of cgroup v1 as a weight of cgroup v2 (the conversion of runc and
/// systemd's documentation of the old CPUShares=).
fn weight(shares: i64) -> Option<u64> {
    let shares = u64::try_from(shares).ok().filter(|shares| *shares > 0)?;
    Some(1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142)
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::{AllocatedCpuResources, AllocatedMemoryResources, AllocatedTaskResources};

    fn of(memory_mb: i64, memory_max_mb: i64, cpu_shares: i64) -> Resources {
        limits(Some(&drivers::Resources {
            allocated_resources: Some(AllocatedTaskResources {
                cpu: Some(AllocatedCpuResources { cpu_shares }),
                memory: Some(AllocatedMemoryResources { memory_mb, memory_max_mb }),
                networks: Vec::new(),
            }),
            ..Default::default()
        }))
    }

    #[test]
    fn memory_max_decides_the_hard_limit() {
        let memory = |memory, max| {
            let resources = of(memory, max, 100);
            (resources.memory_max, resources.memory_low)
        };
        assert_eq!(memory(64, 0), (Some(64 * MIB), None));
        assert_eq!(memory(64, 256), (Some(256 * MIB), Some(64 * MIB)));
        assert_eq!(memory(64, -1), (None, Some(64 * MIB)));
        assert_eq!(memory(0, 0), (None, None));
        assert_eq!(memory(i64::MAX, 0).0, Some(limits::MEMORY_MAX));
    }

    #[test]
    fn weights_cover_the_whole_scale() {
        assert_eq!(weight(0), None);
        assert_eq!(weight(-5), None);
        assert_eq!(weight(1), Some(1));
        assert_eq!(weight(2), Some(1));
        assert_eq!(weight(1024), Some(39));
        assert_eq!(weight(262_144), Some(10_000));
        assert_eq!(weight(i64::MAX), Some(10_000));
    }

    #[test]
    fn nothing_known_means_no_limit() {
        assert_eq!(limits(None), Resources::default());
    }
}
