//! Checks of what this project installs, and of the Nomad agent that uses it.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::User;
use proto::limits::DISK_FIRST;

use super::check::Check;
use super::policy::is_compat;
use super::{POLICY, host_network, output, retire};
use policy::{self, Policy};

const ACCOUNT: &str = "nomad-nspawn";
const SOCKET: &str = "/run/nomad-nspawn/helper.sock";

/// All of them.
pub(super) fn all(agent_unit: &str, plugin: &str) -> Vec<Check> {
    let mut checks = vec![account(), programs(), socket(), service(), plugin_file(plugin)];
    match crate::load_policy(Path::new(POLICY)) {
        Err(reason) => {
            checks.push(Check::bad("policy", reason, format!("correct {POLICY}")));
            checks.push(agent(agent_unit, None));
        }
        Ok(policy) => {
            checks.push(preset(&policy));
            checks.push(agent(agent_unit, Some(&policy)));
            checks.push(store(&policy));
            checks.extend(allocations(&policy));
            checks.extend(host_network::all(&policy));
            checks.extend(older_driver());
        }
    }
    checks
}

/// Nothing to say on a node that never had the older driver, or whose machined cannot be asked:
/// that has a row of its own.
fn older_driver() -> Option<Check> {
    let running = retire::find().ok().filter(|found| !found.is_empty())?;
    let names: Vec<_> = running.iter().map(|machine| machine.name.as_str()).collect();
    let found = format!(
        "{} of its containers still run, and their tasks are not started: {}",
        names.len(),
        names.join(", ")
    );
    Some(Check::warning("older driver", found, "nomad-nspawnctl retire"))
}

fn account() -> Check {
    match User::from_name(ACCOUNT) {
        Ok(Some(user)) if !user.uid.is_root() => {
            Check::good("account", format!("{ACCOUNT}, uid {}", user.uid))
        }
        Ok(Some(_)) => Check::bad(
            "account",
            format!("{ACCOUNT} is root"),
            "remove that line of /etc/passwd, then systemd-sysusers",
        ),
        _ => Check::bad("account", format!("{ACCOUNT} is missing"), "systemd-sysusers"),
    }
}

/// Whether only root can change a file.
fn is_roots(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0
}

fn programs() -> Check {
    let name = "programs";
    for program in ["nomad-nspawn-helper", "nomad-nspawn-task"] {
        let path = Path::new("/usr/libexec/nomad-nspawn").join(program);
        let mend = format!("install {} again: root's, mode 0755", path.display());
        match fs::metadata(&path) {
            Ok(meta) if is_roots(&meta) && meta.mode() & 0o111 == 0o111 => {}
            Ok(_) => {
                let found = format!("{} is not root's alone, or no program", path.display());
                return Check::bad(name, found, mend);
            }
            Err(e) => return Check::bad(name, format!("{}: {e}", path.display()), mend),
        }
    }
    Check::good(name, "in /usr/libexec/nomad-nspawn")
}

fn socket() -> Check {
    let name = "socket";
    let mend = "systemctl enable --now nomad-nspawn-helper.socket";
    let meta = match fs::symlink_metadata(SOCKET) {
        Ok(meta) => meta,
        Err(e) => return Check::bad(name, format!("{SOCKET}: {e}"), mend),
    };
    let owner = User::from_name(ACCOUNT).ok().flatten().map(|user| user.uid.as_raw());
    let directory = fs::metadata("/run/nomad-nspawn").is_ok_and(|meta| is_roots(&meta));
    if !meta.file_type().is_socket() || !directory {
        return Check::bad(name, format!("{SOCKET} is no socket in a directory of root's"), mend);
    }
    if Some(meta.uid()) != owner || meta.mode() & 0o777 != 0o600 {
        let found = format!("{SOCKET} has owner {} and mode {:o}", meta.uid(), meta.mode() & 0o777);
        let mend = format!("SocketUser={ACCOUNT} and SocketMode=0600 in the socket unit; {mend}");
        return Check::bad(name, found, mend);
    }
    Check::good(name, SOCKET)
}

fn service() -> Check {
    let name = "helper";
    let unit = "nomad-nspawn-helper.service";
    match output("systemctl", &["is-active", unit]) {
        Ok(state) => Check::good(name, state),
        Err(_) => Check::bad(
            name,
            format!("{unit} does not run"),
            format!("systemctl enable --now {unit}; journalctl -u {unit}"),
        ),
    }
}

fn plugin_file(plugin: &str) -> Check {
    let name = "plugin";
    let path = Path::new(plugin);
    let mend = "install nomad-driver-nspawn as `nspawn` in the agent's plugin_dir, root's, mode \
                0755; --plugin names another place";
    match fs::metadata(path) {
        Ok(_) if path.file_name().is_none_or(|file| file != "nspawn") => {
            Check::bad(name, format!("{plugin}: Nomad wants the file to be named nspawn"), mend)
        }
        Ok(meta) if !is_roots(&meta) => {
            Check::bad(name, format!("{plugin} can be changed by others than root"), mend)
        }
        Ok(_) => Check::good(name, plugin),
        Err(e) => Check::bad(name, format!("{plugin}: {e}"), mend),
    }
}

fn preset(policy: &Policy) -> Check {
    if is_compat(policy) {
        return Check::warning(
            "policy",
            "preset compat: whoever may submit jobs is root on this host",
            "use preset = \"strict\" and list what jobs need",
        );
    }
    Check::good("policy", "valid, strict")
}

/// Mounts that the agent makes, as for secrets, must reach the host's mount namespace.
fn agent(unit: &str, policy: Option<&Policy>) -> Check {
    let name = "agent";
    let pid = output("systemctl", &["show", "--property=MainPID", "--value", unit]);
    let Some(pid) = pid.ok().and_then(|pid| pid.parse::<u32>().ok()).filter(|pid| *pid != 0) else {
        return Check::warning(
            name,
            format!("{unit} does not run: its mount namespace and uid were not looked at"),
            "start it, or name its unit with --agent-unit",
        );
    };
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt"));
    match (namespace(&pid.to_string()), namespace("1")) {
        (Ok(theirs), Ok(hosts)) if theirs == hosts => {}
        (Ok(_), Ok(_)) => {
            return Check::bad(
                name,
                format!("{unit} runs in a private mount namespace: tasks would see empty secrets"),
                format!(
                    "take PrivateTmp=, ProtectHome=, ProtectSystem=, PrivateMounts= and the like \
                     out of {unit}, then systemctl daemon-reload and restart it"
                ),
            );
        }
        (Err(e), _) | (_, Err(e)) => {
            return Check::warning(name, format!("/proc/{pid}/ns/mnt: {e}"), "run as root");
        }
    }
    let uid = fs::metadata(format!("/proc/{pid}")).map(|meta| meta.uid()).unwrap_or_default();
    match policy.map(|policy| policy.nomad.agent_uid) {
        Some(expected) if expected != uid => Check::bad(
            name,
            format!("{unit} runs as uid {uid}, the policy expects {expected}"),
            format!("agent_uid = {uid} in [nomad] of {POLICY}"),
        ),
        _ => Check::good(name, format!("{unit}, uid {uid}, in the host's mount namespace")),
    }
}

fn store(policy: &Policy) -> Check {
    let path = policy.images.store.0.to_path();
    match fs::metadata(&path) {
        Ok(meta) if meta.uid() == 0 && meta.mode() & 0o077 == 0 => {
            Check::good("image store", path.display().to_string())
        }
        Ok(_) => Check::warning(
            "image store",
            format!(
                "{} is open to others: set-uid files of images are host root's",
                path.display()
            ),
            format!("chmod 0700 {}", path.display()),
        ),
        Err(e) => Check::warning(
            "image store",
            format!("{}: {e}", path.display()),
            format!("mkdir -m 0700 {}", path.display()),
        ),
    }
}

/// Who owns files of tasks on disk, and what that costs.
fn allocations_in(directory: &Path) -> Check {
    let name = "allocations";
    let path = directory.display();
    let both = launcher::can_be_mapped(directory)
        .and_then(|mapped| Ok((mapped, kernel::open::is_directory_protected(directory)?)));
    match both {
        Ok((true, true)) => Check::good(name, path.to_string()),
        Ok((true, false)) => Check::warning(
            name,
            format!(
                "{path} is neither nosuid nor below a closed directory of root's: files of tasks \
                 belong to uids from {DISK_FIRST} on disk; files that Nomad writes for them show as \
                 nobody's, and those with mode 0600 cannot be read"
            ),
            "mount it nosuid,nodev before Nomad starts \
             (example/systemd/var-lib-nomad-alloc.mount.example)",
        ),
        Ok((false, _)) => Check::warning(
            name,
            format!(
                "this kernel cannot ID-map the file system of {path}: files of tasks belong to the \
                 uid range of their allocation, so the next allocation of a sticky or migrated \
                 ephemeral_disk cannot read those with mode 0600"
            ),
            "move the agent's alloc_dir to a local file system, such as ext4 or xfs",
        ),
        Err(e) => Check::warning(name, format!("{path}: {e}"), "run as root"),
    }
}

fn allocations(policy: &Policy) -> Vec<Check> {
    let name = "allocations";
    let mut checks = Vec::new();
    for directory in policy.nomad.alloc_dirs.iter() {
        let path = directory.to_path();
        if !path.is_dir() {
            continue;
        }
        checks.push(allocations_in(&path));
    }
    if checks.is_empty() {
        checks.push(Check::warning(
            name,
            "none of [nomad] alloc_dirs of the policy file exists",
            "list the agent's alloc_dir there (default: its data_dir with /alloc)",
        ));
    }
    checks
}
