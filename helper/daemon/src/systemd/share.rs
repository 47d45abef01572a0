//! The CPUs of tasks that have none of their own: those that Nomad reserves for no task.
//!
//! Nomad writes them into a file of its own cgroup, and PID 1 is asked to give the slice of such tasks the
//! same: one call for all of them at each change. The kernel reports changes of the file (inotify(7)), and
//! now and then it is read without one.
//!
//! Trusts that file as far as a set of CPUs goes: what is not one changes nothing. Without it (an agent
//! that manages no cgroups, or has not begun yet) the tasks may use every CPU.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use proto::cpu_set::CpuSet;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::net::unix::pipe;
use zbus::Variant;

use crate::context::Context;
use crate::systemd::bus::{Bus, MANAGER};
use crate::systemd::units::transient::SHARE_SLICE;

/// Every CPU that there is.
const ALL: &str = "/sys/fs/cgroup/cpuset.cpus.effective";
/// Time after which the file is read without a report.
const REPEAT: Duration = Duration::from_secs(30);
/// Nomad writes several times for one change.
const SETTLE: Duration = Duration::from_millis(50);

/// Follows the file for good.
pub(crate) async fn follow(context: Rc<Context>) {
    loop {
        let parent = &context.policy().nomad.cgroup_parent.0.0;
        let file = PathBuf::from(format!("/sys/fs/cgroup{parent}/share.slice/cpuset.cpus"));
        // Before it is read: what is written in between is reported.
        let watch = watch(&file);
        match read(&file) {
            Ok(cpus) => {
                if let Err(error) = set(&context.bus, &cpus).await {
                    tracing::warn!(error, "CPUs of tasks that reserve none are not up to date");
                }
            }
            Err(error) => tracing::warn!(error, file = %file.display(), "no set of CPUs"),
        }
        let changed = async {
            match &watch {
                Ok(watch) => drop(watch.readable().await),
                Err(_) => std::future::pending().await,
            }
        };
        if tokio::time::timeout(REPEAT, changed).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

/// Ready to be read, as a pipe would be, when the file has been written.
fn watch(file: &Path) -> io::Result<pipe::Receiver> {
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    inotify::add_watch(&watch, file, WatchFlags::MODIFY)?;
    pipe::Receiver::from_owned_fd_unchecked(watch)
}

/// The CPUs; a missing or empty file means all of them, as the kernel has it.
fn read(file: &Path) -> Result<CpuSet, String> {
    match fs::read_to_string(file) {
        Ok(text) => CpuSet::parse(&text).ok_or_else(|| format!("{text:?} is not a list of CPUs")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(CpuSet::default()),
        Err(error) => Err(error.to_string()),
    }
}

/// Gives the slice these CPUs, when it has others.
async fn set(bus: &Bus, cpus: &CpuSet) -> Result<(), String> {
    let now: Vec<u8> = bus
        .property(SHARE_SLICE, "Slice", "AllowedCPUs")
        .await
        .map_err(|e: zbus::Error| e.to_string())?;
    // PID 1 leaves the kernel's set as it is when it is given an empty one (systemd 257).
    let is_taken_back = is_same(cpus.mask(), &[]) && !is_same(&now, &[]);
    let cpus = &if is_taken_back { read(Path::new(ALL))? } else { cpus.clone() };
    if is_same(&now, cpus.mask()) {
        return Ok(());
    }
    let properties = vec![("AllowedCPUs", Variant::from(cpus.mask().to_vec()))];
    let body = (SHARE_SLICE, true, properties);
    bus.call(MANAGER, "SetUnitProperties", &body).await.map_err(|e| e.to_string())?;
    tracing::info!(mask = ?cpus.mask(), "CPUs of tasks that reserve none");
    Ok(())
}

/// Whether two masks are the same set: PID 1 may fill up with zeros.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let at = |mask: &[u8], n: usize| mask.get(n).copied().unwrap_or(0);
    (0..one.len().max(other.len())).all(|n| at(one, n) == at(other, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d53_a_missing_file_means_every_cpu_and_a_wrong_one_changes_nothing() {
        let file = std::env::temp_dir().join(format!("nspawn-share-{}", std::process::id()));
        assert_eq!(read(&file), Ok(CpuSet::default()));
        for (text, cpus) in [("\n", CpuSet::parse("")), ("0-2,5\n", CpuSet::parse("0-2,5"))] {
            fs::write(&file, text).unwrap();
            assert_eq!(read(&file).ok(), cpus, "{text:?}");
        }
        fs::write(&file, "all\n").unwrap();
        assert!(read(&file).is_err());
        fs::remove_file(&file).unwrap();
        assert!(is_same(&[1, 0, 0], &[1]) && is_same(&[], &[0]) && !is_same(&[1], &[1, 1]));
    }

    #[tokio::test]
    async fn a_write_is_reported() {
        let file = std::env::temp_dir().join(format!("nspawn-watch-{}", std::process::id()));
        assert!(watch(&file).is_err());
        fs::write(&file, "0").unwrap();
        let watch = watch(&file).unwrap();
        fs::write(&file, "1").unwrap();
        let reported = tokio::time::timeout(Duration::from_secs(5), watch.readable()).await;
        assert!(reported.unwrap().is_ok());
        fs::remove_file(&file).unwrap();
    }
}
