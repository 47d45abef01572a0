//! What confines the payload beyond its namespaces: capabilities, system calls, process limits,
//! SELinux, and kernel settings in namespaces of its own.
//!
//! Trusts the policy's judgement of capabilities and system calls. Never writes a kernel setting
//! that another task or the host could see: a name outside the families that belong to a namespace
//! is refused here too, whatever the policy said.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proto::plan::{Plan, PlannedNetwork};
use proto::spec::process::{LimitName, ProcessLimit, Sysctl};

use super::STAGE;
use super::extras::Extras;
use super::open::{self, Mounts};
use super::step::{At, Problem};

/// Values of RLIMIT_NICE (getrlimit(2)); systemd takes no others.
const NICE: std::ops::RangeInclusive<u64> = 1..=40;

/// Prepares everything; enters an IPC namespace when a kernel setting needs one.
pub(super) fn prepare(plan: &Plan, extras: &mut Extras) -> Result<(), Problem> {
    let isolation = &plan.isolation;
    for (option, set) in [("capability", isolation.add), ("drop-capability", isolation.drop)] {
        if !set.is_empty() {
            extras.arguments.push(format!("--{option}={set}"));
        }
    }
    if isolation.no_new_privileges {
        extras.arguments.push("--no-new-privileges=yes".to_owned());
    }
    for rule in &isolation.syscalls {
        let deny = if rule.allow { "" } else { "~" };
        extras.arguments.push(format!("--system-call-filter={deny}{}", rule.name));
    }
    for limit in &isolation.limits {
        extras.arguments.push(rlimit(limit)?);
    }
    if let Some(context) = &isolation.selinux {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Problem::refused(
                format!("selinux_context {context}"),
                "SELinux is not active on this host (/sys/fs/selinux is not mounted); leave the \
                 key out, or constrain the job to nodes that have it",
            ));
        }
        extras.arguments.push(format!("--selinux-context={context}"));
    }
    sysctls(plan, extras)
}

fn rlimit(limit: &ProcessLimit) -> Result<String, Problem> {
    let name = limit.resource.name();
    let text = |value: Option<u64>| match value {
        None => Ok("infinity".to_owned()),
        Some(value) if limit.resource == LimitName::Nice && !NICE.contains(&value) => {
            Err(Problem::refused(
                format!("limit NICE = {value}"),
                "1 to 40: 20 minus the nice value (getrlimit(2))",
            ))
        }
        Some(value) => Ok(value.to_string()),
    };
    Ok(format!("--rlimit={name}={}:{}", text(limit.soft)?, text(limit.hard)?))
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

fn sysctls(plan: &Plan, extras: &mut Extras) -> Result<(), Problem> {
    let all = &plan.isolation.sysctls;
    let refused =
        |sysctl: &Sysctl, reason| Err(Problem::refused(format!("sysctl {}", sysctl.name), reason));
    for sysctl in all {
        match family(sysctl.name.as_str()) {
            Some(Family::Network) if plan.network != PlannedNetwork::Loopback => {
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
    let root = open::folder(Path::new("/proc/sys")).at("/proc/sys")?;
    all.iter().try_for_each(|sysctl| write(root.as_fd(), sysctl))
}

/// Enters an IPC namespace that the payload will stay in: one that systemd-nspawn made could be
/// written to by nobody but the payload.
fn own_ipc_namespace(extras: &mut Extras) -> Result<(), Problem> {
    unshare(CloneFlags::CLONE_NEWIPC).at("IPC namespace")?;
    extras.environment.push("SYSTEMD_NSPAWN_SHARE_NS_IPC=1".to_owned());
    // From inside a user namespace it could not be mounted: the IPC namespace is the host's child.
    let queues = Path::new(STAGE).join("mqueue");
    fs::create_dir(&queues).at(queues.display())?;
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("mqueue"), &queues, Some("mqueue"), flags, None::<&str>).at(queues.display())?;
    extras.arguments.push(format!("--bind={}:/dev/mqueue", queues.display()));
    Ok(())
}

/// The name's parts hold neither dots nor slashes ([`proto::spec::process::SysctlName`]).
fn write(root: BorrowedFd<'_>, sysctl: &Sysctl) -> Result<(), Problem> {
    let path = sysctl.name.as_str().replace('.', "/");
    let result = open::beneath(root, Path::new(&path), OFlag::O_WRONLY, Mounts::Cross)
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
    fn limits_are_spelled_as_systemd_reads_them() {
        let limit = |resource, soft, hard| rlimit(&ProcessLimit { resource, soft, hard });
        let open = limit(LimitName::OpenFiles, Some(100), None).unwrap();
        assert_eq!(open, "--rlimit=NOFILE=100:infinity");
        assert_eq!(limit(LimitName::Nice, Some(1), Some(40)).unwrap(), "--rlimit=NICE=1:40");
        assert!(limit(LimitName::Nice, Some(0), Some(40)).is_err());
    }
}
