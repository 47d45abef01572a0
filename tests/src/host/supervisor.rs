//! The supervisor: a process of its own that owns one instance and ends with it.
//!
//! It makes the instance's mounts in a mount namespace of its own, boots it, and takes it down when
//! its owner ends in whatever way (end of file on standard input), when it gets SIGTERM, or when
//! the instance powers off. Killed itself, its guard takes the instance along; the directory that
//! is left then the next start sweeps away, the empty cgroup the slot's next owner. It never mounts
//! anything where the outer machine could see it.

use super::instance::{self, Ready, Slot, Spec};
use crate::{cache, outer, rootfs, wait};
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Directories that must not lie on the overlay (one cannot be the upper layer of another, nor be
/// ID-mapped): directory of the instance, path inside, mode.
const REAL: [(&str, &str, u32); 4] = [
    ("machines", "/var/lib/machines", 0o700),
    ("nomad", "/var/lib/nomad", 0o700),
    ("nomad-nspawn", "/var/lib/nomad-nspawn", 0o700),
    ("opt", "/opt/nomad", 0o755),
];

/// What the owner writes when the instance shall outlive it.
pub const KEEP: &[u8] = b"keep\n";

/// Runs one instance to its end; says on standard output, in one line, how the start went.
///
/// # Errors
/// When the start or the clean-up fails.
pub fn main(spec: &str) -> Result<()> {
    let spec: Spec = serde_json::from_str(spec).context("the supervisor's argument")?;
    // Ctrl-C is for the owner; this process hears of it by the end of file on standard input.
    nix::unistd::setsid().context("setsid")?;
    let (dir, _lock) = instance::new_directory()?;
    let slot = Slot::take()?;
    let result = live(&spec, &dir, &slot);
    let cleaned = clean(&dir, &slot);
    if let Err(error) = &result {
        answer::<Ready>(&Err(format!("{error:#}")));
    }
    result.and(cleaned)
}

fn live(spec: &Spec, dir: &Path, slot: &Slot) -> Result<()> {
    let signals = block_signals()?;
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context("make all mounts private")?;
    let root = make_root(spec, dir, slot)?;
    let mut nspawn = start(spec, dir, slot, &root)?;
    let mut guard = guard(&slot.cgroup()?)?;
    let done = run(dir, slot, &signals, &mut nspawn);
    guard.kill().ok();
    guard.wait()?;
    done
}

fn run(dir: &Path, slot: &Slot, signals: &SignalFd, nspawn: &mut Child) -> Result<()> {
    let pid = i32::try_from(nspawn.id())?;
    let leader = wait::until("PID 1 of the instance", Duration::from_secs(30), || {
        if let Some(status) = nspawn.try_wait()? {
            let log = outer::tail(&dir.join("console.log"), 20);
            anyhow::bail!("systemd-nspawn ended at once: {status}\n{log}");
        }
        Ok(find_leader(pid))
    })?;
    let address = connect(slot, leader)?;
    answer(&Ok(Ready {
        dir: dir.to_path_buf(),
        machine: slot.machine(),
        supervisor: i32::try_from(std::process::id())?,
        leader,
        address,
        tree: slot.cgroup()?.join("payload"),
        cgroup: slot.cgroup()?,
    }));
    watch(signals, nspawn)
}

/// A process that kills the instance when this one has died, however: the instance's PID 1 does not
/// die with nspawn. It opens the file first, so that it can never mean a later cgroup of that name.
fn guard(cgroup: &Path) -> Result<Child> {
    Command::new("sh")
        .args(["-c", "exec 3>\"$0\"; read line; echo 1 >&3"])
        .arg(cgroup.join("cgroup.kill"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the guard")
}

/// One line for the owner. An owner that is gone is noticed by [`watch`].
pub(crate) fn answer<T: serde::Serialize>(answer: &Result<T, String>) {
    if let Ok(line) = serde_json::to_string(answer) {
        let mut out = std::io::stdout();
        writeln!(out, "{line}").and_then(|()| out.flush()).ok();
    }
}

pub(crate) fn block_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?)
}

/// Waits for a reason to end: the owner's end, a signal, or the end of the instance.
pub(crate) fn watch(signals: &SignalFd, nspawn: &mut Child) -> Result<()> {
    let mut stdin = std::io::stdin();
    let mut owned = true;
    loop {
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if owned {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let ready = |n: usize| fds.get(n).and_then(PollFd::any).unwrap_or(false);
        let (signalled, spoken) = (ready(0), ready(1));
        if spoken {
            let mut word = [0; KEEP.len()];
            match stdin.read(&mut word)? {
                n if word.get(..n) == Some(KEEP) => owned = false,
                _ => return Ok(()),
            }
        }
        if signalled && let Some(signal) = signals.read_signal()? {
            let child = signal.ssi_signo == Signal::SIGCHLD as u32;
            if !child || nspawn.try_wait()?.is_some() {
                return Ok(());
            }
        }
    }
}

fn make_root(spec: &Spec, dir: &Path, slot: &Slot) -> Result<PathBuf> {
    for sub in ["upper", "work", "root"] {
        fs::create_dir(dir.join(sub))?;
    }
    // The upper's mode becomes the mode of / inside.
    fs::set_permissions(dir.join("upper"), fs::Permissions::from_mode(0o755))?;
    let root = dir.join("root");
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        spec.rootfs.display(),
        dir.join("upper").display(),
        dir.join("work").display()
    );
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .with_context(|| format!("mount the root overlay ({options})"))?;
    rootfs::dress(&root)?;
    fs::write(root.join("etc/machine-id"), machine_id()?)?;
    fs::write(root.join("etc/hostname"), format!("{}\n", slot.machine()))?;
    builtin_bridge(&root)?;
    for (sub, _, mode) in REAL {
        let path = dir.join("data").join(sub);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let machines = dir.join("data/machines");
    copy(&spec.busybox, &machines.join("busybox"))?;
    if spec.own_debian {
        copy(&spec.debian, &machines.join("debian"))?;
    } else {
        fs::create_dir(machines.join("debian"))?;
    }
    fs::create_dir(dir.join("data/opt/plugins"))?;
    Ok(root)
}

fn machine_id() -> Result<String> {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Ok(format!("{}\n", uuid.trim().replace('-', "")))
}

/// Nomad offers bridge networks only when it finds the bridge module, which a kernel that has it
/// built in lists in a file that the instance does not have.
fn builtin_bridge(root: &Path) -> Result<()> {
    let release = nix::sys::utsname::uname()?.release().to_string_lossy().into_owned();
    let dir = root.join("usr/lib/modules").join(release);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("modules.builtin"), "kernel/net/bridge/bridge.ko\n")?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    outer::run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to)).map(drop)
}

/// Starts nspawn in a cgroup of the instance's own (two instances in one tree would share their
/// unit cgroups) and comes back to the cgroup this process was in.
fn start(spec: &Spec, dir: &Path, slot: &Slot, root: &Path) -> Result<Child> {
    let cgroup = slot.cgroup()?;
    fs::create_dir_all(&cgroup).with_context(|| format!("make {}", cgroup.display()))?;
    let home = instance::own_cgroup()?;
    let console = fs::File::create(dir.join("console.log"))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "systemd-nspawn", "--quiet", "--boot", "--register=no"])
        .args(["--keep-unit", "--capability=all", "--system-call-filter=@known"])
        .args(["--console=pipe", "--network-veth", "--resolv-conf=off", "--timezone=off"])
        .args(["--link-journal=no", "--kill-signal=SIGKILL"])
        .arg(format!("--machine={}", slot.machine()))
        .arg(format!("--directory={}", root.display()))
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        // A host is under no system call filters: below them nobody can read those of others.
        .env("SYSTEMD_SECCOMP", "0")
        .stdin(Stdio::null())
        .stdout(console.try_clone()?)
        .stderr(console);
    for (sub, path, _) in REAL {
        command.arg(format!("--bind={}:{path}", dir.join("data").join(sub).display()));
    }
    if !spec.own_debian {
        command.arg(format!("--bind-ro={}:/var/lib/machines/debian", spec.debian.display()));
    }
    if let Some(nomad) = &spec.nomad {
        command.arg(format!("--bind-ro={}:/usr/local/bin/nomad", nomad.display()));
    }
    fs::write(cgroup.join("cgroup.procs"), "0").context("enter the instance's cgroup")?;
    let child = command.spawn().context("cannot start setpriv systemd-nspawn");
    fs::write(home.join("cgroup.procs"), "0").context("leave the instance's cgroup")?;
    child
}

/// The child of nspawn that is process 1 of its namespace and no longer runs nspawn.
fn find_leader(nspawn: i32) -> Option<i32> {
    let list = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    list.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).find(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let first = status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"));
        first && status.starts_with("Name:\tsystemd\n")
    })
}

/// Gives both ends of the link an address. There is no route further than the other end.
fn connect(slot: &Slot, leader: i32) -> Result<String> {
    let (outside, inside) = slot.addresses()?;
    let link = slot.link();
    let netns = format!("--net=/proc/{leader}/ns/net");
    let ip = |words: &[&str]| outer::run(Command::new("ip").args(words));
    let ip_inside = |words: &[&str]| outer::run(Command::new("nsenter").args(words));
    ip(&["address", "add", &format!("{outside}/30"), "dev", &link])?;
    ip(&["link", "set", &link, "up"])?;
    let inner = format!("{inside}/30");
    ip_inside(&[&netns, "ip", "address", "add", &inner, "dev", "host0"])?;
    ip_inside(&[&netns, "ip", "link", "set", "host0", "up"])?;
    Ok(inside)
}

fn clean(dir: &Path, slot: &Slot) -> Result<()> {
    slot.clean()?;
    let root = dir.join("root");
    // Not mounted when the start failed early.
    umount2(&root, MntFlags::MNT_DETACH).ok();
    fs::remove_dir(&root).ok();
    // The lock file last: as long as it is there and locked, others know that someone is at work.
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.ends_with("lock") {
            cache::remove(&path)?;
        }
    }
    cache::remove(dir)
}
