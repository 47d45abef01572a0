//! Limits of the task's unit, from Nomad's resources and from keys of the job.

use std::net::IpAddr;
use std::time::Duration;

use nomad_proto::drivers;
use proto::cpu_set::CpuSet;
use proto::limits;
use proto::path::Absolute;
use proto::task_spec::Resources;
use proto::task_spec::resources::{
    AddressRange, IoLimit, MEMORY_HIGH, OomScope, Property, SliceName, Swap,
};

use crate::config::Problem;
use crate::config::task::TaskKeys;
use crate::config::value::Size;
use crate::config::words::OomWord;

const MIB: u64 = 1024 * 1024;
/// Nomad's MHz for each unit of CPUWeight=: up to 100 GHz the weight is proportional.
const MHZ_PER_WEIGHT: u64 = 10;

/// All of them. `cores`: of the node.
pub(crate) fn resources(
    given: Option<&drivers::Resources>,
    keys: &TaskKeys,
    cores: f64,
    problems: &mut Vec<Problem>,
) -> Resources {
    let linux = given.and_then(|given| given.linux_resources.as_ref());
    let share = linux.map_or(0.0, |linux| linux.percent_ticks);
    Resources {
        swap: swap(keys, problems),
        // Beyond its range it has been refused.
        cpu_boost: keys.cpu_boost.and_then(|boost| boost.try_into().ok()),
        cpu_quota_us: keys.cpu_hard_limit.then(|| quota(share, cores)).flatten(),
        cores: linux.and_then(|linux| reserved(&linux.cpuset_cpus, problems)),
        tasks_max: keys.pids_limit.and_then(|limit| limit.try_into().ok()),
        io_weight: keys.io_weight.and_then(|weight| weight.try_into().ok()),
        oom_score: keys.oom_score_adj.try_into().unwrap_or_default(),
        oom: match keys.oom {
            OomWord::Process => OomScope::Process,
            OomWord::Task => OomScope::Task,
        },
        slice: slice(keys, problems),
        properties: properties(keys, problems),
        egress: egress(keys, problems),
        ..allocated(given)
    }
}

/// Hard limit: `memory_max`, none when that is -1, else `memory`; `memory` is then the share
/// that reclaim spares. `memory_limit_bytes` is not used: it is wrong for -1.
fn allocated(given: Option<&drivers::Resources>) -> Resources {
    let allocated = given.and_then(|r| r.allocated_resources.as_ref());
    let memory = allocated.and_then(|a| a.memory.as_ref());
    let reserved = memory.and_then(|m| bytes(m.memory_mb));
    let (memory_max, memory_low) = match memory.map_or(0, |m| m.memory_max_mb) {
        0 => (reserved, None),
        most if most > 0 => (bytes(most), reserved),
        _ => (None, reserved),
    };
    let mhz = allocated.and_then(|a| a.cpu.as_ref()).map_or(0, |cpu| cpu.cpu_shares);
    Resources { memory_max, memory_low, cpu_weight: weight(mhz), ..Resources::default() }
}

fn bytes(mib: i64) -> Option<u64> {
    let mib = u64::try_from(mib).ok().filter(|mib| *mib > 0)?;
    Some(mib.saturating_mul(MIB).clamp(limits::MEMORY_MIN, limits::MEMORY_MAX))
}

/// Nomad's MHz as a weight of cgroup v2: twice as many, twice the CPU time when it is short.
fn weight(mhz: i64) -> Option<u64> {
    let mhz = u64::try_from(mhz).ok().filter(|mhz| *mhz > 0)?;
    Some((mhz / MHZ_PER_WEIGHT).clamp(*limits::CPU_WEIGHT.start(), *limits::CPU_WEIGHT.end()))
}

/// CPU time a second in microseconds, of a share of the node; at least 1 % of a core, which is the
/// least that the kernel takes.
fn quota(share: f64, cores: f64) -> Option<u64> {
    let time = Duration::try_from_secs_f64(share * cores).ok().filter(|time| !time.is_zero())?;
    let (least, most) = limits::CPU_QUOTA_US.into_inner();
    Some(u64::try_from(time.as_micros()).unwrap_or(most).clamp(least, most))
}

/// The cores that the job reserves; none are named where it reserves none.
fn reserved(list: &str, problems: &mut Vec<Problem>) -> Option<CpuSet> {
    if list.is_empty() {
        return None;
    }
    let set = CpuSet::parse(list).filter(|set| !set.is_empty());
    if set.is_none() {
        problems.push(Problem::new("resources.cores", "is not a list of CPUs").value(list));
    }
    set
}

fn swap(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Swap {
    let Some(text) = &keys.memory_swap else { return Swap::None };
    match Size::parse(text) {
        _ if text == "unlimited" => Swap::Unlimited,
        Some(Size(0)) => Swap::None,
        Some(Size(bytes)) if bytes <= limits::MEMORY_MAX => Swap::Bytes(bytes),
        _ => {
            problems.push(
                Problem::new("memory_swap", "must be a size of at most 64t, or unlimited")
                    .value(text)
                    .remedy("e.g. \"64m\" or \"2g\""),
            );
            Swap::None
        }
    }
}

fn slice(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Option<SliceName> {
    let text = keys.slice.as_deref()?;
    let name = SliceName::new(text);
    name.map_err(|e| {
        let problem = Problem::new("slice", e.to_string()).value(text);
        problems.push(problem.remedy("e.g. machine-nspawn-batch.slice"));
    })
    .ok()
}

fn properties(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Vec<Property> {
    let mut all = Vec::new();
    for (name, text) in &keys.properties.0 {
        let key = format!("properties.{name}");
        let mut refuse = |rule: &str, remedy: &str| {
            problems.push(Problem::new(&key, rule).value(text).remedy(remedy));
        };
        if let Some(limit) = IoLimit::ALL.into_iter().find(|limit| limit.name() == name) {
            for part in text.split(',') {
                match io_property(limit, part) {
                    Some(property) => all.push(property),
                    None => refuse("must be DEVICE MOST", "e.g. \"/dev/vda 10m\""),
                }
            }
        } else if name == MEMORY_HIGH {
            match Size::parse(text) {
                Some(Size(bytes)) if bytes > 0 => all.push(Property::MemoryHigh(bytes)),
                _ => refuse("must be a size above 0", "e.g. \"64m\""),
            }
        } else {
            let known: Vec<_> = Property::names().collect();
            refuse(&format!("is not one of {}", known.join(", ")), remedy_of(name));
        }
    }
    all
}

fn io_property(limit: IoLimit, text: &str) -> Option<Property> {
    let (device, most) = text.trim().split_once(' ')?;
    let device = Absolute::parse(device).ok().filter(|_| device.starts_with("/dev/"))?;
    let Size(most) = Size::parse(most.trim()).filter(|most| most.0 > 0)?;
    Some(Property::Io { limit, device, most })
}

/// What to write in place of a property that has a key of its own.
fn remedy_of(property: &str) -> &'static str {
    match property {
        "CPUWeight" | "AllowedCPUs" => "write cpu or cores in the resources block",
        "CPUQuota" | "CPUQuotaPerSecUSec" => "write cpu_hard_limit",
        "MemoryMax" | "MemoryLow" => "write memory and memory_max in the resources block",
        "MemorySwapMax" => "write memory_swap",
        "TasksMax" => "write pids_limit",
        "IOWeight" => "write io_weight",
        "IPAddressAllow" | "IPAddressDeny" => "write egress",
        "OOMPolicy" => "write oom",
        "OOMScoreAdjust" => "write oom_score_adj",
        "Slice" => "write slice",
        _ => "remove it, or have the operator put the task into a slice that has it",
    }
}

fn egress(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Option<Vec<AddressRange>> {
    let (first, rest) = keys.egress.split_first()?;
    if first != "deny" {
        problems.push(
            Problem::new("egress", "must begin with deny: what follows is allowed")
                .value(first)
                .remedy("e.g. egress = [\"deny\", \"10.0.0.0/8\"]"),
        );
        return None;
    }
    if rest.len() > limits::EGRESS_MAX {
        let rule = format!("{} addresses, but at most {}", rest.len(), limits::EGRESS_MAX);
        problems.push(Problem::new("egress", rule));
    }
    let mut ranges = Vec::new();
    for text in rest {
        match range(text) {
            Some(range) => ranges.push(range),
            None => problems.push(
                Problem::new("egress", "is not an address or ADDRESS/BITS without further bits")
                    .value(text)
                    .remedy("e.g. \"10.0.0.0/8\", \"192.0.2.7\" or \"fd00::/8\""),
            ),
        }
    }
    Some(ranges)
}

fn range(text: &str) -> Option<AddressRange> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (longest, number) = match address {
        IpAddr::V4(address) => (32, u128::from(address.to_bits()) << 96),
        IpAddr::V6(address) => (128, address.to_bits()),
    };
    let bits = match bits {
        Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok()?,
        Some(_) => return None,
        None => longest,
    };
    let beyond = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
    (bits <= longest && number & beyond == 0).then_some(AddressRange { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::{
        AllocatedCpuResources, AllocatedMemoryResources, AllocatedTaskResources, LinuxResources,
    };

    fn of(memory_mb: i64, memory_max_mb: i64, cpu_shares: i64) -> Resources {
        allocated(Some(&drivers::Resources {
            allocated_resources: Some(AllocatedTaskResources {
                cpu: Some(AllocatedCpuResources { cpu_shares }),
                memory: Some(AllocatedMemoryResources { memory_mb, memory_max_mb }),
                networks: Vec::new(),
            }),
            ..Default::default()
        }))
    }

    #[test]
    fn d54_d55_memory_max_decides_the_hard_limit() {
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
    fn d53_weights_are_proportional_to_mhz() {
        assert_eq!(weight(0), None);
        assert_eq!(weight(-5), None);
        assert_eq!(weight(1), Some(1));
        assert_eq!(weight(100), Some(10));
        assert_eq!(weight(2000), Some(200));
        assert_eq!(weight(100_000), Some(10_000));
        assert_eq!(weight(i64::MAX), Some(10_000));
    }

    #[test]
    fn d53_quotas_are_shares_of_the_node() {
        assert_eq!(quota(0.375, 4.0), Some(1_500_000));
        assert_eq!(quota(0.25, 1.0), Some(250_000));
        assert_eq!(quota(0.0001, 4.0), Some(10_000));
        assert_eq!(quota(1e30, 4.0), None);
        for none in [quota(0.0, 4.0), quota(-1.0, 4.0), quota(f64::NAN, 4.0)] {
            assert_eq!(none, None);
        }
    }

    fn with(keys: &TaskKeys, linux: LinuxResources) -> (Resources, Vec<Problem>) {
        let mut problems = Vec::new();
        let given = drivers::Resources { linux_resources: Some(linux), ..Default::default() };
        let resources = resources(Some(&given), keys, 4.0, &mut problems);
        (resources, problems)
    }

    #[test]
    fn d53_cores_and_quota_come_from_nomad() {
        let linux = || LinuxResources {
            cpuset_cpus: "1,3-4".to_owned(),
            percent_ticks: 0.5,
            ..LinuxResources::default()
        };
        let hard = TaskKeys { cpu_hard_limit: true, ..TaskKeys::default() };
        let (resources, problems) = with(&hard, linux());
        assert_eq!(resources.cores.as_ref().map(CpuSet::mask), Some([0b1_1010].as_slice()));
        assert_eq!((resources.cpu_quota_us, problems), (Some(2_000_000), vec![]));
        assert_eq!(with(&TaskKeys::default(), linux()).0.cpu_quota_us, None);
        let wrong = LinuxResources { cpuset_cpus: "x".to_owned(), ..linux() };
        assert_eq!(with(&hard, wrong).1.len(), 1);
    }

    #[test]
    fn d56_nothing_known_means_no_limit_but_of_swap() {
        let resources = resources(None, &TaskKeys::default(), 4.0, &mut Vec::new());
        assert_eq!(resources, Resources::default());
        assert_eq!(resources.swap, Swap::None);
    }

    #[test]
    fn ranges_are_whole() {
        let shown = |text| range(text).map(|range| range.to_string());
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("fd00::/8", "fd00::/8"),
            ("::1", "::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected));
        }
        for bad in ["10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "a", ""] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
