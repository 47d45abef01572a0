//! The world check: what a host holds before a test must be what it holds after.
//!
//! For every end-to-end test. A [`World`] is a list of things by class; two are compared as sets,
//! so that something missing is found as well as something left. Taking one reads only, from
//! outside the instance wherever that is possible. It never cleans up what it finds.

mod collect;
mod traces;

pub use traces::{traces, wait_no_traces};

use crate::{Rig, wait};
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// How many descriptors more than before a long-lived process may hold. A library may open one for
/// good at its first use (a random source, a resolver); a leak per task shows with the first
/// handful of tasks.
pub const FD_SLACK: usize = 3;

/// How long what is taken apart in the background may take to be gone.
const SETTLE: Duration = Duration::from_secs(10);
/// Longest time in which the helper makes system call filters; a second is usual.
const FILL: Duration = Duration::from_secs(60);

/// One class of things a task may leave behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Mounts, in every mount namespace.
    Mount,
    /// Units of tasks, and every failed unit.
    Unit,
    /// Cgroups below the task slice and in the root of the tree.
    Cgroup,
    /// Files of transient units.
    Transient,
    /// nspawn's settings files and image locks.
    NspawnFile,
    /// Locks of uid ranges, held or stale.
    UidLock,
    /// What lies below /var/lib/nomad-nspawn and /run/nomad-nspawn.
    Staging,
    /// Network links of the host.
    Link,
    /// Network namespaces, by the processes or files that hold them.
    NetNamespace,
    /// Rules, elements and chains of nftables.
    Nft,
    /// Machines registered with machined.
    Machine,
    /// Processes of tasks, and strays of ours.
    Process,
    /// Descriptors PID 1 keeps for the helper.
    StoredFd,
    /// Open descriptors of helper and driver.
    OpenFd,
    /// Files and directories of the image store.
    Image,
}

/// What one host holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct World {
    sets: BTreeMap<Class, BTreeSet<String>>,
    counts: BTreeMap<(Class, String), usize>,
}

/// One difference between two worlds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Class of the thing.
    pub class: Class,
    /// Whether it is new (or gone).
    pub added: bool,
    /// The thing, in words.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.added { "left" } else { "gone" };
        write!(out, "{sign}: {:?}: {}", self.class, self.what)
    }
}

impl World {
    /// What `rig` holds now, or as soon as no system call filters are being made: that belongs to no
    /// task, and begins when the helper starts.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn snapshot(rig: &Rig) -> Result<Self> {
        let mut world = Self::default();
        wait::true_within("the helper's system call filters to be made", FILL, || {
            world = collect::all(rig).context("taking a snapshot of the host")?;
            Ok(!world.sets.values().flatten().any(|what| what.contains("nomad-nspawn-filters")))
        })?;
        Ok(world)
    }

    /// What differs between this world and a later one. Descriptors may grow by [`FD_SLACK`] and
    /// may become fewer.
    #[must_use]
    pub fn diff(&self, later: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        let none = BTreeSet::new();
        let classes: BTreeSet<Class> = self.sets.keys().chain(later.sets.keys()).copied().collect();
        for class in classes {
            let old = self.sets.get(&class).unwrap_or(&none);
            let new = later.sets.get(&class).unwrap_or(&none);
            let mut push = |added, what: &String| {
                found.push(Difference { class, added, what: what.clone() });
            };
            new.difference(old).for_each(|what| push(true, what));
            old.difference(new).for_each(|what| push(false, what));
        }
        for ((class, name), now) in &later.counts {
            // A process that was not there before has no past to compare with.
            let Some(before) = self.counts.get(&(*class, name.clone())) else { continue };
            let slack = if *class == Class::OpenFd { FD_SLACK } else { 0 };
            if *now > before + slack {
                let what = format!("{name}: {now} after, {before} before");
                found.push(Difference { class: *class, added: true, what });
            }
        }
        found
    }

    /// Waits until `rig` holds again what this world holds.
    ///
    /// # Errors
    /// When it does not within ten seconds; the message lists every difference.
    pub fn assert_same(&self, rig: &Rig) -> Result<()> {
        let mut last = Vec::new();
        let same = wait::true_within("the host to be as before", SETTLE, || {
            last = self.diff(&Self::snapshot(rig)?);
            if last.iter().any(|left| left.class == Class::NetNamespace) {
                rig.unmount_what_nomad_could_not()?;
            }
            Ok(last.is_empty())
        });
        if let Err(error) = same {
            let list: Vec<String> = last.iter().map(ToString::to_string).collect();
            bail!("{error:#}\n{}", list.join("\n"));
        }
        Ok(())
    }

    /// The things of one class, for tests that look closer.
    pub fn of(&self, class: Class) -> impl Iterator<Item = &str> {
        self.sets.get(&class).into_iter().flatten().map(String::as_str)
    }

    /// All things in words, a line each; without counts.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let all = self.sets.iter();
        all.flat_map(|(class, set)| set.iter().map(move |what| format!("{class:?}: {what}")))
            .collect()
    }

    fn add(&mut self, class: Class, what: impl Into<String>) {
        self.sets.entry(class).or_default().insert(what.into());
    }

    fn count(&mut self, class: Class, name: &str, number: usize) {
        self.counts.insert((class, name.to_owned()), number);
    }
}
