//! What a task uses, from its unit's cgroup (version 2).
//!
//! Read as any local user could. Files that are missing (no controller, an older kernel, the
//! first version of cgroups) leave their numbers unlisted, so that Nomad shows them as absent and
//! not as zero.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use nomad_proto::base::ClientTopology;
use nomad_proto::drivers::{
    CpuUsage, MemoryUsage, TaskResourceUsage, TaskStats, cpu_usage, memory_usage,
};

use crate::events::{now_ms, timestamp};
use crate::node::cgroup;

/// The node's computing power.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Compute {
    cores: f64,
    mhz: f64,
}

impl Compute {
    /// From the agent's topology; `None` when it lists no cores.
    pub(crate) fn of_topology(topology: &ClientTopology) -> Option<Self> {
        let cores = u32::try_from(topology.cores.len()).ok().filter(|n| *n > 0)?;
        let sum: u64 = topology
            .cores
            .iter()
            .map(|core| match (core.base_speed, core.max_speed) {
                (0, 0) => core.guess_speed,
                (0, max) => max,
                (base, _) => base,
            })
            .fold(0, u64::saturating_add);
        let mhz = match topology.override_total_compute {
            0 => sum,
            total => total,
        };
        Some(Self {
            cores: f64::from(cores),
            mhz: f64::from(u32::try_from(mhz).unwrap_or(u32::MAX)),
        })
    }

    /// Cores of the node.
    pub(crate) fn cores(&self) -> f64 {
        self.cores
    }

    /// From the kernel, for agents that send no topology.
    pub(crate) fn of_host() -> Self {
        let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let speeds: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("cpu MHz"))
            .filter_map(|line| line.split_once(':')?.1.trim().parse().ok())
            .collect();
        let cores = std::thread::available_parallelism()
            .ok()
            .and_then(|n| u32::try_from(n.get()).ok())
            .unwrap_or(1);
        Self {
            cores: f64::from(cores.max(u32::try_from(speeds.len()).unwrap_or(1))),
            mhz: speeds.iter().sum(),
        }
    }
}

/// What is read of cpu.stat (cgroup-v2.rst), in microseconds but for the number of periods.
const CPU_STAT: [&str; 5] =
    ["usage_usec", "user_usec", "system_usec", "nr_throttled", "throttled_usec"];
/// What is read of memory.stat, in bytes; `kernel` is of Linux 5.18.
const MEMORY_STAT: [&str; 3] = ["anon", "file", "kernel"];

/// Processor time used so far, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Times {
    at: Instant,
    total: u64,
    user: u64,
    system: u64,
}

/// Takes samples of one task.
#[derive(Debug)]
pub(crate) struct Sampler {
    directory: Option<PathBuf>,
    compute: Compute,
    before: Option<Times>,
}

impl Sampler {
    /// Without a control group, of which there is nothing to read.
    pub(crate) fn new(compute: Compute) -> Self {
        Self { directory: None, compute, before: None }
    }

    /// Whether there is nothing to read yet.
    pub(crate) fn is_blind(&self) -> bool {
        self.directory.is_none()
    }

    /// For the unit with this control group, if it has one.
    pub(crate) fn find(&mut self, control_group: Option<&str>) {
        self.directory = control_group.and_then(cgroup::directory);
    }

    /// One sample now. All parts that Nomad needs are there, whatever could be read.
    pub(crate) fn sample(&mut self, id: &str) -> TaskStats {
        let read = |name: &str| {
            let directory = self.directory.as_ref()?;
            std::fs::read_to_string(directory.join(name)).ok()
        };
        let memory = memory(
            cgroup::fields(&read("memory.stat").unwrap_or_default(), MEMORY_STAT),
            number(read("memory.current")),
            number(read("memory.swap.current")),
            number(read("memory.peak")),
        );
        let times = cgroup::fields(&read("cpu.stat").unwrap_or_default(), CPU_STAT);
        TaskStats {
            id: id.to_owned(),
            timestamp: Some(timestamp(now_ms())),
            agg_resource_usage: Some(TaskResourceUsage {
                cpu: Some(self.cpu(times, Instant::now())),
                memory: Some(memory),
            }),
            resource_usage_by_pid: HashMap::new(),
        }
    }

    fn cpu(&mut self, stat: [Option<u64>; 5], at: Instant) -> CpuUsage {
        use cpu_usage::Fields;
        let nanos = |usec: Option<u64>| usec.map(|usec| usec.saturating_mul(1000));
        let [total, user, system, throttled, throttled_time] = stat;
        let Some(total) = nanos(total) else {
            return CpuUsage::default();
        };
        let now = Times {
            at,
            total,
            user: nanos(user).unwrap_or_default(),
            system: nanos(system).unwrap_or_default(),
        };
        let before = self.before.replace(now);
        let percent = |part: fn(&Times) -> u64| before.map_or(0.0, |b| rate(&b, &now, part));
        let mut measured = vec![Fields::SystemMode, Fields::UserMode, Fields::Percent];
        // Only with the cpu controller.
        if throttled.is_some() {
            measured.extend([Fields::ThrottledPeriods, Fields::ThrottledTime]);
        }
        let total = percent(|t| t.total);
        CpuUsage {
            system_mode: percent(|t| t.system),
            user_mode: percent(|t| t.user),
            percent: total,
            total_ticks: total / 100.0 * self.compute.mhz / self.compute.cores,
            throttled_periods: throttled.unwrap_or_default(),
            throttled_time: nanos(throttled_time).unwrap_or_default(),
            measured_fields: measured.into_iter().map(Into::into).collect(),
        }
    }
}

/// Percent of one core between two samples; 0 when nothing was used before or time stood still.
fn rate(before: &Times, now: &Times, part: fn(&Times) -> u64) -> f64 {
    let wall = now.at.saturating_duration_since(before.at).as_secs_f64();
    let (old, new) = (part(before), part(now));
    if old == 0 || new <= old || wall <= 0.0 {
        return 0.0;
    }
    std::time::Duration::from_nanos(new - old).as_secs_f64() / wall * 100.0
}

fn memory(
    [rss, cache, kernel]: [Option<u64>; 3],
    usage: Option<u64>,
    swap: Option<u64>,
    peak: Option<u64>,
) -> MemoryUsage {
    use memory_usage::Fields;
    let measured = [
        (rss, Fields::Rss),
        (cache, Fields::Cache),
        (swap, Fields::Swap),
        (usage, Fields::Usage),
        (peak, Fields::MaxUsage),
        (kernel, Fields::KernelUsage),
    ];
    MemoryUsage {
        rss: rss.unwrap_or_default(),
        cache: cache.unwrap_or_default(),
        swap: swap.unwrap_or_default(),
        usage: usage.unwrap_or_default(),
        max_usage: peak.unwrap_or_default(),
        kernel_usage: kernel.unwrap_or_default(),
        measured_fields: measured
            .into_iter()
            .filter(|(value, _)| value.is_some())
            .map(|(_, field)| field.into())
            .collect(),
        ..MemoryUsage::default()
    }
}

fn number(text: Option<String>) -> Option<u64> {
    text?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nomad_proto::base::ClientTopologyCore;
    use std::time::Duration;

    fn stat(usage: u64, user: u64, system: u64) -> [Option<u64>; 5] {
        let text = format!(
            "usage_usec {usage}\nuser_usec {user}\nsystem_usec {system}\ncore_sched.force_idle 1\n\
             nr_throttled 3\nthrottled_usec 5\n"
        );
        cgroup::fields(&text, CPU_STAT)
    }

    #[test]
    fn percents_follow_nomads_formula() {
        let compute = Compute { cores: 4.0, mhz: 8000.0 };
        let mut sampler = Sampler::new(compute);
        let start = Instant::now();
        let first = sampler.cpu(stat(1_000_000, 600_000, 400_000), start);
        assert_eq!((first.percent, first.total_ticks), (0.0, 0.0));
        let second =
            sampler.cpu(stat(2_000_000, 1_350_000, 650_000), start + Duration::from_secs(2));
        assert!((second.percent - 50.0).abs() < 1e-9);
        assert!((second.user_mode - 37.5).abs() < 1e-9);
        assert!((second.system_mode - 12.5).abs() < 1e-9);
        assert!((second.total_ticks - 1000.0).abs() < 1e-9);
        assert_eq!((second.throttled_periods, second.throttled_time), (3, 5000));
        assert_eq!(second.measured_fields.len(), 5);
        // Time that stands still or runs backwards must not divide by zero.
        let third = sampler.cpu(stat(1, 1, 1), start);
        assert_eq!(third.percent, 0.0);
    }

    #[test]
    fn without_a_cgroup_nothing_is_measured() {
        let stats = Sampler::new(Compute::of_host()).sample("x");
        assert!(stats.timestamp.is_some());
        let usage = stats.agg_resource_usage.unwrap();
        assert!(usage.cpu.unwrap().measured_fields.is_empty());
        assert!(usage.memory.unwrap().measured_fields.is_empty());
    }

    /// A cgroup with the files of its controllers alone.
    fn of_files(files: &[(&str, &str)]) -> TaskResourceUsage {
        let number = std::process::id();
        let name = format!("nspawn-usage-{number}-{}", files.len());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        for (file, text) in files {
            std::fs::write(directory.join(file), text).unwrap();
        }
        let mut sampler = Sampler::new(Compute::of_host());
        sampler.directory = Some(directory.clone());
        let usage = sampler.sample("x").agg_resource_usage.unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        usage
    }

    #[test]
    fn d41_every_field_is_the_kernels() {
        use memory_usage::Fields::{Cache, KernelUsage, MaxUsage, Rss, Swap, Usage};
        let memory = of_files(&[
            ("memory.stat", "anon 10\nfile 20\nkernel 5\nkernel_stack 3\nbad line\n"),
            ("memory.current", "40\n"),
            ("memory.swap.current", "7\n"),
            ("memory.peak", "90\n"),
        ])
        .memory
        .unwrap();
        assert_eq!((memory.rss, memory.cache, memory.kernel_usage), (10, 20, 5));
        assert_eq!((memory.usage, memory.swap, memory.max_usage), (40, 7, 90));
        let all = [Rss, Cache, Swap, Usage, MaxUsage, KernelUsage].map(i32::from);
        assert_eq!(memory.measured_fields, all);
    }

    #[test]
    fn d41_a_value_without_its_controller_is_absent() {
        let usage = of_files(&[("cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\n")]);
        assert_eq!(usage.memory.unwrap(), MemoryUsage::default());
        assert_eq!(usage.cpu.unwrap().measured_fields.len(), 3);
        // An older kernel has neither peak nor the kernel's part.
        let old = of_files(&[("memory.stat", "anon 1\nfile 2\n"), ("memory.current", "4\n")]);
        assert_eq!(old.memory.unwrap().measured_fields.len(), 3);
    }

    #[test]
    fn a_path_never_leaves_the_cgroup_tree() {
        let mut sampler = Sampler::new(Compute::of_host());
        sampler.find(Some("/../../etc"));
        assert!(sampler.is_blind());
        sampler.find(Some("/a.slice/b.service"));
        assert_eq!(sampler.directory, Some(PathBuf::from("/sys/fs/cgroup/a.slice/b.service")));
    }

    #[test]
    fn the_agents_topology_counts_every_core() {
        let core = |base_speed, max_speed, guess_speed| ClientTopologyCore {
            base_speed,
            max_speed,
            guess_speed,
            disable: true,
            ..ClientTopologyCore::default()
        };
        let mut topology = ClientTopology {
            cores: vec![core(1000, 9, 9), core(0, 2000, 9), core(0, 0, 3000)],
            ..ClientTopology::default()
        };
        let compute = Compute::of_topology(&topology).unwrap();
        assert_eq!((compute.cores, compute.mhz), (3.0, 6000.0));
        topology.override_total_compute = 500;
        assert_eq!(Compute::of_topology(&topology).unwrap().mhz, 500.0);
        assert_eq!(Compute::of_topology(&ClientTopology::default()), None);
    }
}
