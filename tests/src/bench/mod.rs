//! How fast a task starts, against systemd-nspawn itself in the same run, and what it costs in
//! memory.
//!
//! Every figure is a wall-clock time on the machine at hand, so only ratios within one run mean
//! something. Pairs are interleaved, each side first in every other one: a slow moment hits both.
//! Before each start the host is left alone for a moment (`SETTLE`).

mod bare;
mod checks;
mod exec;
mod network;
mod ours;
mod report;

pub use checks::Checks;
pub use exec::{Exec, run as exec};
pub use network::{Network, Pair, run as network};
pub use report::{Crowd, Figures, Report, Starts, Statistics};

use crate::{Config, Rig, Suite, disks, images, outer, wait};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

/// Images that are measured: 2 MB and 255 MB.
pub const IMAGES: [&str; 2] = ["busybox", "debian"];
/// The large image as a disk image.
const DISK: &str = "/var/lib/machines/debian.raw";
/// The row of a task with a network of its own.
pub const NETWORK: &str = "network";
/// The row of a task whose network belongs to its container.
pub const OWN_NETWORK: &str = "own_network";
/// The policy of the measured host: the strict one, but for what that row needs.
const POLICY: &str = "[caps]\nallow = [\"net_admin\"]\n";
/// Other uses of the large image, measured against the same bare start of its tree; the disk image
/// against a bare `systemd-nspawn --image=`. What the job says is in JSON.
pub const MODES: [(&str, &str); 8] = [
    (NETWORK, r#"{ "image": "debian", "ephemeral": true, "private_network": false }"#),
    (
        OWN_NETWORK,
        r#"{ "image": "debian", "ephemeral": true, "private_network": false,
             "capability": ["net_admin"] }"#,
    ),
    ("read_only", r#"{ "image": "debian", "read_only": true }"#),
    ("tmpfs", r#"{ "image": "debian", "ephemeral": true, "ephemeral_mode": "tmpfs" }"#),
    ("yes", r#"{ "image": "debian", "volatile": "yes" }"#),
    ("state", r#"{ "image": "debian", "volatile": "state" }"#),
    ("overlay", r#"{ "image": "debian", "volatile": "overlay" }"#),
    ("raw", r#"{ "image": "/var/lib/machines/debian.raw", "ephemeral": true }"#),
];
/// Quiet time before each start. Moving a process into a cgroup waits for an RCU grace period (about
/// 10 ms), but not within some milliseconds of another move: without a pause, whoever starts right
/// after the other side's clean-up is spared that.
const SETTLE: Duration = Duration::from_millis(150);
/// Beyond this ratio a row gets twice as many pairs more, and all of them count: a noisy moment of
/// the machine is then the lesser part, and what is really slow stays so.
const DOUBTFUL: f64 = 0.7;
/// Tasks of a parallel start, and how often both sides start so many.
const PARALLEL: [(usize, usize); 2] = [(20, 5), (100, 3)];
/// Tasks at which memory is read.
const CROWDS: [usize; 3] = [0, 20, 100];
/// Tasks whose figures and checks are asked for.
pub const LARGE_CROWD: usize = 500;

/// Commands of each side at length.
pub const EXEC_PAIRS: usize = 100;

/// Runs everything.
///
/// # Errors
/// When the host does not come up or a task does not start.
pub fn run(suite: Suite, pairs: usize) -> Result<Report> {
    let (network, exec) = (network(suite)?, exec(suite, EXEC_PAIRS)?);
    let crowd = crowd(suite, LARGE_CROWD, true)?;
    Ok(Report { network, exec, crowd, ..starts(suite, pairs)? })
}

/// Starts, stops and memory.
///
/// # Errors
/// As [`run`].
pub fn starts(suite: Suite, pairs: usize) -> Result<Report> {
    let config = Config { agent: false, ..Config::new(suite) };
    let rig = Rig::up(&config)?;
    rig.set_policy(POLICY)?;
    rig.add_loop_nodes()?;
    let disk = disks::image("ext4", &format!("debian-{}", suite.name()), &images::debian(suite)?)?;
    rig.copy_in(&disk, DISK, 0o600)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&rig, pairs))?;
    rig.down()?;
    Ok(report)
}

/// What the figures of so many tasks cost, and with `checks` also their script checks.
///
/// # Errors
/// As [`run`].
pub fn crowd(suite: Suite, tasks: usize, checks: bool) -> Result<Crowd> {
    let rig = Rig::up(&Config { agent: false, ..Config::new(suite) })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async { ours::Ours::prepare(&rig).await?.crowd(tasks, checks).await };
    let crowd = runtime.block_on(asked)?;
    rig.down()?;
    Ok(crowd)
}

async fn measure(rig: &Rig, pairs: usize) -> Result<Report> {
    let mut report = Report::default();
    let bare = bare::Bare::prepare(rig).await?;
    let mut ours = ours::Ours::prepare(rig).await?;
    for image in IMAGES {
        let keys = json!({ "image": image, "ephemeral": true });
        report.starts.push(row(&bare, (image, image), &mut ours, &keys, pairs).await?);
    }
    for (mode, keys) in MODES {
        let keys = serde_json::from_str(keys)?;
        let image = if mode == "raw" { DISK } else { "debian" };
        report.starts.push(row(&bare, (mode, image), &mut ours, &keys, pairs).await?);
    }
    for (count, rounds) in PARALLEL {
        let mut times = Vec::new();
        for round in 0..rounds {
            times.push(if round.is_multiple_of(2) {
                let first = bare.start_many(count).await?;
                (first, ours.start_many(count).await?)
            } else {
                let first = ours.start_many(count).await?;
                (bare.start_many(count).await?, first)
            });
        }
        report.parallel.push(Starts::of(&format!("{count} at once"), &times));
    }
    let mut stops = Vec::new();
    for _ in 0..pairs {
        stops.push(ours.stop().await?);
    }
    report.stops = Figures::of(stops);
    ours.crowds(&CROWDS, &mut report.memory).await?;
    Ok(report)
}

/// The starts of one row, of this name and image.
async fn row(
    bare: &bare::Bare<'_>,
    (name, image): (&str, &str),
    ours: &mut ours::Ours<'_>,
    keys: &Value,
    pairs: usize,
) -> Result<Starts> {
    let mut times = pairs_of(bare, image, ours, keys, pairs).await?;
    let first = Starts::of(name, &times);
    if first.ratio <= DOUBTFUL {
        return Ok(first);
    }
    outer::tell(&format!("{name}: ratio {:.2}, measured on", first.ratio));
    times.extend(pairs_of(bare, image, ours, keys, 2 * pairs).await?);
    Ok(Starts::of(name, &times))
}

/// Pairs of starts: bare, ours.
async fn pairs_of(
    bare: &bare::Bare<'_>,
    image: &str,
    ours: &mut ours::Ours<'_>,
    keys: &Value,
    pairs: usize,
) -> Result<Vec<(Duration, Duration)>> {
    // One of each warms the caches.
    bare.start(image).await?;
    ours.start(keys).await?;
    let mut times = Vec::new();
    for pair in 0..pairs {
        times.push(if pair.is_multiple_of(2) {
            let first = bare.start(image).await?;
            (first, ours.start(keys).await?)
        } else {
            let first = ours.start(keys).await?;
            (bare.start(image).await?, first)
        });
    }
    Ok(times)
}

/// A FIFO of the host, opened so that it never signals its end.
fn open_fifo(rig: &Rig, path: &str) -> Result<File> {
    rig.open(path, OFlag::O_RDWR | OFlag::O_NONBLOCK, 0).with_context(|| path.to_owned())
}

/// Waits for the first byte, takes everything, and says when it came.
fn first_byte(fifo: &mut File) -> Result<Instant> {
    let mut wanted = [PollFd::new(fifo.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(20_000_u32).unwrap_or(PollTimeout::MAX);
    if poll(&mut wanted, limit)? == 0 {
        bail!("no byte within 20 s");
    }
    let came = Instant::now();
    let mut buffer = [0; 4096];
    while matches!(fifo.read(&mut buffer), Ok(1..)) {}
    Ok(came)
}

/// Resident memory of a process of the host, in KiB.
fn resident(rig: &Rig, pid: i32) -> Result<u64> {
    let status = rig.run(&["cat", &format!("/proc/{pid}/status")])?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    line.split_whitespace().next().context("VmRSS")?.parse().context("VmRSS")
}

/// Waits until no unit of a pattern is left.
fn wait_gone(rig: &Rig, pattern: &str) -> Result<()> {
    wait::until("units to go", Duration::from_secs(20), || {
        let list =
            rig.run(&["systemctl", "list-units", "--all", "--plain", "--no-legend", pattern])?;
        Ok(list.trim().is_empty().then_some(()))
    })
}
