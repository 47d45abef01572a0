//! Limits of a task as properties of its unit (systemd.resource-control(5)).
//!
//! Trusts the policy's decision: every number is in range. Takes no property whose form in the unit's
//! file systemd 252 could not read again: a daemon-reload would drop it.

use std::net::IpAddr;

use proto::task_spec::Resources;
use proto::task_spec::resources::{AddressRange, OomScope, Property};
use proto::unit_id::UnitId;
use zbus::Variant;

use crate::systemd::bus::{Bus, MANAGER};
use crate::systemd::units::{names, transient};

/// Processes of ours beside the payload's: systemd-nspawn, and while it starts a child of its own and
/// the process that connects a network.
const TASKS_ROOM: u64 = 3;
/// Loopback, which "any" means too: a task's own would be closed.
const LOOPBACK: [(IpAddr, u8); 2] = [
    (IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
];

/// A range on the bus: family, address, bits.
type Range = (i32, Vec<u8>, u32);

/// The properties.
pub(super) fn properties(wanted: &Resources) -> Vec<transient::Property<'static>> {
    let tasks = wanted.tasks_max.map(|most| most.saturating_add(TASKS_ROOM));
    let weight = wanted.cpu_weight;
    let boosted = boosted_weight(wanted).or(weight);
    let numbers = [
        ("TasksMax", tasks),
        ("MemoryMax", wanted.memory_max),
        ("MemoryLow", wanted.memory_low),
        ("MemorySwapMax", Some(wanted.swap.bytes())),
        ("CPUWeight", boosted),
        ("CPUQuotaPerSecUSec", wanted.cpu_quota_us),
        ("IOWeight", wanted.io_weight),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name, value?.into())));
    let oom = if wanted.oom == OomScope::Task { "stop" } else { "continue" };
    let mut all: Vec<transient::Property<'static>> = numbers.collect();
    all.push(("OOMPolicy", Variant::from(oom)));
    // Not systemd-nspawn's --oom-score-adjust=, which fails in a user namespace. It has the score as
    // well, but next to no memory: what grows in the payload is killed before it.
    if wanted.oom_score != 0 {
        all.push(("OOMScoreAdjust", Variant::from(i32::from(wanted.oom_score))));
    }
    if let Some(cores) = &wanted.cores {
        all.push(("AllowedCPUs", Variant::from(cores.mask().to_vec())));
    }
    if let Some(ranges) = &wanted.egress {
        let any = [
            IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        ];
        let allowed = ranges.iter().map(|AddressRange { address, bits }| (*address, *bits));
        let allowed: Vec<Range> = LOOPBACK.into_iter().chain(allowed).map(on_bus).collect();
        let denied: Vec<Range> = any.into_iter().map(|address| on_bus((address, 0))).collect();
        all.push(("IPAddressAllow", Variant::from(allowed)));
        all.push(("IPAddressDeny", Variant::from(denied)));
    }
    all.extend(wanted.properties.iter().map(|property| match property {
        Property::MemoryHigh(bytes) => (property.name(), Variant::from(*bytes)),
        Property::Io { device, most, .. } => {
            (property.name(), Variant::from(vec![(device.to_string(), *most)]))
        }
    }));
    all
}

/// The weight until the task is ready, when it is another than afterwards.
pub(crate) fn boosted_weight(wanted: &Resources) -> Option<u64> {
    let times = u64::from(wanted.cpu_boost?);
    Some(wanted.cpu_weight?.saturating_mul(times).min(*proto::limits::CPU_WEIGHT.end()))
}

/// Sets the weight of a task that has become ready.
pub(crate) async fn set_weight(bus: &Bus, unit: UnitId, weight: u64) -> Result<(), String> {
    let properties = vec![("CPUWeight", Variant::from(weight))];
    let body = (names::task(unit), true, properties);
    bus.call(MANAGER, "SetUnitProperties", &body).await.map(drop).map_err(|e| e.to_string())
}

/// The slice: one with CPUs of its own does not share the others'.
pub(super) fn slice(wanted: &Resources) -> &str {
    match (&wanted.slice, &wanted.cores) {
        (Some(slice), _) => slice.as_str(),
        (None, Some(_)) => transient::SLICE,
        (None, None) => transient::SHARE_SLICE,
    }
}

fn on_bus((address, bits): (IpAddr, u8)) -> Range {
    let (family, bytes) = match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    (family, bytes, bits.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::cpu_set::CpuSet;
    use proto::path::Absolute;
    use proto::task_spec::resources::{IoLimit, SliceName, Swap};

    fn value(wanted: &Resources, name: &str) -> Option<Variant<'static>> {
        let mut found = properties(wanted).into_iter().filter(|(it, _)| *it == name);
        let value = found.next().map(|(_, value)| value);
        assert!(found.next().is_none(), "{name} twice");
        value
    }

    #[test]
    fn nothing_asked_for_is_no_limit_but_of_swap() {
        let none = Resources::default();
        let names: Vec<_> = properties(&none).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["MemorySwapMax", "OOMPolicy"]);
        assert_eq!(value(&none, "MemorySwapMax"), Some(Variant::from(0_u64)));
        assert_eq!(value(&none, "OOMPolicy"), Some(Variant::from("continue")));
        assert_eq!(slice(&none), "machine-nspawn-share.slice");
    }

    #[test]
    fn each_limit_is_its_property() {
        let cores = CpuSet::parse("0,9");
        let wanted = Resources {
            swap: Swap::Unlimited,
            cpu_weight: Some(60),
            cpu_boost: Some(4),
            cpu_quota_us: Some(1_500_000),
            cores: cores.clone(),
            tasks_max: Some(50),
            oom_score: -7,
            oom: OomScope::Task,
            egress: Some(vec![AddressRange { address: [10, 0, 0, 0].into(), bits: 8 }]),
            properties: vec![Property::Io {
                limit: IoLimit::ReadOperations,
                device: Absolute::parse("/dev/vda").unwrap(),
                most: 9,
            }],
            ..Resources::default()
        };
        let (v4, v6) = (vec![10_u8, 0, 0, 0], [0_u8; 16].to_vec());
        for (name, expected) in [
            ("MemorySwapMax", Variant::from(u64::MAX)),
            ("CPUWeight", Variant::from(240_u64)),
            ("CPUQuotaPerSecUSec", Variant::from(1_500_000_u64)),
            ("TasksMax", Variant::from(53_u64)),
            ("AllowedCPUs", Variant::from(vec![1_u8, 2])),
            ("OOMScoreAdjust", Variant::from(-7_i32)),
            ("OOMPolicy", Variant::from("stop")),
            ("IOReadIOPSMax", Variant::from(vec![("/dev/vda".to_owned(), 9_u64)])),
            ("IPAddressDeny", Variant::from(vec![(2_i32, vec![0_u8; 4], 0_u32), (10, v6, 0)])),
        ] {
            assert_eq!(value(&wanted, name), Some(expected), "{name}");
        }
        let Some(Variant::Array(allowed)) = value(&wanted, "IPAddressAllow") else { panic!() };
        let last = allowed.iter().last().map(|it| format!("{it:?}"));
        assert_eq!(last, Some(format!("{:?}", Variant::from((2_i32, v4, 8_u32)))));
        assert_eq!(slice(&wanted), "machine-nspawn.slice");
        let named = SliceName::new("batch.slice").ok();
        assert_eq!(
            slice(&Resources { slice: named, cores, ..Resources::default() }),
            "batch.slice"
        );
        // The largest weight of PID 1.
        let large =
            Resources { cpu_weight: Some(9_000), cpu_boost: Some(2), ..Resources::default() };
        assert_eq!(boosted_weight(&large), Some(10_000));
        let score = value(&Resources { oom_score: 7, ..large }, "OOMScoreAdjust");
        assert_eq!(score, Some(Variant::from(7_i32)));
    }
}
