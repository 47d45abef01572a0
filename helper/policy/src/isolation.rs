//! Capabilities, system calls, kernel settings and SELinux contexts.
//! Taking something away is never refused.

use proto::capability::Capabilities;
use proto::task_spec::TaskSpec;
use proto::task_spec::process::{LimitName, ProcessLimit, Sysctl};

use super::glob::matches;
use super::{Denial, Policy, refuse, unlisted};

/// What systemd-nspawn gives every container (systemd-nspawn(1), `--capability=`).
const DEFAULT_CAPS: &str = "AUDIT_CONTROL AUDIT_WRITE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER \
                            FSETID IPC_OWNER KILL LEASE LINUX_IMMUTABLE MKNOD NET_BIND_SERVICE NET_BROADCAST NET_RAW \
                            SETFCAP SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_NICE SYS_PTRACE SYS_RESOURCE \
                            SYS_TTY_CONFIG";

/// Kernel settings that belong to the task's own namespaces: no other is written.
const OWN_SYSCTLS: [&str; 5] = ["net.*", "kernel.shm*", "kernel.msg*", "kernel.sem", "fs.mqueue.*"];

pub(super) fn check(spec: &TaskSpec, policy: &Policy) -> Result<(), Denial> {
    let isolation = &spec.isolation;
    let default = DEFAULT_CAPS.split(' ').filter_map(Capabilities::named);
    let ceiling = default.fold(policy.caps.allow.0, Capabilities::with);
    let beyond = isolation.add.without(ceiling);
    if !beyond.is_empty() {
        let entries: Vec<_> = beyond.names().map(|name| name.to_ascii_lowercase()).collect();
        let entries = entries.join("\", \"").replace("cap_", "");
        return Err(unlisted("caps.allow", format!("capability {beyond}"), entries));
    }
    for rule in isolation.syscalls.iter().filter(|rule| rule.allow) {
        if !lists(policy.syscalls.allow_extra.iter().map(|call| &call.0), rule.name.as_str()) {
            let object = format!("system call {}", rule.name);
            return Err(unlisted("syscalls.allow_extra", object, &rule.name));
        }
    }
    isolation.sysctls.iter().try_for_each(|it| check_sysctl(it, spec, policy))?;
    isolation.limits.iter().try_for_each(|it| check_limit(it, policy))?;
    match &isolation.selinux {
        Some(context) if !lists(policy.lsm.profiles.iter(), context.as_str()) => {
            Err(unlisted("lsm.profiles", format!("SELinux context {context}"), context))
        }
        _ => Ok(()),
    }
}

fn lists<'a>(mut entries: impl Iterator<Item = &'a String>, name: &str) -> bool {
    entries.any(|entry| entry == "*" || entry == name)
}

fn check_sysctl(sysctl: &Sysctl, spec: &TaskSpec, policy: &Policy) -> Result<(), Denial> {
    let name = sysctl.name.as_str();
    let object = format!("sysctl {name}");
    if !OWN_SYSCTLS.iter().any(|pattern| matches(pattern, name, None)) {
        let reason = format!("is the whole host's: only {} can be set", OWN_SYSCTLS.join(", "));
        return Err(refuse("sysctl.allow", object, reason));
    }
    if name.starts_with("net.") && !spec.network.is_private() {
        let reason = "is set only in a network namespace that the helper makes for the task: this one \
                      is shared with others, or made later by systemd-nspawn";
        return Err(refuse("sysctl.allow", object, reason));
    }
    if !policy.sysctl.allow.iter().any(|pattern| matches(pattern, name, None)) {
        return Err(unlisted("sysctl.allow", object, name));
    }
    Ok(())
}

/// No limit has a ceiling of its own but those that would take CPU time from others.
fn check_limit(limit: &ProcessLimit, policy: &Policy) -> Result<(), Denial> {
    let listed = policy.limits.ulimit.0.iter().find(|(name, _)| *name == limit.resource);
    let most = match (listed, limit.resource) {
        (Some((_, most)), _) => *most,
        (None, LimitName::Nice | LimitName::RealtimePriority) => 0,
        (None, _) => return Ok(()),
    };
    let asked = limit.hard.unwrap_or(u64::MAX);
    if asked <= most {
        return Ok(());
    }
    let name = limit.resource.name().to_ascii_lowercase();
    let shown = if asked == u64::MAX { "infinity".to_owned() } else { asked.to_string() };
    let reason = format!(
        "the most is {most}; a higher {name} in [limits] ulimit of the policy file would allow it"
    );
    Err(refuse("limits.ulimit", format!("process limit {name} = {shown}"), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{ALLOC, COMPAT, Change, absolute, check, row};
    use proto::task_spec::Network;
    use proto::task_spec::process::{SyscallName, SyscallRule, SysctlName, SysctlValue};

    fn capability(name: &'static str) -> Change {
        Box::new(move |s| s.isolation.add = Capabilities::named(name).unwrap())
    }

    fn syscall(name: &'static str, allow: bool) -> Change {
        Box::new(move |s| {
            s.isolation.syscalls =
                vec![SyscallRule { allow, name: SyscallName::new(name).unwrap() }];
        })
    }

    fn sysctl(name: &'static str, network: Network) -> Change {
        Box::new(move |s| {
            let value = SysctlValue::new("1").unwrap();
            s.isolation.sysctls = vec![Sysctl { name: SysctlName::new(name).unwrap(), value }];
            s.network = network.clone();
        })
    }

    fn limit(resource: LimitName, hard: Option<u64>) -> Change {
        let soft = Some(0);
        Box::new(move |s| s.isolation.limits = vec![ProcessLimit { resource, soft, hard }])
    }

    #[test]
    fn process_limits_have_the_ceilings_that_are_listed() {
        const SOME: &str = "[limits]\nulimit = { memlock = \"64k\", rtprio = 9, core = 0 }";
        let rule = "limits.ulimit";
        let (memory, rtprio) = (LimitName::LockedMemory, LimitName::RealtimePriority);
        let more = |resource, hard, good| {
            row(rule, "in [limits] ulimit", (SOME, limit(resource, hard)), good)
        };
        check(vec![
            more(memory, Some(65_537), (SOME, limit(memory, Some(65_536)))),
            more(memory, None, ("", limit(memory, None))),
            more(rtprio, Some(10), (SOME, limit(rtprio, Some(9)))),
            more(LimitName::Core, Some(1), (SOME, limit(LimitName::Core, Some(0)))),
            more(LimitName::Nice, Some(1), (SOME, limit(LimitName::Nice, Some(0)))),
            row(
                rule,
                "rtprio = 1",
                (COMPAT, limit(rtprio, Some(1))),
                (COMPAT, limit(rtprio, Some(0))),
            ),
            row(
                rule,
                "nice = infinity",
                ("", limit(LimitName::Nice, None)),
                (SOME, limit(LimitName::OpenFiles, None)),
            ),
        ]);
    }

    fn context(text: &'static str) -> Change {
        use proto::task_spec::process::SelinuxContext;
        Box::new(move |s| s.isolation.selinux = Some(SelinuxContext::new(text).unwrap()))
    }

    #[test]
    fn isolation_is_bounded() {
        const EXTRA: &str = "[syscalls]\nallow_extra = [\"@swap\", \"bpf\"]";
        const FEW: &str = "[sysctl]\nallow = [\"net.ipv4.*\"]";
        let (private, host) = (Network::Loopback, Network::Host);
        let net = "net.core.somaxconn";
        let (caps, calls, sysctls) = ("caps.allow", "syscalls.allow_extra", "sysctl.allow");
        check(vec![
            row(
                caps,
                "\"bpf\" added to [caps] allow",
                ("", capability("bpf")),
                (COMPAT, capability("all")),
            ),
            row(
                caps,
                "\"net_admin\"",
                ("", capability("NET_ADMIN")),
                ("[caps]\nallow = [\"net_admin\"]", capability("NET_ADMIN")),
            ),
            row(
                caps,
                "\"net_admin\", \"ipc_lock\"",
                ("", capability("all")),
                ("[caps]\nallow = []", capability("sys_admin")),
            ),
            row(
                calls,
                "\"@swap\" added to [syscalls]",
                ("", syscall("@swap", true)),
                (EXTRA, syscall("@swap", true)),
            ),
            row(
                calls,
                "\"kexec_load\"",
                (EXTRA, syscall("kexec_load", true)),
                (EXTRA, syscall("kexec_load", false)),
            ),
            row(calls, "\"bpf\"", ("", syscall("bpf", true)), (COMPAT, syscall("bpf", true))),
            row(
                sysctls,
                "whole host's",
                (COMPAT, sysctl("kernel.core_pattern", private.clone())),
                ("", sysctl("kernel.shmmax", joined())),
            ),
            row(
                sysctls,
                "whole host's",
                (COMPAT, sysctl("kernel.semx", private.clone())),
                ("", sysctl("kernel.sem", private.clone())),
            ),
            row(
                sysctls,
                "network namespace that the helper makes",
                (COMPAT, sysctl(net, joined())),
                (COMPAT, sysctl("fs.mqueue.msg_max", joined())),
            ),
            row(
                sysctls,
                "network namespace that the helper makes",
                (COMPAT, sysctl(net, host)),
                (COMPAT, sysctl(net, private.clone())),
            ),
            row(
                sysctls,
                "[sysctl] allow",
                (FEW, sysctl(net, Network::with_ports(Vec::new()))),
                ("", sysctl(net, Network::with_ports(Vec::new()))),
            ),
            row(
                sysctls,
                "[sysctl] allow",
                (FEW, sysctl(net, private.clone())),
                (FEW, sysctl("net.ipv4.ip_forward", private)),
            ),
            row(
                "lsm.profiles",
                "[lsm] profiles",
                ("", context("u:r:t:s0")),
                ("[lsm]\nprofiles = [\"u:r:t:s0\"]", context("u:r:t:s0")),
            ),
            row(
                "lsm.profiles",
                "u:r:x:s0",
                ("[lsm]\nprofiles = [\"u:r:t:s0\"]", context("u:r:x:s0")),
                (COMPAT, context("u:r:x:s0")),
            ),
        ]);

        fn joined() -> Network {
            Network::Join(absolute(&format!("/run/netns/{ALLOC}")))
        }
    }
}
