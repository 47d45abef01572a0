//! Changes of a specification around the edges of what becomes a property of the unit.

use super::file::Settings;
use super::random::Random;
use super::texts::{self, path};
use proto::cpu_set::CpuSet;
use proto::limits;
use proto::task_spec::TaskSpec;
use proto::task_spec::resources::{AddressRange, IoLimit, Property, SliceName, Swap};

/// Limits of memory and processes.
pub(super) fn resources(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    let (min, max) = (limits::MEMORY_MIN, limits::MEMORY_MAX);
    let ceiling = policy.limits_memory.unwrap_or(min);
    let memory = [0, min - 1, min, max, max + 1, u64::MAX, ceiling, ceiling + 1, ceiling - 1];
    let tasks = policy.limits_tasks.unwrap_or(100);
    let wanted = &mut spec.resources;
    match random.below(7) {
        0 => wanted.memory_max = Some(random.pick(&memory)),
        1 => wanted.memory_low = Some(random.pick(&memory)),
        2 => wanted.cpu_weight = Some(random.pick(&[0, 1, 10_000, 10_001])),
        3 => wanted.tasks_max = Some(random.pick(&[0, 1, tasks, tasks + 1, 4_194_304, 4_194_305])),
        4 | 5 => wanted.memory_max = None,
        _ => {
            wanted.memory_max = Some(ceiling + 1);
            wanted.tasks_max = Some(tasks);
        }
    }
}

/// Limits of CPU, swap, disk, and who is killed first.
pub(super) fn numbers(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    const MOST: u64 = 64 << 40;
    let wanted = &mut spec.resources;
    match random.below(8) {
        0 | 1 => {
            let ceiling = policy.limits_swap;
            let sizes = [0, 1, ceiling, ceiling.saturating_add(1), MOST, MOST + 1, u64::MAX];
            wanted.swap = Swap::Bytes(random.pick(&sizes));
        }
        2 => wanted.swap = Swap::Unlimited,
        3 => wanted.cpu_boost = Some(random.pick(&[0, 1, 2, 100, 101, 255])),
        4 => {
            let quotas = [0, 9_999, 10_000, 8_192_000_000, 8_192_000_001, u64::MAX];
            wanted.cpu_quota_us = Some(random.pick(&quotas));
        }
        5 => wanted.cores = CpuSet::parse(random.pick(&["", "0", "0-8191"])),
        6 => wanted.io_weight = Some(random.pick(&[0, 1, 10_000, 10_001])),
        _ => {
            let least = policy.limits_oom_score;
            let scores = [least - 1, least, least + 1, -1, 0, 1000, 1001, -1001, i16::MIN];
            wanted.oom_score = random.pick(&scores);
        }
    }
}

/// Properties by name, and slices.
pub(super) fn properties(random: &mut Random, _policy: &Settings, spec: &mut TaskSpec) {
    if random.chance(30) {
        spec.resources.slice = SliceName::new(random.pick(&texts::SLICES)).ok();
        return;
    }
    let devices = ["/dev/vda", "/dev/vda", "/dev/disk/by-id/x", "/dev", "/srv/x", "/dev/a b"];
    let numbers = [0, 1, 1 << 20, 64 << 40, (64 << 40) + 1];
    let count = if random.chance(10) { 64 + random.below(2) } else { 1 + random.below(3) };
    let many = count > 3;
    spec.resources.properties = (0..count)
        .map(|number| {
            let most = if many { 1 } else { random.pick(&numbers) };
            let device =
                if many { format!("/dev/vd{number}") } else { random.pick(&devices).into() };
            match random.below(5) {
                0 if !many => Property::MemoryHigh(most),
                _ => {
                    let limit = IoLimit::ALL.get(random.below(4)).copied();
                    let limit = limit.unwrap_or(IoLimit::ReadBandwidth);
                    Property::Io { limit, device: path(&device), most }
                }
            }
        })
        .collect();
}

/// Lists of addresses.
pub(super) fn egress(random: &mut Random, policy: &Settings, spec: &mut TaskSpec) {
    if random.chance(25) {
        spec.resources.egress = None;
        return;
    }
    let listed = policy.network_egress.clone().unwrap_or_default();
    let count = if random.chance(10) { 128 + random.below(2) } else { random.below(3) };
    let range = |random: &mut Random| {
        let (address, bits) = match listed.is_empty() || random.chance(50) {
            true => {
                let (address, bits) = random.pick(&texts::RANGES);
                (address.to_owned(), bits)
            }
            false => random.pick(&listed),
        };
        // Often one bit more or less.
        let bits = match random.below(4) {
            0 => bits.saturating_sub(1),
            1 => bits.saturating_add(1),
            _ => bits,
        };
        address.parse().ok().map(|address| AddressRange { address, bits })
    };
    let all = (0..count).filter_map(|_| range(random)).collect();
    spec.resources.egress = Some(all);
}
