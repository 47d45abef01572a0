//! Checks of the host: systemd, kernel, control groups.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use launcher::CachedFilters;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use proto::systemd;

use super::check::Check;
use super::output;
use kernel::syscalls;

/// All of them.
pub(super) fn all() -> Vec<Check> {
    let mut checks = vec![root(), systemd_version(), nspawn(), filters(), filter_cache()];
    checks.extend(kernel());
    checks.extend([openat2_works(), overlay(), cgroups(), controllers(), machined()]);
    checks
}

fn root() -> Check {
    if nix::unistd::geteuid().is_root() {
        return Check::good("user", "root");
    }
    Check::warning("user", "not root: some checks cannot look", "run it with sudo")
}

fn systemd_version() -> Check {
    let name = "systemd";
    let version = match super::systemd_version() {
        Ok(version) => version,
        Err(e) => return Check::bad(name, e, "PID 1 must be systemd"),
    };
    let accepted = crate::load_policy(Path::new(super::POLICY)).is_ok_and(|p| p.accepts(&version));
    match systemd::unfit(&version) {
        None => Check::good(name, version),
        Some(reason) if accepted => Check::warning(
            name,
            format!("{version} {reason}; accepted by [systemd] accept of the policy file"),
            "",
        ),
        Some(reason) => Check::bad(
            name,
            format!("{version} {reason}"),
            format!(
                "update systemd and restart the host, or, when your distribution has the fix \
                 under this number, add \"{version}\" to [systemd] accept in {}",
                super::POLICY
            ),
        ),
    }
}

fn nspawn() -> Check {
    match kernel::layout::nspawn_binary() {
        Some(path) => Check::good("systemd-nspawn", path.display().to_string()),
        None => Check::bad("systemd-nspawn", "not installed", "apt install systemd-container"),
    }
}

/// Without either, systemd-nspawn starts payloads without system call filters.
fn filters() -> Check {
    let name = "system call filters";
    if !syscalls::can_load(syscalls::LIBSECCOMP) {
        let found = "libseccomp.so.2 cannot be loaded: no task is started without";
        return Check::bad(name, found, "apt install libseccomp2");
    }
    let Some(nspawn) = kernel::layout::nspawn_binary() else {
        return Check::bad(name, "no systemd-nspawn", "apt install systemd-container");
    };
    match output(&nspawn.display().to_string(), &["--version"]) {
        Ok(version) if version.split_whitespace().any(|feature| feature == "+SECCOMP") => {}
        Ok(_) => {
            let found = "systemd-nspawn is built without them (no +SECCOMP in its --version)";
            return Check::bad(name, found, "a systemd that is built with seccomp");
        }
        Err(e) => return Check::bad(name, e, "apt install --reinstall systemd-container"),
    }
    Check::good(name, "systemd-nspawn has them, libseccomp.so.2 can be loaded")
}

/// Without it a start takes twice as long.
fn filter_cache() -> Check {
    let name = "cache of system call filters";
    if super::load_policy(Path::new(super::POLICY)).is_ok_and(|policy| !policy.seccomp.cache) {
        return Check::good(name, "switched off ([seccomp] cache of the policy file)");
    }
    match launcher::cached_filters() {
        Ok(mut all) => {
            all.retain(|entry| entry.is_current);
            match all.first() {
                None => Check::warning(
                    name,
                    "holds no filters of the systemd-nspawn that is installed: it makes them at each \
                     start",
                    "journalctl -u nomad-nspawn-helper -u nomad-nspawn-filters has the reason",
                ),
                Some(CachedFilters { is_tested: false, version, .. }) => Check::good(
                    name,
                    format!(
                        "not used for starts: they have not been tried with systemd-nspawn {version} \
                         on this architecture"
                    ),
                ),
                Some(_) => {
                    let current = all.len();
                    let found = format!("{current} sets of filters; starts take half the time");
                    Check::good(name, found)
                }
            }
        }
        Err(error) => Check::warning(name, error.to_string(), "run doctor as root"),
    }
}

/// What depends on the kernel's version, with the version that brings it.
fn kernel() -> Vec<Check> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.trim().split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let at_least = |wanted| version >= wanted;
    let mut checks = vec![if at_least((6, 1)) {
        Check::good("kernel", release.trim())
    } else {
        Check::bad(
            "kernel",
            format!("{} is too old; nothing before 6.1 was ever tried", release.trim()),
            "Linux 6.1 or later",
        )
    }];
    if !at_least((6, 3)) {
        checks.push(Check::warning(
            "kernel, tmpfs",
            "cannot ID-map a tmpfs: files in /secrets that are not readable by everybody cannot be \
             read inside",
            "Linux 6.3 or later",
        ));
    }
    if !at_least((6, 15)) {
        checks.push(Check::warning(
            "kernel, exit status",
            "does not tell the exact exit status of a process: payload code 133 and death by a \
             signal are reported as 1",
            "Linux 6.15 or later",
        ));
    }
    checks
}

/// A policy of the host may forbid the call although the kernel has it.
fn openat2_works() -> Check {
    let name = "openat2";
    let works = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).and_then(|root| {
        let how = OpenHow::new().flags(OFlag::O_PATH).resolve(ResolveFlag::RESOLVE_BENEATH);
        openat2(root.as_fd(), "etc", how)
    });
    match works {
        Ok(_) => Check::good(name, "works"),
        Err(e) => Check::bad(
            name,
            format!("{e}"),
            "Linux 5.6 or later, and no seccomp filter that answers it with ENOSYS",
        ),
    }
}

fn overlay() -> Check {
    let name = "overlayfs";
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if known.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay") {
        return Check::good(name, "known to the kernel");
    }
    match output("modinfo", &["overlay"]) {
        Ok(_) => Check::good(name, "a module, which the kernel loads at the first start"),
        Err(e) => Check::bad(name, e, "a kernel with CONFIG_OVERLAY_FS"),
    }
}

fn cgroups() -> Check {
    match statfs("/sys/fs/cgroup").map(|found| found.filesystem_type()) {
        Ok(CGROUP2_SUPER_MAGIC) => Check::good("control groups", "version 2"),
        Ok(_) => Check::bad(
            "control groups",
            "version 1 or hybrid: limits and statistics of tasks do not work",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Err(e) => Check::bad("control groups", format!("/sys/fs/cgroup: {e}"), "mount it"),
    }
}

fn controllers() -> Check {
    let name = "controllers";
    let have = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let missing: Vec<&str> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !have.split_whitespace().any(|name| name == *wanted))
        .collect();
    if missing.is_empty() {
        return Check::good(name, have.trim());
    }
    Check::warning(
        name,
        format!("{} missing: these limits of a job have no effect", missing.join(", ")),
        "boot with cgroup_enable=memory, or enable them in the kernel",
    )
}

fn machined() -> Check {
    let name = "systemd-machined";
    match output("systemctl", &["cat", "systemd-machined.service"]) {
        Ok(_) => Check::good(name, "installed"),
        Err(_) => Check::warning(
            name,
            "missing: machinectl will not show tasks",
            "apt install systemd-container",
        ),
    }
}
