//! Limits of the unit, further properties of it, and the signal that ends a payload.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use proto::limits;
use proto::task_spec::resources::{AddressRange, Property, Swap};
use proto::task_spec::{Payload, Resources, TaskSpec};

use super::addresses::Prefix;
use super::glob::matches;
use super::{Denial, Policy, devices, invalid, refuse, unlisted};

/// TasksMax= of nspawn@.service, for a job that asks for none.
const TASKS_DEFAULT: u64 = 16_384;

/// Checks the ranges of PID 1 and the kernel.
pub(super) fn check(wanted: &Resources) -> Result<(), Denial> {
    let memory = limits::MEMORY_MIN..=limits::MEMORY_MAX;
    let swap = match wanted.swap {
        Swap::Bytes(bytes) => Some(bytes),
        Swap::None | Swap::Unlimited => None,
    };
    in_range("memory limit", wanted.memory_max, &memory)?;
    in_range("memory reservation", wanted.memory_low, &memory)?;
    in_range("swap", swap, &(0..=limits::MEMORY_MAX))?;
    in_range("cpu weight", wanted.cpu_weight, &limits::CPU_WEIGHT)?;
    in_range("cpu boost", wanted.cpu_boost.map(u64::from), &limits::CPU_BOOST)?;
    in_range("cpu quota", wanted.cpu_quota_us, &limits::CPU_QUOTA_US)?;
    in_range("task limit", wanted.tasks_max, &limits::TASKS_LIMIT)?;
    in_range("io weight", wanted.io_weight, &limits::IO_WEIGHT)?;
    in_range("oom_score_adj", Some(wanted.oom_score), &limits::OOM_SCORE)?;
    if wanted.cores.as_ref().is_some_and(proto::cpu_set::CpuSet::is_empty) {
        return Err(invalid("resources", "cores", "a set of at least one CPU"));
    }
    wanted.properties.iter().try_for_each(check_property)?;
    wanted.egress.iter().flatten().try_for_each(check_range)
}

fn in_range<T: PartialOrd + Copy + Display>(
    name: &str,
    value: Option<T>,
    range: &RangeInclusive<T>,
) -> Result<(), Denial> {
    match value {
        Some(value) if !range.contains(&value) => {
            let rule = format!("{} to {}", range.start(), range.end());
            Err(invalid("resources", format!("{name} {value}"), rule))
        }
        _ => Ok(()),
    }
}

fn check_property(property: &Property) -> Result<(), Denial> {
    let most = match property {
        Property::MemoryHigh(bytes) => *bytes,
        Property::Io { device, most, .. } => {
            let path = device.to_string();
            // PID 1 looks it up on the host, and writes it into the unit's file.
            devices::check_name(&path)?;
            if !path.starts_with("/dev/") {
                let object = format!("{} of {path}", property.name());
                return Err(invalid("property-device", object, "a node below /dev"));
            }
            *most
        }
    };
    in_range(property.name(), Some(most), &(1..=limits::MEMORY_MAX))
}

fn check_range(range: &AddressRange) -> Result<(), Denial> {
    let longest = if range.address.is_ipv4() { 32 } else { 128 };
    if range.bits <= longest && prefix(range).is_aligned() {
        return Ok(());
    }
    let rule = "the first address of a range, and as many bits as all of it share";
    Err(invalid("egress", format!("egress to {range}"), rule))
}

fn prefix(range: &AddressRange) -> Prefix<IpAddr> {
    Prefix { address: range.address, bits: range.bits }
}

/// What the unit gets, when the policy allows all of it.
pub(super) fn within(wanted: &Resources, policy: &Policy) -> Result<Resources, Denial> {
    let limits = &policy.limits;
    if let Some(most) = limits.memory.map(|size| size.0) {
        let (object, asked) = match wanted.memory_max {
            Some(memory) => (format!("memory limit {memory}"), memory),
            None => ("no memory limit".to_owned(), u64::MAX),
        };
        at_most("limits.memory", object, asked, most)?;
    }
    let most = limits.tasks.map_or(u64::MAX, |size| size.0);
    if let Some(tasks) = wanted.tasks_max {
        at_most("limits.tasks", format!("task limit {tasks}"), tasks, most)?;
    }
    let swap = wanted.swap.bytes();
    let shown = if swap == u64::MAX { "unlimited".to_owned() } else { swap.to_string() };
    at_most("limits.swap", format!("swap {shown}"), swap, limits.swap.0)?;
    let (score, least) = (wanted.oom_score, limits.oom_score_adj.0);
    // A score above 0 makes the task the kernel's first choice: nobody else loses by it.
    if score < least.min(0) {
        let reason = format!("[limits] oom_score_adj = {least} in the policy file is the lowest");
        return Err(refuse("limits.oom_score_adj", format!("oom_score_adj {score}"), reason));
    }
    grants(wanted, policy)?;
    let tasks_max = wanted.tasks_max.unwrap_or(TASKS_DEFAULT).min(most);
    Ok(Resources { tasks_max: Some(tasks_max), ..wanted.clone() })
}

fn at_most(rule: &'static str, object: String, asked: u64, most: u64) -> Result<(), Denial> {
    if asked <= most {
        return Ok(());
    }
    let key = rule.trim_start_matches("limits.");
    let reason = format!("[limits] {key} = {most} in the policy file is the most");
    Err(refuse(rule, object, reason))
}

/// Properties, slice and addresses, which lists of the policy file name.
fn grants(wanted: &Resources, policy: &Policy) -> Result<(), Denial> {
    let names = &policy.properties.allow;
    if let Some(it) = wanted.properties.iter().find(|it| !names.iter().any(|n| n.0 == it.name())) {
        return Err(unlisted("properties.allow", format!("property {}", it.name()), it.name()));
    }
    if let Some(slice) = &wanted.slice
        && !policy.systemd.slices.iter().any(|pattern| matches(pattern, slice.as_str(), None))
    {
        return Err(unlisted("systemd.slices", format!("slice {slice}"), slice));
    }
    let Some(allowed) = &policy.network.egress else { return Ok(()) };
    let Some(asked) = &wanted.egress else {
        let reason = "[network] egress in the policy file requires that each task lists the \
                      addresses that it reaches";
        return Err(refuse("network.egress", "no egress list", reason));
    };
    let is_covered =
        |range: &&AddressRange| allowed.iter().any(|entry| entry.holds(&prefix(range)));
    match asked.iter().find(|range| !is_covered(range)) {
        Some(range) => Err(unlisted("network.egress", format!("egress to {range}"), range)),
        None => Ok(()),
    }
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
    use super::*;
    use crate::tests::{COMPAT, Change, absolute, change, check, check_invalid, row};
    use proto::cpu_set::CpuSet;
    use proto::task_spec::resources::{IoLimit, SliceName};

    fn limits_of(set: impl Fn(&mut Resources, u64) + 'static, value: u64) -> Change {
        change(move |s| set(&mut s.resources, value))
    }

    fn signal(number: u8) -> Change {
        change(move |s| s.stop_signal = Some(number))
    }

    fn score(score: i16) -> Change {
        change(move |s| s.resources.oom_score = score)
    }

    fn cores(list: &'static str) -> Change {
        change(move |s| s.resources.cores = CpuSet::parse(list))
    }

    fn io_limit(device: &'static str) -> Change {
        let (limit, most) = (IoLimit::WriteOperations, 1);
        let device = absolute(device);
        change(move |s| {
            s.resources.properties = vec![Property::Io { limit, device: device.clone(), most }];
        })
    }

    fn egress(ranges: &[&str]) -> Change {
        let range = |text: &&str| {
            let (address, bits) = text.split_once('/').unwrap();
            AddressRange { address: address.parse().unwrap(), bits: bits.parse().unwrap() }
        };
        let ranges: Vec<_> = ranges.iter().map(range).collect();
        change(move |s| s.resources.egress = Some(ranges.clone()))
    }

    fn slice(name: &'static str) -> Change {
        change(move |s| s.resources.slice = Some(SliceName::new(name).unwrap()))
    }

    fn swap(swap: Swap) -> Change {
        change(move |s| s.resources.swap = swap)
    }

    #[test]
    fn what_others_would_pay_for_is_bounded() {
        const SWAP: &str = "[limits]\nswap = \"64m\"";
        const SCORE: &str = "[limits]\noom_score_adj = -100";
        let most = Swap::Bytes(64 << 20);
        check(vec![
            row("limits.swap", "swap unlimited", (SWAP, swap(Swap::Unlimited)), (SWAP, swap(most))),
            row("limits.swap", "swap = 0 in", ("", swap(Swap::Bytes(1))), ("", swap(Swap::None))),
            row(
                "limits.swap",
                "swap 67108865",
                (SWAP, swap(Swap::Bytes((64 << 20) + 1))),
                (COMPAT, swap(Swap::Unlimited)),
            ),
            row("limits.oom_score_adj", "= 0 in", ("", score(-1)), ("", score(1000))),
            row("limits.oom_score_adj", "= -100 in", (SCORE, score(-101)), (SCORE, score(-100))),
            row(
                "limits.oom_score_adj",
                "oom_score_adj -1",
                (COMPAT, score(-1)),
                ("[limits]\noom_score_adj = 500", score(0)),
            ),
        ]);
    }

    #[test]
    fn properties_slices_and_addresses_are_listed() {
        const HIGH: &str = "[properties]\nallow = [\"MemoryHigh\"]";
        const SLICES: &str = "[systemd]\nslices = [\"machine-nspawn-*.slice\"]";
        const EGRESS: &str = "[network]\negress = [\"10.0.0.0/8\", \"fd00::/8\"]";
        check(vec![
            row(
                "properties.allow",
                "\"IOWriteIOPSMax\" added to [properties] allow",
                (HIGH, io_limit("/dev/vda")),
                ("", io_limit("/dev/vda")),
            ),
            row(
                "systemd.slices",
                "\"batch.slice\" added to [systemd] slices",
                (SLICES, slice("batch.slice")),
                (SLICES, slice("machine-nspawn-batch.slice")),
            ),
            row(
                "systemd.slices",
                "system.slice",
                (COMPAT, slice("system.slice")),
                (COMPAT, change(|s| s.resources.slice = None)),
            ),
            row(
                "network.egress",
                "requires that each task lists",
                (EGRESS, change(|_| ())),
                (EGRESS, egress(&[])),
            ),
            row(
                "network.egress",
                "\"0.0.0.0/0\" added to [network] egress",
                (EGRESS, egress(&["10.1.0.0/16", "0.0.0.0/0"])),
                (EGRESS, egress(&["10.1.0.0/16", "fd00::1/128", "10.0.0.0/8"])),
            ),
            row(
                "network.egress",
                "egress to 10.0.0.0/7",
                (EGRESS, egress(&["10.0.0.0/7"])),
                ("", egress(&["0.0.0.0/0"])),
            ),
        ]);
    }

    #[test]
    fn numbers_have_ranges() {
        type Set = fn(&mut Resources, u64);
        let memory: Set = |r, n| r.memory_max = Some(n);
        let low: Set = |r, n| r.memory_low = Some(n);
        let weight: Set = |r, n| r.cpu_weight = Some(n);
        let tasks: Set = |r, n| r.tasks_max = Some(n);
        let swap: Set = |r, n| r.swap = Swap::Bytes(n);
        let boost: Set = |r, n| r.cpu_boost = Some(u8::try_from(n).unwrap());
        let quota: Set = |r, n| r.cpu_quota_us = Some(n);
        let io: Set = |r, n| r.io_weight = Some(n);
        let high: Set = |r, n| r.properties = vec![Property::MemoryHigh(n)];
        let (least, most) = (limits::MEMORY_MIN, limits::MEMORY_MAX);
        check_invalid(vec![
            ("memory limit", limits_of(memory, least - 1), limits_of(memory, least)),
            ("memory limit", limits_of(memory, most + 1), limits_of(memory, most)),
            ("memory reservation", limits_of(low, 0), limits_of(low, least)),
            ("cpu weight", limits_of(weight, 0), limits_of(weight, 1)),
            ("cpu weight", limits_of(weight, 10_001), limits_of(weight, 10_000)),
            ("swap", limits_of(swap, most + 1), limits_of(swap, 0)),
            ("cpu boost 1", limits_of(boost, 1), limits_of(boost, 2)),
            ("cpu boost 101", limits_of(boost, 101), limits_of(boost, 100)),
            ("cpu quota", limits_of(quota, 9_999), limits_of(quota, 10_000)),
            ("cpu quota", limits_of(quota, 8_192_000_001), limits_of(quota, 8_192_000_000)),
            ("io weight", limits_of(io, 0), limits_of(io, 1)),
            ("io weight", limits_of(io, 10_001), limits_of(io, 10_000)),
            ("MemoryHigh 0", limits_of(high, 0), limits_of(high, 1)),
            ("oom_score_adj", score(-1001), score(1000)),
            ("oom_score_adj", score(1001), score(0)),
            ("cores", cores(""), cores("3")),
            ("a node below /dev", io_limit("/srv/x"), io_limit("/dev/vda")),
            ("DeviceAllow=", io_limit("/dev/a b"), io_limit("/dev/disk/by-id/x")),
            ("egress to 10.0.0.1/8", egress(&["10.0.0.1/8"]), egress(&["10.0.0.0/8"])),
            ("egress to 10.0.0.0/33", egress(&["10.0.0.0/33"]), egress(&["10.0.0.0/32"])),
            ("egress to fd00::1/8", egress(&["10.0.0.0/8", "fd00::1/8"]), egress(&["fd00::/8"])),
            ("task limit", limits_of(tasks, 0), limits_of(tasks, 1)),
            ("task limit", limits_of(tasks, 4_194_305), limits_of(tasks, 4_194_304)),
            ("signal 0", signal(0), signal(1)),
            ("signal 32", signal(32), signal(31)),
            ("signal 33", signal(33), signal(34)),
            ("signal 65", signal(65), signal(64)),
        ]);
    }
}
