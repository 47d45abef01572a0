//! What confines the payload: capabilities, system calls, kernel settings, process limits.

use std::collections::HashSet;

use proto::capability::Capabilities;
use proto::limits;
use proto::task_spec::process::{
    LimitName, ProcessLimit, SelinuxContext, SyscallName, SyscallRule, Sysctl, SysctlName,
    SysctlValue,
};
use proto::task_spec::{Isolation, Network};

use super::node::Node;
use crate::config::Problem;
use crate::config::plugin::glob;
use crate::config::task::TaskKeys;

/// Kernel settings that belong to the task's own namespaces.
const OWN_SYSCTLS: [&str; 5] = ["net.*", "kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*"];

/// Everything that confines the payload.
pub(crate) fn isolation(
    keys: &TaskKeys,
    network: Option<&Network>,
    node: &Node<'_>,
    problems: &mut Vec<Problem>,
) -> Isolation {
    Isolation {
        add: capabilities("capability", &keys.capability, problems),
        drop: capabilities("cap_drop", &keys.cap_drop, problems),
        no_new_privileges: keys.no_new_privileges,
        syscalls: keys.syscall_filter.iter().filter_map(|text| syscall(text, problems)).collect(),
        sysctls: sysctls(keys, network, problems),
        limits: process_limits(keys, problems),
        selinux: keys.selinux_context.as_deref().and_then(|text| selinux(text, node, problems)),
    }
}

/// Names with or without `CAP_`; several may be joined by commas, as the older driver passed on.
fn capabilities(key: &str, names: &[String], problems: &mut Vec<Problem>) -> Capabilities {
    let mut set = Capabilities::default();
    for name in names.iter().flat_map(|item| item.split(',')) {
        match Capabilities::named(name) {
            Some(one) => set = set.with(one),
            None => problems.push(
                Problem::new(key, "is not a capability")
                    .value(name)
                    .remedy("a name of capabilities(7) such as NET_ADMIN, or all"),
            ),
        }
    }
    set
}

fn syscall(text: &str, problems: &mut Vec<Problem>) -> Option<SyscallRule> {
    let (allow, name) = match text.strip_prefix('~') {
        Some(name) => (false, name),
        None => (true, text),
    };
    SyscallName::new(name)
        .map(|name| SyscallRule { allow, name })
        .map_err(|e| {
            problems.push(
                Problem::new("syscall_filter", e.to_string())
                    .value(text)
                    .remedy("e.g. \"@clock\", \"~@mount\" or \"perf_event_open\""),
            );
        })
        .ok()
}

fn sysctls(keys: &TaskKeys, network: Option<&Network>, problems: &mut Vec<Problem>) -> Vec<Sysctl> {
    let mut sysctls = Vec::new();
    for (name, value) in &keys.sysctl.0 {
        let key = format!("sysctl {name:?}");
        let mut refuse = |rule: String, remedy: &str| {
            problems.push(Problem::new(&key, rule).remedy(remedy));
        };
        let (parsed, value) = match (SysctlName::new(name), SysctlValue::new(value)) {
            (Ok(name), Ok(value)) => (name, value),
            (Err(e), _) | (_, Err(e)) => {
                refuse(e.to_string(), "e.g. \"net.core.somaxconn\" = \"1024\"");
                continue;
            }
        };
        if !OWN_SYSCTLS.iter().any(|pattern| glob(pattern, name)) {
            refuse(
                "is the whole host's".to_owned(),
                "only net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.* can be set",
            );
        } else if name.starts_with("net.") && matches!(network, Some(Network::Container(_))) {
            refuse(
                "excludes network_setup = \"container\": systemd-nspawn makes that network later"
                    .to_owned(),
                "remove it, or set network_setup = \"helper\"",
            );
        } else if name.starts_with("net.") && network.is_some_and(|n| !n.is_private()) {
            refuse(
                "needs a private network: this one is shared".to_owned(),
                "remove it, or leave the group's and the host's network",
            );
        } else {
            sysctls.push(Sysctl { name: parsed, value });
        }
    }
    sysctls
}

fn process_limits(keys: &TaskKeys, problems: &mut Vec<Problem>) -> Vec<ProcessLimit> {
    let mut limits = Vec::new();
    let mut seen = HashSet::new();
    for (name, text) in &keys.ulimit.0 {
        let key = format!("ulimit.{name}");
        let upper = name.to_ascii_uppercase();
        let Some(resource) = LimitName::ALL.iter().copied().find(|limit| limit.name() == upper)
        else {
            let names: Vec<_> =
                LimitName::ALL.iter().map(|limit| limit.name().to_ascii_lowercase()).collect();
            let problem = Problem::new(key, "is not a process limit");
            problems.push(problem.remedy(format!("one of {}", names.join(", "))));
            continue;
        };
        if !seen.insert(resource) {
            problems.push(Problem::new(&key, "is there twice").remedy("leave one out"));
        }
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        match (limit(soft), limit(hard)) {
            (Some(soft), Some(hard)) if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) => {
                problems.push(
                    Problem::new(key, "the soft limit is above the hard limit")
                        .value(text)
                        .remedy("write soft:hard"),
                );
            }
            (Some(soft), Some(hard)) => limits.push(ProcessLimit { resource, soft, hard }),
            _ => problems.push(
                Problem::new(key, "must be soft or soft:hard, numbers or infinity")
                    .value(text)
                    .remedy("e.g. \"1024:65536\""),
            ),
        }
    }
    limits
}

/// One limit; the inner `None` is infinity.
fn limit(text: &str) -> Option<Option<u64>> {
    match text {
        "infinity" | "unlimited" | "-1" => Some(None),
        // The largest number is infinity to the kernel.
        number => number.parse().ok().filter(|n| *n < u64::MAX).map(Some),
    }
}

fn selinux(text: &str, node: &Node<'_>, problems: &mut Vec<Problem>) -> Option<SelinuxContext> {
    if !node.selinux {
        problems.push(
            Problem::new("selinux_context", "SELinux is off on this node")
                .value(text)
                .remedy("remove it, or constrain the job to nodes with SELinux"),
        );
        return None;
    }
    SelinuxContext::new(text)
        .map_err(|e| {
            let problem = Problem::new("selinux_context", e.to_string()).value(text);
            problems.push(problem.remedy("e.g. system_u:system_r:container_t:s0"));
        })
        .ok()
}

/// How many rules of one kind a task may have.
pub(crate) fn counts(keys: &TaskKeys, problems: &mut Vec<Problem>) {
    for (key, count) in [
        ("syscall_filter", keys.syscall_filter.len()),
        ("sysctl", keys.sysctl.0.len()),
        ("extra_hosts", keys.extra_hosts.len()),
    ] {
        if count > limits::RULES_MAX {
            problems.push(Problem::new(key, format!("{count}, but at most {}", limits::RULES_MAX)));
        }
    }
    let binds = keys.bind.0.len() + keys.bind_read_only.0.len();
    for (key, count) in [
        ("bind", binds),
        ("mount", keys.mount.0.len()),
        ("tmpfs", keys.tmpfs.len()),
        ("overlay", keys.overlay.len() + keys.overlay_ro.len()),
        ("inaccessible", keys.inaccessible.len()),
        ("device", keys.device.0.len()),
        ("credential", keys.credential.0.len()),
    ] {
        if count > limits::MOUNTS_MAX {
            problems
                .push(Problem::new(key, format!("{count}, but at most {}", limits::MOUNTS_MAX)));
        }
    }
}
