//! Races for every place where the launcher opens something that others may swap.
//!
//! A thread exchanges a directory or file for a link to a twin outside, back and forth without end,
//! while the product's own function opens it. What is opened may be inside or refused, never the
//! twin. Two naive ways of opening run against the same thread: if neither ever ends outside, the
//! harness does not race and its zero means nothing.
//!
//! Needs root: everything is in a file system in memory, in a mount namespace of its own.

mod sites;

pub(crate) use sites::plan;

use crate::wait::Stop;
use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, open, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, fstat};
use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Device and inode.
type Identity = (u64, u64);

/// Where somebody's opening has ended.
enum End {
    /// In the task's own tree.
    Inside,
    /// In the twin: an escape.
    Outside,
    /// Nowhere.
    Refused,
}

/// The product's own function: identities of what it has opened.
type Product = Box<dyn Fn() -> Result<Vec<Identity>, String>>;

/// One place that the launcher opens.
struct Site {
    name: &'static str,
    /// What is opened, and how a naive program would open it.
    path: PathBuf,
    flags: OFlag,
    /// What is swapped for a link, one after another.
    swaps: Vec<PathBuf>,
    /// The product's own function: identities of what it has opened.
    product: Product,
}

/// Tries and escapes of one way to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Arm {
    /// How often it was tried.
    pub tries: u64,
    /// How often it was refused: the link was seen.
    pub refused: u64,
    /// How often it has ended outside.
    pub escapes: u64,
}

/// What came of one site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The site.
    pub site: &'static str,
    /// How often the link was put there meanwhile.
    pub swaps: u64,
    /// The product.
    pub product: Arm,
    /// `O_NOFOLLOW`, which is about the last component alone.
    pub no_follow: Arm,
    /// A look at every component, then the opening.
    pub check_first: Arm,
}

impl Arm {
    fn add(&mut self, more: Self) {
        self.tries += more.tries;
        self.refused += more.refused;
        self.escapes += more.escapes;
    }
}

impl Figures {
    /// Adds another run's.
    pub fn add(&mut self, more: &Self) {
        self.swaps += more.swaps;
        self.product.add(more.product);
        self.no_follow.add(more.no_follow);
        self.check_first.add(more.check_first);
    }

    /// Escapes of the naive arms.
    #[must_use]
    pub fn control(&self) -> u64 {
        self.no_follow.escapes + self.check_first.escapes
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} outside, {} refused", self.escapes, self.tries, self.refused)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; O_NOFOLLOW {}; check first {}; {} swaps",
            self.site, self.product, self.no_follow, self.check_first, self.swaps
        )
    }
}

/// Races every site `tries` times; the naive arms until one escapes, a tenth of that at least.
///
/// # Errors
/// Without root, or when the product opens nothing even while nobody swaps.
pub fn run(tries: u64) -> Result<Vec<Figures>> {
    let base = std::env::temp_dir().join(format!("nspawn-race-{}", std::process::id()));
    fs::create_dir(&base).with_context(|| base.display().to_string())?;
    let thread = std::thread::spawn({
        let base = base.clone();
        move || race_all(&base, tries)
    });
    let result = thread.join().map_err(|_| anyhow::anyhow!("the race panicked"));
    fs::remove_dir(&base)?;
    result?
}

fn race_all(base: &Path, tries: u64) -> Result<Vec<Figures>> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)?;
    mount(Some("tmpfs"), base, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))?;
    let twins = ["host", "outside"].map(|name| sites::tree(&base.join(name)));
    for twin in twins {
        twin?;
    }
    let mut outside = HashSet::new();
    identities(&base.join("outside"), &mut outside)?;
    fs::create_dir(base.join("links"))?;
    sites::all(&base.join("host"))?.iter().map(|site| race(site, base, &outside, tries)).collect()
}

fn identities(directory: &Path, all: &mut HashSet<Identity>) -> Result<()> {
    let meta = fs::symlink_metadata(directory)?;
    all.insert((meta.dev(), meta.ino()));
    if meta.is_dir() {
        for entry in fs::read_dir(directory)? {
            identities(&entry?.path(), all)?;
        }
    }
    Ok(())
}

/// Device and inode of a descriptor.
fn identity(of: impl AsFd) -> Result<Identity, String> {
    let stat = fstat(of).map_err(|e| e.to_string())?;
    Ok((stat.st_dev, stat.st_ino))
}

fn race(site: &Site, base: &Path, outside: &HashSet<Identity>, tries: u64) -> Result<Figures> {
    (site.product)().map_err(|why| anyhow::anyhow!("{} at rest: {why}", site.name))?;
    let mut pairs = Vec::new();
    for (number, path) in site.swaps.iter().enumerate() {
        let link = base.join(format!("links/{}-{number}", site.name.replace(' ', "-")));
        symlink(base.join("outside").join(path.strip_prefix(base.join("host"))?), &link)?;
        pairs.push((path.as_path(), link));
    }
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let swapper = scope.spawn(|| swap_until(&pairs, &stop, &swaps));
        let end = Stop(&stop);
        let ended = |opened: Result<Vec<Identity>, String>| match opened {
            Ok(all) if all.iter().any(|one| outside.contains(one)) => End::Outside,
            Ok(_) => End::Inside,
            Err(_) => End::Refused,
        };
        let product = arm(tries, || ended((site.product)()));
        let naive = |open: fn(&Site) -> Result<Identity, String>| {
            arm(tries.div_ceil(10), || ended(open(site).map(|one| vec![one])))
        };
        let (mut no_follow_arm, mut check_first_arm) = (naive(no_follow), naive(check_first));
        // A loaded machine may need longer to lose.
        while no_follow_arm.escapes + check_first_arm.escapes == 0
            && check_first_arm.tries < tries.saturating_mul(10)
        {
            no_follow_arm.add(naive(no_follow));
            check_first_arm.add(naive(check_first));
        }
        drop(end);
        swapper.join().map_err(|_| anyhow::anyhow!("the swapping thread panicked"))??;
        let swaps = swaps.load(Ordering::Relaxed);
        ensure!(swaps > 0, "{}: nothing was swapped", site.name);
        Ok(Figures {
            site: site.name,
            swaps,
            product,
            no_follow: no_follow_arm,
            check_first: check_first_arm,
        })
    })
}

fn arm(tries: u64, attempt: impl Fn() -> End) -> Arm {
    let mut arm = Arm { tries, ..Arm::default() };
    for _ in 0..tries {
        match attempt() {
            End::Inside => {}
            End::Outside => arm.escapes += 1,
            End::Refused => arm.refused += 1,
        }
    }
    arm
}

/// Puts each link in its place and takes it out again, until it is told to stop.
fn swap_until(pairs: &[(&Path, PathBuf)], stop: &AtomicBool, swaps: &AtomicU64) -> Result<()> {
    let exchange = |one: &Path, other: &Path| {
        renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
    };
    while !stop.load(Ordering::Relaxed) {
        for (path, link) in pairs {
            exchange(path, link).with_context(|| path.display().to_string())?;
            exchange(path, link).with_context(|| path.display().to_string())?;
            swaps.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The first naive arm: the last component may be no link.
fn no_follow(site: &Site) -> Result<Identity, String> {
    let flags = site.flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = open(&site.path, flags, Mode::empty()).map_err(|e| e.to_string())?;
    identity(&opened)
}

/// The second naive arm: no component is a link now, so it is opened.
fn check_first(site: &Site) -> Result<Identity, String> {
    for part in site.path.ancestors() {
        let meta = fs::symlink_metadata(part).map_err(|e| e.to_string())?;
        if meta.is_symlink() {
            return Err("a link".to_owned());
        }
    }
    let opened = open(&site.path, site.flags | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|e| e.to_string())?;
    identity(&opened)
}
