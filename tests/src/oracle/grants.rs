//! What is granted beyond places: user namespaces, capabilities, ceilings, kernel settings.

use super::file::Settings;
use super::{Broken, TASKS_DEFAULT, places};
use proto::capability::Capabilities;
use proto::task_spec::resources::{AddressRange, IoLimit, Property, Swap};
use proto::task_spec::{Network, Payload, TaskSpec, Users};
use std::net::IpAddr;

/// What systemd-nspawn leaves every container (systemd-nspawn(1), `--capability=`).
const NSPAWN_CAPS: [&str; 26] = [
    "AUDIT_CONTROL",
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
    "SYS_RESOURCE",
    "SYS_TTY_CONFIG",
];

/// Families of kernel settings that belong to the task's own namespaces.
const FAMILIES: [&str; 5] = ["net.*", "kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*"];

fn check_users(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let weak = match spec.users {
        Users::Host | Users::Identity => true,
        Users::Fixed { base, .. } => base < 65_536,
        Users::Pick => false,
    };
    let excepted = policy.userns_except.contains(&places::image(spec, policy));
    broken.policy("users", weak && policy.userns_require && !excepted);
}

fn check_caps(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    for name in spec.isolation.add.names() {
        let name = name.trim_start_matches("CAP_").to_owned();
        let listed = policy.caps_allow.iter().any(|allowed| {
            let allowed = allowed.to_uppercase();
            allowed == "ALL" || allowed.trim_start_matches("CAP_") == name
        });
        broken.policy("capability", !listed && !NSPAWN_CAPS.contains(&name.as_str()));
    }
}

/// Whether a network of the task's own belongs to the container.
pub(super) fn network_of_container(spec: &TaskSpec, policy: &Settings) -> bool {
    let names = |set: Capabilities| set.names().any(|name| name == "CAP_NET_ADMIN");
    let boots = matches!(spec.payload, Payload::Boot { .. });
    let own_users = spec.users != Users::Host;
    let may = !names(spec.isolation.drop) && (boots || names(spec.isolation.add));
    matches!(spec.network, Network::Private(_)) && own_users && may && policy.container_admin
}

/// TasksMax= of the unit.
pub(super) fn tasks(spec: &TaskSpec, policy: &Settings) -> u64 {
    let asked = spec.resources.tasks_max.unwrap_or(TASKS_DEFAULT);
    policy.limits_tasks.map_or(asked, |ceiling| asked.min(ceiling))
}

fn check_ceilings(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    if let Some(ceiling) = policy.limits_memory {
        broken.policy("memory-unset", spec.resources.memory_max.is_none());
        broken.policy("memory-above", spec.resources.memory_max.is_some_and(|n| n > ceiling));
    }
    if let (Some(ceiling), Some(asked)) = (policy.limits_tasks, spec.resources.tasks_max) {
        broken.policy("tasks-above", asked > ceiling);
    }
}

/// The bits that all addresses of a range share, as a text of 0 and 1 behind the family; `None`: its
/// first address is another.
pub(super) fn bits(range: &AddressRange) -> Option<String> {
    let (family, octets) = match range.address {
        IpAddr::V4(address) => ("4:", address.octets().to_vec()),
        IpAddr::V6(address) => ("6:", address.octets().to_vec()),
    };
    let all: String = octets.iter().map(|octet| format!("{octet:08b}")).collect();
    let (shared, rest) = all.split_at_checked(range.bits.into())?;
    (!rest.contains('1')).then(|| format!("{family}{shared}"))
}

fn check_unit(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    let wanted = &spec.resources;
    let swap = match wanted.swap {
        Swap::None => 0,
        Swap::Bytes(bytes) => bytes,
        Swap::Unlimited => u64::MAX,
    };
    broken.policy("swap-above", swap > policy.limits_swap);
    let score = wanted.oom_score;
    broken.policy("oom-score-low", score < 0 && score < policy.limits_oom_score);
    for property in &wanted.properties {
        let name = match property {
            Property::MemoryHigh(_) => "MemoryHigh",
            Property::Io { limit: IoLimit::ReadBandwidth, .. } => "IOReadBandwidthMax",
            Property::Io { limit: IoLimit::WriteBandwidth, .. } => "IOWriteBandwidthMax",
            Property::Io { limit: IoLimit::ReadOperations, .. } => "IOReadIOPSMax",
            Property::Io { limit: IoLimit::WriteOperations, .. } => "IOWriteIOPSMax",
        };
        let listed = policy.properties_allow.iter().any(|entry| entry == name);
        broken.policy("property-listed", !listed);
    }
    if let Some(slice) = &wanted.slice {
        let mut patterns = policy.systemd_slices.iter();
        let listed = patterns.any(|pattern| places::matches(pattern, slice.as_str(), true));
        broken.policy("slice", !listed);
    }
    if let Some(allowed) = &policy.network_egress {
        broken.policy("egress-unset", wanted.egress.is_none());
        broken.policy("egress-evaded", may_evade_egress(spec, policy));
        for range in wanted.egress.iter().flatten() {
            let Some(asked) = bits(range) else { continue };
            let covers = |(address, bits): &(String, u8)| {
                let address = address.parse().ok()?;
                self::bits(&AddressRange { address, bits: *bits })
            };
            let mut entries = allowed.iter().filter_map(covers);
            broken.policy("egress-listed", !entries.any(|entry| asked.starts_with(&entry)));
        }
    }
}

/// Whether root inside has capabilities over a network with a way out.
fn may_evade_egress(spec: &TaskSpec, policy: &Settings) -> bool {
    let dropped: Vec<String> = spec.isolation.drop.names().collect();
    let lacks = |name: &str| dropped.iter().any(|dropped| dropped == name);
    let boots = matches!(spec.payload, Payload::Boot { .. });
    let adds = spec.isolation.add.names().any(|name| name == "CAP_NET_ADMIN");
    let of_container = match &spec.network {
        Network::Loopback => return false,
        Network::Container(_) => true,
        Network::Private(_) => network_of_container(spec, policy),
        // With an address that the driver sets, a booted image does not get the network.
        Network::Attached(attached) => {
            let is_static = attached.v4.is_some() || attached.v6.is_some();
            (boots || adds)
                && !lacks("CAP_NET_ADMIN")
                && !(boots && is_static)
                && policy.container_admin
        }
        Network::Host | Network::Join(_) => false,
    };
    let counts = of_container || spec.users == Users::Host;
    counts && !(lacks("CAP_NET_RAW") && lacks("CAP_NET_ADMIN"))
}

fn check_isolation(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    for rule in spec.isolation.syscalls.iter().filter(|rule| rule.allow) {
        let name = rule.name.as_str();
        let listed = policy.syscalls_allow_extra.iter().any(|entry| entry == "*" || entry == name);
        broken.policy("syscall", !listed);
    }
    for limit in &spec.isolation.limits {
        let name = limit.resource.name().to_lowercase();
        let of_cpu = ["nice", "rtprio"].contains(&name.as_str());
        let given = policy.limits_ulimit.iter().find(|(listed, _)| *listed == name);
        let ceiling = given.map_or(if of_cpu { 0 } else { u64::MAX }, |(_, most)| *most);
        broken.policy("limit-above", limit.hard.unwrap_or(u64::MAX) > ceiling);
    }
    for sysctl in &spec.isolation.sysctls {
        let name = sysctl.name.as_str();
        let any = |of: &[&str]| of.iter().any(|pattern| places::matches(pattern, name, true));
        let allow: Vec<_> = policy.sysctl_allow.iter().map(String::as_str).collect();
        broken.policy("sysctl-family", !any(&FAMILIES));
        broken.policy("sysctl-listed", !any(&allow));
        let own =
            matches!(spec.network, Network::Loopback | Network::Private(_) | Network::Attached(_));
        broken.policy("sysctl-network", name.starts_with("net.") && !own);
    }
    if let Some(context) = &spec.isolation.selinux {
        let listed =
            policy.lsm_profiles.iter().any(|entry| entry == "*" || entry == context.as_str());
        broken.policy("selinux", !listed);
    }
}

/// All rules about grants.
pub(super) fn check(spec: &TaskSpec, policy: &Settings, broken: &mut Broken) {
    check_users(spec, policy, broken);
    check_caps(spec, policy, broken);
    check_ceilings(spec, policy, broken);
    check_unit(spec, policy, broken);
    check_isolation(spec, policy, broken);
}
