//! The figures, for people and for programs.

use super::{Checks, Exec, Network};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// Median, least and greatest of a series, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// How many.
    pub count: usize,
}

impl Figures {
    /// Of a series of times.
    #[must_use]
    pub fn of(times: Vec<Duration>) -> Self {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
        let median = median(&mut ms);
        let (min, max) = (ms.first().copied(), ms.last().copied());
        let (min, max) = (min.unwrap_or_default(), max.unwrap_or_default());
        Self { median, min, max, count: ms.len() }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "median_ms": self.median, "min_ms": self.min, "max_ms": self.max, "count": self.count })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "median {:7.1}  min {:7.1}  max {:7.1}  ({})",
            self.median, self.min, self.max, self.count
        )
    }
}

/// Sorts, and gives the median.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or_default();
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(at(middle.saturating_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

/// The time that so many percent of a series do not exceed, in milliseconds.
pub(super) fn percentile(times: &[Duration], percent: usize) -> f64 {
    let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    let rank = (ms.len() * percent).div_ceil(100).saturating_sub(1);
    ms.get(rank).copied().unwrap_or_default()
}

/// Starts of one image, from the call to the first byte.
#[derive(Debug, Default)]
pub struct Starts {
    /// The image.
    pub image: String,
    /// systemd-nspawn alone.
    pub bare: Figures,
    /// This driver.
    pub ours: Figures,
    /// Ratio of the medians, ours to bare.
    pub ratio: f64,
    /// Median of each pair's own ratio: slow phases of the machine cancel out.
    pub pair_ratio: f64,
}

impl Starts {
    /// Of pairs: bare, ours.
    #[must_use]
    pub fn of(image: &str, times: &[(Duration, Duration)]) -> Self {
        let bare = Figures::of(times.iter().map(|pair| pair.0).collect());
        let ours = Figures::of(times.iter().map(|pair| pair.1).collect());
        let pair = |(bare, ours): &(Duration, Duration)| ours.as_secs_f64() / bare.as_secs_f64();
        let mut pairs: Vec<f64> = times.iter().map(pair).collect();
        Self {
            image: image.to_owned(),
            bare,
            ours,
            ratio: ours.median / bare.median,
            pair_ratio: median(&mut pairs),
        }
    }

    fn json(&self) -> Value {
        json!({
            "image": self.image,
            "bare": self.bare.json(),
            "ours": self.ours.json(),
            "ratio": self.ratio,
            "pair_ratio": self.pair_ratio,
        })
    }
}

/// What it costs that Nomad asks for the figures of idle tasks each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Tasks.
    pub tasks: usize,
    /// Percent of one core that the driver takes.
    pub driver: f64,
    /// The same of PID 1, with and without.
    pub pid1: [f64; 2],
    /// Samples that came each second, of all tasks.
    pub samples: f64,
}

impl Statistics {
    fn json(&self) -> Value {
        json!({
            "tasks": self.tasks, "driver_percent": self.driver, "pid1_percent": self.pid1,
            "samples_per_s": self.samples,
        })
    }
}

/// What a further task costs beside so many that run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Beside {
    /// Tasks that run.
    pub tasks: usize,
    /// From the call to the first byte, in milliseconds: the median.
    pub start_ms: f64,
    /// Resident memory of the driver in KiB.
    pub driver: u64,
    /// The same of the helper.
    pub helper: u64,
}

/// What is asked of many tasks that run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crowd {
    /// A start and memory, with more and more of them.
    pub beside: Vec<Beside>,
    /// Their figures.
    pub statistics: Statistics,
    /// Their script checks.
    pub checks: Checks,
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics { tasks, driver, pid1: [with, without], samples } = self.statistics;
        for Beside { tasks, start_ms, driver, helper } in &self.beside {
            writeln!(f, "beside {tasks} tasks: start {start_ms:.1} ms")?;
            writeln!(f, "  resident: driver {driver} KiB, helper {helper} KiB")?;
        }
        writeln!(f, "figures of {tasks} idle tasks each second, percent of a core")?;
        writeln!(f, "  driver {driver:.2}; PID 1 {with:.2}, without {without:.2}")?;
        writeln!(f, "  {samples:.0} samples a second")?;
        if self.checks.asked > 0 { write!(f, "{}", self.checks) } else { Ok(()) }
    }
}

/// Everything of one run.
#[derive(Debug, Default)]
pub struct Report {
    /// Starts one at a time.
    pub starts: Vec<Starts>,
    /// Parallel starts, each row from the first call to the last first byte.
    pub parallel: Vec<Starts>,
    /// `StopTask` of a command that ends at once, with its removal.
    pub stops: Figures,
    /// Tasks, resident memory of driver and helper in KiB.
    pub memory: Vec<(usize, u64, u64)>,
    /// What figures and checks of many tasks cost.
    pub crowd: Crowd,
    /// Commands in running tasks.
    pub exec: Exec,
    /// What networks cost.
    pub network: Network,
}

impl Report {
    /// Ratio of medians, ours to bare, of an image.
    #[must_use]
    pub fn ratio(&self, image: &str) -> Option<f64> {
        self.starts.iter().find(|starts| starts.image == image).map(|starts| starts.ratio)
    }

    /// KiB that driver and helper together grow by for each task.
    #[must_use]
    pub fn growth_per_task(&self) -> Option<f64> {
        let (first, last) = (self.memory.first()?, self.memory.last()?);
        let grown = (last.1 + last.2).saturating_sub(first.1 + first.2);
        let tasks = u32::try_from(last.0.saturating_sub(first.0)).ok()?;
        Some(f64::from(u32::try_from(grown).ok()?) / f64::from(tasks.max(1)))
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let starts: Vec<Value> = self.starts.iter().map(Starts::json).collect();
        let parallel: Vec<Value> = self.parallel.iter().map(Starts::json).collect();
        let memory: Vec<Value> = self
            .memory
            .iter()
            .map(|(tasks, driver, helper)| json!({ "tasks": tasks, "driver_kib": driver, "helper_kib": helper }))
            .collect();
        json!({
            "start": starts,
            "parallel": parallel,
            "stop": self.stops.json(),
            "memory": memory,
            "statistics": self.crowd.statistics.json(),
            "checks": self.crowd.checks.json(),
            "exec": self.exec.json(),
            "network": self.network.json(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "start, call to first byte, ms; of many at once to the last one's")?;
        for Starts { image, bare, ours, ratio, pair_ratio } in
            self.starts.iter().chain(&self.parallel)
        {
            writeln!(f, "  {image:8} bare nspawn  {bare}")?;
            writeln!(f, "  {image:8} this driver  {ours}")?;
            writeln!(f, "  {image:8} ratio        {ratio:.2}, by pairs {pair_ratio:.2}")?;
        }
        writeln!(f, "stop and removal, ms\n  {}", self.stops)?;
        writeln!(f, "resident memory, KiB")?;
        for (tasks, driver, helper) in &self.memory {
            writeln!(f, "  {tasks:3} tasks: driver {driver}, helper {helper}")?;
        }
        writeln!(f, "  growth for a task: {:.1}", self.growth_per_task().unwrap_or_default())?;
        write!(f, "{}{}{}", self.crowd, self.exec, self.network)
    }
}
