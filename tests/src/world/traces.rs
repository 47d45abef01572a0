//! What a host holds of one allocation.
//!
//! For everything in this crate that removes a task: tests that share a host cannot compare the
//! whole world while others run. Cheap enough to be asked after each task: it reads directories and
//! a mount table, and runs nothing.

use crate::wait;
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Directories of the instance in which a task's things bear its allocation's name.
const DIRECTORIES: [&str; 10] = [
    "run/systemd/transient",
    "run/systemd/machines",
    "run/systemd/nspawn",
    "run/nomad-nspawn",
    "run/nomad-nspawn/stage",
    "run/nomad-nspawn/hosts",
    "run/nomad-nspawn/ended",
    "var/lib/nomad-nspawn",
    "sys/fs/cgroup/machine.slice/machine-nspawn.slice",
    "sys/fs/cgroup/machine.slice/machine-nspawn.slice/machine-nspawn-share.slice",
];

/// A run that nobody was told of goes when the helper has missed its allocation's directory twice,
/// and layers that were kept for an allocation go no sooner.
const LIMIT: Duration = Duration::from_secs(60);

/// Units, cgroups, machines, directories and mounts that name the allocation.
#[must_use]
pub fn traces(leader: i32, alloc: &str) -> Vec<String> {
    let ids = [alloc.to_owned(), alloc.replace('-', "")];
    let names = |text: &str| ids.iter().any(|id| text.contains(id.as_str()));
    let root = format!("/proc/{leader}/root");
    let mut found = Vec::new();
    for directory in DIRECTORIES {
        let entries =
            fs::read_dir(Path::new(&root).join(directory)).into_iter().flatten().flatten();
        let entries = entries.map(|entry| format!("/{directory}/{}", entry.file_name().display()));
        found.extend(entries.filter(|path| names(path)));
    }
    let mounts = fs::read_to_string(format!("/proc/{leader}/mountinfo")).unwrap_or_default();
    // A group's network namespace is the agent's.
    let ours = |line: &&str| names(line) && !line.contains("/run/netns/");
    found.extend(mounts.lines().filter(ours).map(str::to_owned));
    found
}

/// Waits until a removed allocation has left nothing.
///
/// # Errors
/// What is left after a minute.
pub fn wait_no_traces(leader: i32, alloc: &str) -> Result<()> {
    let mut left = Vec::new();
    let gone = wait::true_within(&format!("nothing to be left of {alloc}"), LIMIT, || {
        left = traces(leader, alloc);
        // What is kept for the allocation is swept with others later; a test of its own waits.
        left.retain(|path| !path.contains("/kept-"));
        Ok(left.is_empty())
    });
    if let Err(error) = gone {
        bail!("{error:#}:\n{}", left.join("\n"));
    }
    Ok(())
}
