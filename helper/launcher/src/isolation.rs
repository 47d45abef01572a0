//! What confines the payload beyond its namespaces: capabilities, system calls, process limits,
//! SELinux, and kernel settings in namespaces of its own.
//!
//! Trusts the policy's judgement of capabilities and system calls. Never writes a kernel setting
//! that another task or the host could see: a name outside the families that belong to a namespace
//! is refused here too, whatever the policy said.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use proto::capability::Capabilities;
use proto::plan::{Plan, PlannedNetwork};
use proto::task_spec::Payload;
use proto::task_spec::process::{SyscallRule, Sysctl};

use super::open::{self, Mounts};
use super::prepared::Extras;
use super::stage::OwnPath;
use super::step::{At, Problem};

/// The groups that systemd-nspawn's list consists of (nspawn-seccomp.c): it takes out nothing else.
const GROUPS: &str = "@aio @basic-io @chown @clock @default @file-system @io-event @ipc \
                      @memlock @module @mount @network-io @process @raw-io @resources @setuid @signal \
                      @sync @timer";

/// What systemd-nspawn keeps by default (systemd-nspawn(1), `--capability=`).
const CAPABILITIES: &str = "audit_control audit_write chown dac_override dac_read_search fowner \
                            fsetid ipc_owner kill lease linux_immutable mknod net_bind_service \
                            net_broadcast net_raw setfcap setgid setpcap setuid sys_admin \
                            sys_boot sys_chroot sys_nice sys_ptrace sys_resource sys_tty_config";

/// Where the kernel's settings are written: a mount of the stage.
const PROC: &str = "proc";
/// Flags of the kernel's own file systems.
const KERNELS: MsFlags = MsFlags::MS_NODEV.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);

fn named(names: &str) -> Capabilities {
    let named = names.split(' ').filter_map(Capabilities::named);
    named.fold(Capabilities::default(), Capabilities::with)
}

/// The bounding sets of payloads in a user namespace whose jobs name no capability: of commands, and
/// of booted systems with a network of their own.
pub(super) fn usual_boundings() -> [Capabilities; 2] {
    let all = named(CAPABILITIES);
    [all.without(named("net_bind_service")), all.with(named("net_admin"))]
}

/// The payload's bounding set, as systemd-nspawn would compute it of its options.
pub(super) fn bounding(plan: &Plan) -> io::Result<Capabilities> {
    // A network that systemd-nspawn makes is the container's as well.
    let made_by_nspawn = matches!(plan.network, PlannedNetwork::Container { .. });
    let has_own_network = made_by_nspawn || plan.network.belongs_to_container();
    // As systemd-nspawn itself for a private network. In one of the helper's a command gets it where
    // its job adds it.
    let boots = matches!(plan.payload, Payload::Boot { .. });
    let is_given = made_by_nspawn || (has_own_network && boots);
    let more = if is_given { named("net_admin") } else { Capabilities::default() };
    let set = named(CAPABILITIES).with(more).with(plan.isolation.add).without(plan.isolation.drop);
    match plan.users {
        // The network belongs to the host's user namespace: it would not let the payload bind.
        Some(range) if range.base != 0 && !has_own_network => {
            Ok(set.without(named("net_bind_service")))
        }
        Some(_) => Ok(set),
        // systemd-nspawn refuses what the unit does not have; a user namespace has all.
        None => {
            let status = String::from_utf8_lossy(&OwnPath::constant("/proc/self/status").read()?)
                .into_owned();
            let mask = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
            let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            let own = mask.ok_or_else(|| io::Error::other("no CapBnd in /proc/self/status"))?;
            Ok(set.both(Capabilities::of_mask(own)))
        }
    }
}

/// Prepares everything; enters an IPC namespace when a kernel setting needs one.
pub(super) fn prepare(plan: &Plan, extras: &mut Extras) -> Result<(), Problem> {
    let isolation = &plan.isolation;
    if isolation.no_new_privileges {
        extras.arguments.push("--no-new-privileges=yes".to_owned());
    }
    for rule in &isolation.syscalls {
        extras.arguments.push(syscall(rule)?);
    }
    // The unit has room for them: systemd-nspawn cannot raise a hard limit from inside the user
    // namespace.
    for limit in &isolation.limits {
        let text = |value: Option<u64>| value.map_or("infinity".to_owned(), |it| it.to_string());
        let (name, soft, hard) = (limit.resource.name(), text(limit.soft), text(limit.hard));
        extras.arguments.push(format!("--rlimit={name}={soft}:{hard}"));
    }
    if let Some(context) = &isolation.selinux {
        if OwnPath::constant("/sys/fs/selinux/enforce").metadata().is_err() {
            let reason = "SELinux is not active on this host (/sys/fs/selinux is not mounted); \
                          leave the key out, or constrain the job to nodes that have it";
            return Err(Problem::refused(format!("selinux_context {context}"), reason));
        }
        extras.arguments.push(format!("--selinux-context={context}"));
    }
    sysctls(plan, extras)
}

/// systemd-nspawn ignores in silence what it cannot take out.
pub(super) fn syscall(rule: &SyscallRule) -> Result<String, Problem> {
    let name = rule.name.as_str();
    if !rule.allow && name.starts_with('@') && !GROUPS.split(' ').any(|group| group == name) {
        let reason = format!(
            "systemd-nspawn's list has no such group in it, so nothing would be taken out; \
             name the system calls themselves (systemd-analyze syscall-filter {name})"
        );
        return Err(Problem::refused(format!("syscall_filter ~{name}"), reason));
    }
    Ok(format!("--system-call-filter={}{name}", if rule.allow { "" } else { "~" }))
}

/// The namespace that a kernel setting belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Network,
    Ipc,
}

fn family(name: &str) -> Option<Family> {
    if name.starts_with("net.") {
        return Some(Family::Network);
    }
    let ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|it| name.starts_with(it));
    (ipc || name == "kernel.sem").then_some(Family::Ipc)
}

/// Whether the network namespace is a new one, which goes with the task.
fn is_own(network: &PlannedNetwork) -> bool {
    matches!(
        network,
        PlannedNetwork::Loopback | PlannedNetwork::Private { .. } | PlannedNetwork::Attached { .. }
    )
}

fn sysctls(plan: &Plan, extras: &mut Extras) -> Result<(), Problem> {
    let all = &plan.isolation.sysctls;
    let refused =
        |sysctl: &Sysctl, reason| Err(Problem::refused(format!("sysctl {}", sysctl.name), reason));
    for sysctl in all {
        match family(sysctl.name.as_str()) {
            Some(Family::Network) if !is_own(&plan.network) => {
                return refused(sysctl, "net.* needs a network of the task's own");
            }
            None => {
                return refused(
                    sysctl,
                    "is not the task's own: net.*, kernel.shm*, kernel.msg*, kernel.sem and \
                     fs.mqueue.* are",
                );
            }
            Some(_) => {}
        }
    }
    if all.iter().any(|sysctl| family(sysctl.name.as_str()) == Some(Family::Ipc)) {
        own_ipc_namespace(extras)?;
    }
    if all.is_empty() {
        return Ok(());
    }
    // Its own: the host's may be read-only where the host is a container itself.
    OwnPath::on_stage(PROC).mount_new("proc", KERNELS, "")?;
    // The network namespace of the container is not there yet.
    let later = plan.network.belongs_to_container();
    write_all(all.iter().filter(|sysctl| !(later && is_of_network(sysctl))))
}

/// Writes the job's settings of the network namespace that the process is in. Needs [`prepare`]
/// before it.
pub(super) fn write_network_settings(all: &[Sysctl]) -> Result<(), Problem> {
    write_all(all.iter().filter(|sysctl| is_of_network(sysctl)))
}

fn is_of_network(sysctl: &Sysctl) -> bool {
    family(sysctl.name.as_str()) == Some(Family::Network)
}

fn write_all<'a>(mut all: impl Iterator<Item = &'a Sysctl>) -> Result<(), Problem> {
    // Looked up now: net leads to the network namespace of the process that looks.
    let open = || OwnPath::on_stage(PROC).join("sys").open_dir();
    all.try_for_each(|sysctl| write(open()?.as_fd(), sysctl))
}

/// Enters an IPC namespace that the payload will stay in: one that systemd-nspawn made could be
/// written to by nobody but the payload.
fn own_ipc_namespace(extras: &mut Extras) -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWIPC).at("IPC namespace")?;
    extras.environment.push("SYSTEMD_NSPAWN_SHARE_NS_IPC=1".to_owned());
    // From inside a user namespace it could not be mounted: the IPC namespace is the host's child.
    let queues = OwnPath::on_stage("mqueue");
    queues.mount_new("mqueue", KERNELS, "")?;
    extras.arguments.push(format!("--bind={queues}:/dev/mqueue"));
    Ok(())
}

/// The name's parts hold neither dots nor slashes ([`proto::task_spec::process::SysctlName`]).
fn write(root: BorrowedFd<'_>, sysctl: &Sysctl) -> Result<(), Problem> {
    let path = sysctl.name.as_str().replace('.', "/");
    let result = open::beneath(root, Path::new(&path), OFlag::O_WRONLY, Mounts::Stay)
        .and_then(|file| File::from(file).write_all(sysctl.value.as_str().as_bytes()));
    let Err(error) = result else { return Ok(()) };
    let object = format!("sysctl {} = {:?}", sysctl.name, sysctl.value.as_str());
    let reason = match error.kind() {
        io::ErrorKind::NotFound => {
            "this kernel has no such setting in a namespace of the task's own; `ls -R /proc/sys` \
             in a task shows what it has"
        }
        io::ErrorKind::PermissionDenied => {
            "the kernel does not let it be changed in a namespace of the task's own"
        }
        io::ErrorKind::InvalidInput => "the kernel does not take this value",
        _ => return Err(error).at(object),
    };
    Err(Problem::refused(object, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::link::{Ends, Link, LinkName};
    use proto::name::{AllocId, Instance};
    use proto::plan::NetworkOwner;
    use proto::task_spec::process::SyscallName;
    use proto::unit_id::UnitId;

    #[test]
    fn only_settings_of_a_namespace_have_a_family() {
        for name in ["net.core.somaxconn", "net.ipv4.ip_forward"] {
            assert_eq!(family(name), Some(Family::Network), "{name}");
        }
        for name in ["kernel.shmmax", "kernel.msgmnb", "kernel.sem", "fs.mqueue.msg_max"] {
            assert_eq!(family(name), Some(Family::Ipc), "{name}");
        }
        for name in ["kernel.core_pattern", "kernel.sem_next_id", "vm.swappiness", "fs.file-max"] {
            assert_eq!(family(name), None, "{name}");
        }
    }

    #[test]
    fn settings_of_a_network_need_one_of_the_tasks_own() {
        let unit = UnitId { alloc: AllocId([7; 16]), instance: Instance(1) };
        let link = Link {
            name: LinkName::from(unit),
            v4: Ends {
                task: [10, 64, 0, 2].into(),
                gateway: [10, 64, 0, 1].into(),
                pool: [10, 64, 0, 0].into(),
                prefix: 20,
            },
            v6: None,
            mac: None,
            zone: None,
            ports: Vec::new(),
        };
        assert!(is_own(&PlannedNetwork::Loopback));
        assert!(is_own(&PlannedNetwork::Private {
            link,
            enable_forwarding: true,
            owner: NetworkOwner::Host
        }));
        assert!(!is_own(&PlannedNetwork::Host));
    }

    #[test]
    fn a_group_that_is_not_in_the_list_cannot_be_taken_out() {
        let rule =
            |allow, name| syscall(&SyscallRule { allow, name: SyscallName::new(name).unwrap() });
        assert_eq!(rule(false, "@mount").unwrap(), "--system-call-filter=~@mount");
        assert_eq!(rule(true, "@privileged").unwrap(), "--system-call-filter=@privileged");
        assert!(rule(false, "@privileged").is_err() && rule(false, "chown").is_ok());
    }
}
