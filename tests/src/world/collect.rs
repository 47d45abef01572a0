//! Collecting what a host holds.
//!
//! For [`super::World`]. Processes are found by the instance's cgroup, files through the instance's
//! root; only PID 1, the kernel's network tables and machined are asked by commands inside. It
//! never reports what changes by itself on an idle host (services that start on demand).

use super::{Class, World};
use crate::{Rig, product};
use anyhow::{Context as _, Result};
use kernel::ended::ENDED;
use kernel::layout::FILTERS;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A process of the instance.
struct Process {
    pid: i32,
    /// Cgroup within the instance, without leading slash.
    cgroup: String,
}

/// Names that make something ours wherever it is seen.
const OURS: [&str; 2] = ["nspawn", "/var/lib/nomad/"];

pub(super) fn all(rig: &Rig) -> Result<World> {
    let mut world = World::default();
    let processes = processes(rig);
    namespaces(&mut world, &processes);
    strays(&mut world, &processes);
    cgroups(&mut world, rig);
    files(&mut world, rig)?;
    commands(&mut world, rig)?;
    Ok(world)
}

/// The payload part of the instance's cgroup: what its PID 1 sees as its root.
fn tree(rig: &Rig) -> PathBuf {
    rig.ready().tree.clone()
}

fn processes(rig: &Rig) -> Vec<Process> {
    let root = tree(rig);
    let mut list = Vec::new();
    walk(&root, &mut |dir| {
        // A cgroup may vanish while it is read.
        let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let cgroup = dir.strip_prefix(&root).unwrap_or(dir).to_string_lossy().into_owned();
        let pids = text.lines().filter_map(|pid| pid.parse().ok());
        list.extend(pids.map(|pid| Process { pid, cgroup: cgroup.clone() }));
    });
    list
}

/// Calls `visit` for a directory and all directories below it.
fn walk(dir: &Path, visit: &mut impl FnMut(&Path)) {
    visit(dir);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

/// The unit a cgroup belongs to; for tasks without what is below.
fn owner(cgroup: &str) -> String {
    let mut parts = cgroup.split('/');
    let unit = parts.clone().find(|part| part.ends_with(".service") || part.ends_with(".scope"));
    unit.or_else(|| parts.next_back()).unwrap_or_default().to_owned()
}

/// Services of the host that come and go by themselves; only what is ours counts in their
/// namespaces.
fn idle(owner: &str) -> bool {
    owner != "init.scope"
        && !OURS.iter().any(|word| owner.contains(word))
        && owner != "nomad.service"
}

fn namespaces(world: &mut World, processes: &[Process]) {
    let mut seen: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for process in processes {
        let owner = owner(&process.cgroup);
        for kind in ["mnt", "net"] {
            let Ok(id) = fs::read_link(format!("/proc/{}/ns/{kind}", process.pid)) else {
                continue;
            };
            let known = seen.entry(id).or_default();
            if known.insert(owner.clone()) && kind == "mnt" && known.len() == 1 {
                mounts(world, process.pid, &owner);
            }
        }
    }
    for (id, owners) in seen {
        if id.to_string_lossy().starts_with("net:") {
            let all: Vec<&str> = owners.iter().map(String::as_str).filter(|o| !idle(o)).collect();
            if !all.is_empty() {
                world.add(Class::NetNamespace, all.join(" "));
            }
        }
    }
}

fn mounts(world: &mut World, pid: i32, owner: &str) {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let tail = line.split_once(" - ").map_or("", |(_, tail)| tail);
        let (Some(root), Some(point)) = (fields.get(3), fields.get(4)) else { continue };
        // Made with the first named network namespace, and kept.
        if *point == "/run/netns" {
            continue;
        }
        let kind: Vec<&str> = tail.split(' ').take(2).collect();
        // PrivateTmp= has a random name in each life of a service.
        let root = if root.contains("/systemd-private-") { "private directory" } else { root };
        let what = format!("{point} from {root} {}", kind.join(" "));
        if kind.first() == Some(&"nsfs") {
            world.add(Class::NetNamespace, format!("file {point}"));
        }
        // The outer machine's directory of the instance is in the source of every mount.
        let named = OURS.iter().any(|word| point.contains(word));
        if !idle(owner) || named {
            world.add(Class::Mount, format!("{owner}: {what}"));
        }
    }
}

/// Processes of tasks, and programs of ours that run anywhere; counts of open descriptors.
fn strays(world: &mut World, processes: &[Process]) {
    for process in processes {
        let Ok(exe) = fs::read_link(format!("/proc/{}/exe", process.pid)) else { continue };
        let exe = exe.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        let owner = owner(&process.cgroup);
        let fds = || fs::read_dir(format!("/proc/{}/fd", process.pid)).map_or(0, Iterator::count);
        if exe == format!("{}/nomad-nspawn-helper", product::LIBEXEC) {
            world.count(Class::OpenFd, "helper", fds());
        } else if exe == product::PLUGIN {
            world.count(Class::OpenFd, "driver", fds());
            continue;
        }
        let ours = exe.contains("nspawn") && owner != "nomad-nspawn-helper.service";
        if ours || process.cgroup.contains("machine-nspawn.slice/") {
            world.add(Class::Process, format!("{owner}: {exe}"));
        }
    }
}

fn cgroups(world: &mut World, rig: &Rig) {
    let root = tree(rig);
    walk(&root, &mut |dir| {
        let path = dir.strip_prefix(&root).unwrap_or(dir).to_string_lossy().into_owned();
        let parts = path.split('/').count();
        // In the root of the tree every directory counts, except slices and mounts, which PID 1
        // makes when it first needs them.
        let top = parts == 1 && !path.ends_with(".slice") && !path.ends_with(".mount");
        // The slice of tasks that share CPUs stays, as the one above it does.
        let task = path.contains("machine-nspawn.slice/") && !path.ends_with("-share.slice");
        if top || task {
            world.add(Class::Cgroup, path);
        }
    });
}

fn files(world: &mut World, rig: &Rig) -> Result<()> {
    let root = PathBuf::from(format!("/proc/{}/root", rig.leader()));
    let mut list = |class: Class, dir: &str, depth: usize| {
        below(&root.join(dir), depth, &mut |path| {
            let name = path.strip_prefix(&root).unwrap_or(path);
            // The cache of system call filters belongs to no task, and the directory of what is kept
            // of ended tasks to none alone.
            let is_cache = name.starts_with(FILTERS.trim_start_matches('/'));
            if !is_cache && name != Path::new(ENDED.trim_start_matches('/')) {
                world.add(class, format!("/{}", name.display()));
            }
        });
    };
    list(Class::Transient, "run/systemd/transient", 2);
    list(Class::NspawnFile, "run/systemd/nspawn", 2);
    list(Class::NspawnFile, "etc/systemd/nspawn", 1);
    list(Class::Staging, "run/nomad-nspawn", 2);
    list(Class::Staging, "var/lib/nomad-nspawn", 2);
    list(Class::Image, "var/lib/machines", 1);
    list(Class::NetNamespace, "run/netns", 1);
    below(&root.join("run/systemd/nspawn-uid"), 1, &mut |path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let state = if held(rig, &name).unwrap_or(false) { "held" } else { "stale" };
        world.add(Class::UidLock, format!("{name} ({state})"));
    });
    Ok(())
}

/// Calls `visit` for all that lies in `dir`, `depth` levels deep; nothing there is fine.
fn below(dir: &Path, depth: usize, visit: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        visit(&entry.path());
        if depth > 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), depth - 1, visit);
        }
    }
}

/// Whether someone holds an open-file-description lock on a uid range's file.
fn held(rig: &Rig, name: &str) -> Result<bool> {
    let file = rig.open(&format!("/run/systemd/nspawn-uid/{name}"), OFlag::O_RDWR, 0)?;
    let mut lock = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK)?,
        l_whence: i16::try_from(nix::libc::SEEK_SET)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != nix::libc::F_UNLCK)
}

/// One shell for all commands: each costs a few milliseconds to enter.
const SCRIPT: &str = "\
echo '# unit'; systemctl list-units --all --plain --no-legend 'nomad-nspawn-*' 'machine-*' 'run-*.service'
echo '# failed'; systemctl list-units --failed --plain --no-legend
echo '# link'; ip -o link
echo '# nft'; nft -s list ruleset
echo '# machine'; machinectl list --no-legend
echo '# stored'; systemctl show -P NFileDescriptorStore nomad-nspawn-helper.service
";

fn commands(world: &mut World, rig: &Rig) -> Result<()> {
    let text = rig.sh(SCRIPT)?;
    let mut section = "";
    let mut nft = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            section = name;
            continue;
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        match section {
            "unit" => world.add(Class::Unit, unit_line(line)),
            "failed" => world.add(Class::Unit, format!("failed: {first}")),
            "link" => link_line(world, line),
            "nft" => nft.push(line),
            "machine" if !first.is_empty() => world.add(Class::Machine, first),
            "stored" => {
                let number = line.trim().parse().context("NFileDescriptorStore")?;
                world.count(Class::StoredFd, "helper", number);
            }
            _ => {}
        }
    }
    rules(world, &nft);
    Ok(())
}

/// Name, load state and active state; the sub state of a service changes by itself.
fn unit_line(line: &str) -> String {
    line.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// `nomad` is the bridge Nomad makes with the first group network and keeps.
fn link_line(world: &mut World, line: &str) {
    let name = line.split(": ").nth(1).unwrap_or(line);
    let name = name.split('@').next().unwrap_or(name);
    if name != "nomad" {
        world.add(Class::Link, name);
    }
}

/// Chains Nomad's CNI plugins make once and keep, with the rules that lead to them.
const KEPT: [&str; 6] = [
    "NOMAD-ADMIN",
    "CNI-ADMIN",
    "CNI-FORWARD",
    "CNI-HOSTPORT-DNAT",
    "CNI-HOSTPORT-MASQ",
    "CNI-HOSTPORT-SETMARK",
];

/// Every rule, element and named chain with its table and chain; empty base chains do not count.
fn rules(world: &mut World, lines: &[&str]) {
    let (mut table, mut chain) = (String::new(), String::new());
    for line in lines {
        let text = line.trim();
        let depth = line.len() - line.trim_start().len();
        if depth == 0 {
            table = text.trim_end_matches(" {").to_owned();
            chain.clear();
            // The tables of iptables-nft appear when the first CNI rule is made, and stay.
            if table.contains("nomad_nspawn") {
                world.add(Class::Nft, table.clone());
            }
        } else if depth == 1 && text.ends_with('{') {
            chain = text.trim_end_matches(" {").to_owned();
            let name = chain.strip_prefix("chain ").unwrap_or_default();
            let builtin = ["INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"];
            if !name.is_empty() && !builtin.contains(&name) && !KEPT.contains(&name) {
                world.add(Class::Nft, format!("{table}: {chain}"));
            }
        } else if !text.is_empty() && text != "}" && !text.starts_with("type ") {
            let kept = KEPT.iter().any(|name| {
                let inside = chain.ends_with(name);
                // This chain holds one rule for Nomad's bridge as a whole.
                let whole = *name == "NOMAD-ADMIN" || !of_a_task(text);
                text.ends_with(&format!("jump {name}")) || inside && whole
            });
            if !kept {
                world.add(Class::Nft, format!("{table}: {chain}: {text}"));
            }
        }
    }
}

/// Whether a rule names an address, a port or a comment: then it is one task's.
fn of_a_task(rule: &str) -> bool {
    ["addr", "dport", "comment"].iter().any(|word| rule.contains(word))
}
