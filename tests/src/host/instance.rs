//! What an instance is on the outer machine: its directory, its slot, its cgroup, and how to clean
//! up.
//!
//! For [`super::supervisor`], which owns one, and for the sweep of instances whose supervisor was
//! killed. Locks tell the living from the dead: a directory or slot whose lock can be taken belongs
//! to nobody. It never touches a directory or cgroup that is not the rig's own by name.

use crate::{cache, outer, rootfs::Suite, wait};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Everything the supervisor must know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Debian release.
    pub suite: Suite,
    /// Cached root file system, lower layer of the instance's root.
    pub rootfs: PathBuf,
    /// Cached busybox image.
    pub busybox: PathBuf,
    /// Cached Debian image.
    pub debian: PathBuf,
    /// Whether to copy the Debian image.
    pub own_debian: bool,
    /// Nomad binary on the outer machine.
    pub nomad: Option<PathBuf>,
}

/// What the supervisor says when PID 1 of the instance runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Directory of the instance on the outer machine.
    pub dir: PathBuf,
    /// Machine name; also names the link and the cgroup.
    pub machine: String,
    /// Process id of the supervisor.
    pub supervisor: i32,
    /// Process id of the instance's PID 1, on the outer machine.
    pub leader: i32,
    /// The instance's address on its link to the outer machine.
    pub address: String,
    /// Cgroup directory of the instance.
    pub cgroup: PathBuf,
    /// What its PID 1 sees as the root of the cgroup tree.
    pub tree: PathBuf,
}

impl Ready {
    /// File with what PID 1 wrote to its console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// Whether the supervisor still holds the directory's lock.
    #[must_use]
    pub fn alive(&self) -> bool {
        if self.leader == 1 {
            return true;
        }
        File::open(self.dir.join("lock")).is_ok_and(|file| file.try_lock().is_err())
    }

    /// Asks the supervisor to end, and waits for it.
    ///
    /// # Errors
    /// When it is still there after the limit.
    pub fn stop(&self) -> Result<()> {
        if self.leader == 1 {
            return Ok(());
        }
        if self.alive() {
            // It may have ended by itself since: then there is nobody to tell.
            kill(Pid::from_raw(self.supervisor), Signal::SIGTERM).ok();
        }
        wait::true_within(&format!("{} to go down", self.machine), Duration::from_secs(30), || {
            Ok(!self.alive())
        })
    }
}

/// The `rig` program: it is the supervisor too.
///
/// # Errors
/// When it was not built.
pub fn rig_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CARGO_BIN_EXE_rig") {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own
        .ancestors()
        .take(4)
        .map(|dir| if dir.ends_with("rig") { dir.to_path_buf() } else { dir.join("rig") })
        .find(|path| path.is_file());
    found.context("the rig program is missing: cargo build -p nspawn-tests --bin rig")
}

/// Where supervisors write what goes wrong after the start.
pub(crate) fn supervisor_log() -> Result<File> {
    let dir = cache::root()?.join("logs");
    fs::create_dir_all(&dir)?;
    let path = dir.join("supervisor.log");
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    file.with_context(|| format!("open {}", path.display()))
}

/// Directory of all instances.
pub(crate) fn instances() -> Result<PathBuf> {
    let dir = cache::root()?.join("instances");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Makes a directory for a new instance; its lock is held as long as the returned file is open.
pub(crate) fn new_directory() -> Result<(PathBuf, File)> {
    let _guard = cache::lock("instances")?;
    let dir = instances()?.join(format!("{}", std::process::id()));
    cache::remove(&dir)?;
    fs::create_dir(&dir)?;
    let lock = File::create(dir.join("lock"))?;
    lock.try_lock().context("lock of a new instance")?;
    Ok((dir, lock))
}

/// Removes the directories of instances whose supervisor is dead; their cgroups and links go when
/// their slot is taken again.
pub(crate) fn sweep() -> Result<()> {
    let _guard = cache::lock("instances")?;
    for entry in fs::read_dir(instances()?)? {
        let dir = entry?.path();
        let held = File::open(dir.join("lock")).is_ok_and(|file| file.try_lock().is_err());
        if !held {
            outer::say(&format!("removing what a dead run left: {}", dir.display()));
            cache::remove(&dir)?;
        }
    }
    Ok(())
}

/// A number that no other instance on this machine uses; names and addresses come from it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) number: u8,
    _lock: File,
}

impl Slot {
    /// Takes the first free slot and removes what an earlier owner may have left under its names.
    pub(crate) fn take() -> Result<Self> {
        let dir = Path::new("/run/nspawn-rig");
        fs::create_dir_all(dir)?;
        for number in 0..200 {
            let lock = File::create(dir.join(format!("slot-{number}")))?;
            if lock.try_lock().is_ok() {
                let slot = Self { number, _lock: lock };
                slot.clean()?;
                return Ok(slot);
            }
        }
        bail!("200 test hosts run on this machine: no slot is free");
    }

    pub(crate) fn machine(&self) -> String {
        format!("rig{}", self.number)
    }

    pub(crate) fn link(&self) -> String {
        format!("ve-{}", self.machine())
    }

    pub(crate) fn cgroup(&self) -> Result<PathBuf> {
        Ok(cgroup_base()?.join(format!("nspawn-{}", self.machine())))
    }

    /// Outer and inner address, of a network of four that no route of the machine names.
    pub(crate) fn addresses(&self) -> Result<(String, String)> {
        let routes = outer::run(Command::new("ip").args(["-4", "route", "show"]))?;
        let taken = |second: u8| {
            let prefix = format!("10.{second}.");
            routes.lines().any(|line| line.starts_with(&prefix) && !line.contains(" dev ve-rig"))
        };
        let second = (213..=223).find(|second| !taken(*second)).context("no free network")?;
        let net = format!("10.{second}.{}", self.number);
        Ok((format!("{net}.1"), format!("{net}.2")))
    }

    /// Kills what runs in the slot's cgroup and removes cgroup, link and nspawn's own directory.
    pub(crate) fn clean(&self) -> Result<()> {
        let cgroup = self.cgroup()?;
        if cgroup.exists() {
            fs::write(cgroup.join("cgroup.kill"), "1")
                .with_context(|| format!("kill {}", cgroup.display()))?;
            wait::true_within("the instance's processes to end", Duration::from_secs(20), || {
                Ok(remove_cgroup(&cgroup).is_ok())
            })?;
        }
        let link = self.link();
        if Path::new("/sys/class/net").join(&link).exists() {
            // It goes by itself a moment after its namespace: a failure here is no news.
            Command::new("ip").args(["link", "delete", &link]).output().ok();
        }
        let machine = self.machine();
        cache::remove(&Path::new("/run/systemd/nspawn/propagate").join(&machine))?;
        cache::remove(&Path::new("/run/systemd/nspawn/unix-export").join(&machine))
    }
}

/// Where the machine's cgroup v2 tree is.
fn cgroup_base() -> Result<PathBuf> {
    ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(PathBuf::from)
        .into_iter()
        .find(|dir| dir.join("cgroup.controllers").exists())
        .context("this machine mounts no cgroup v2 tree")
}

fn remove_cgroup(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    fs::remove_dir(dir)?;
    Ok(())
}

/// The cgroup v2 directory this process is in.
pub(crate) fn own_cgroup() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup v2")?;
    Ok(cgroup_base()?.join(path))
}
