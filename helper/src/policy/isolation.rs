//! Capabilities, system calls, kernel settings and SELinux contexts.

use proto::capability::Capabilities;
use proto::spec::process::Sysctl;
use proto::spec::{Network, TaskSpec};

use super::glob::matches;
use super::{Denial, Policy, refuse, unlisted};

/// What systemd-nspawn gives every container (systemd-nspawn(1), `--capability=`).
const DEFAULT_CAPS: [&str; 26] = [
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

/// Kernel settings that belong to the task's own namespaces: no other is written.
const OWN_SYSCTLS: [&str; 5] = ["net.*", "kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*"];

pub(super) fn check(spec: &TaskSpec, policy: &Policy) -> Result<(), Denial> {
    let isolation = &spec.isolation;
    let default = DEFAULT_CAPS.iter().filter_map(|name| Capabilities::named(name));
    let ceiling = default.fold(policy.caps_allow, Capabilities::with);
    if let Some(name) = isolation.add.without(ceiling).names().next() {
        let entry = name.trim_start_matches("CAP_").to_ascii_lowercase();
        return Err(unlisted("caps.allow", format!("capability {name}"), entry));
    }
    for rule in isolation.syscalls.iter().filter(|rule| rule.allow) {
        if !lists(&policy.syscalls_extra, rule.name.as_str()) {
            let object = format!("system call {}", rule.name);
            return Err(unlisted("syscalls.allow_extra", object, &rule.name));
        }
    }
    for sysctl in &isolation.sysctls {
        check_sysctl(sysctl, spec, policy)?;
    }
    match &isolation.selinux {
        Some(context) if !lists(&policy.lsm_profiles, context.as_str()) => {
            Err(unlisted("lsm.profiles", format!("SELinux context {context}"), context))
        }
        _ => Ok(()),
    }
}

fn lists(entries: &[String], name: &str) -> bool {
    entries.iter().any(|entry| entry == "*" || entry == name)
}

fn check_sysctl(sysctl: &Sysctl, spec: &TaskSpec, policy: &Policy) -> Result<(), Denial> {
    let name = sysctl.name.as_str();
    let object = format!("sysctl {name}");
    if !OWN_SYSCTLS.iter().any(|pattern| matches(pattern, name, None)) {
        let reason = format!("is the whole host's: only {} can be set", OWN_SYSCTLS.join(", "));
        return Err(refuse("sysctl.allow", object, reason));
    }
    if name.starts_with("net.") && spec.network != Network::Loopback {
        let reason = "is set in a private network only: this one is shared with others";
        return Err(refuse("sysctl.allow", object, reason));
    }
    if !policy.sysctl_allow.iter().any(|pattern| matches(pattern, name, None)) {
        return Err(unlisted("sysctl.allow", object, name));
    }
    Ok(())
}
