//! What the kernel has counted of a task's memory, kept beyond the task's cgroup, which goes with its
//! last process.
//!
//! The unit's own clean-up writes it while the cgroup is still there; the daemon reads it for the
//! task's exit, and removes it with the task. The kernel's numbers alone are in it: a payload can
//! cause them, and write none of them.

use std::path::{Path, PathBuf};

use proto::unit_id::UnitId;

/// Directory of these files; root's, 0700.
pub const ENDED: &str = "/run/nomad-nspawn/ended";

/// The counts of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ended {
    /// Processes that the kernel has killed for want of memory (`oom_kill` of memory.events).
    pub oom_kills: u64,
    /// How often it has killed all of a cgroup (`oom_group_kill`, Linux 5.17).
    pub oom_group_kills: u64,
    /// Most memory at once, in bytes (memory.peak, Linux 5.19); 0 when unknown.
    pub peak: u64,
    /// The limit, in bytes; 0 without one.
    pub limit: u64,
}

impl Ended {
    /// From the files of the unit's cgroup (cgroup-v2.rst, "Memory Interface Files").
    #[must_use]
    pub fn of_cgroup(events: &str, peak: &str, limit: &str) -> Self {
        let event = |name: &str| {
            let fields = events.lines().filter_map(|line| line.split_once(' '));
            fields.filter(|(field, _)| *field == name).find_map(|(_, n)| number(n)).unwrap_or(0)
        };
        Self {
            oom_kills: event("oom_kill"),
            oom_group_kills: event("oom_group_kill"),
            peak: number(peak).unwrap_or(0),
            // `max` is none.
            limit: number(limit).unwrap_or(0),
        }
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { oom_kills, oom_group_kills, peak, limit } = self;
        format!("{oom_kills} {oom_group_kills} {peak} {limit}\n")
    }

    /// Reads the file's text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let numbers: Option<Vec<u64>> = text.split_whitespace().map(number).collect();
        let [oom_kills, oom_group_kills, peak, limit] = numbers?[..] else { return None };
        Some(Self { oom_kills, oom_group_kills, peak, limit })
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The file of a task.
#[must_use]
pub fn ended_file(unit: UnitId) -> PathBuf {
    Path::new(ENDED).join(unit.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d35_counts_are_read_from_the_cgroup_and_back() {
        let events = "low 0\nhigh 0\nmax 37\noom 2\noom_kill 1\noom_group_kill 0\n";
        let ended = Ended::of_cgroup(events, "67108864\n", "67108864\n");
        let expected = Ended { oom_kills: 1, oom_group_kills: 0, peak: 64 << 20, limit: 64 << 20 };
        assert_eq!(ended, expected);
        assert_eq!(Ended::parse(&ended.text()), Some(ended));
        // No limit, an older kernel.
        assert_eq!(Ended::of_cgroup("oom_kill 3\n", "", "max\n").limit, 0);
        for bad in ["", "1 2 3", "1 2 3 4 5", "1 2 3 x", "-1 0 0 0"] {
            assert_eq!(Ended::parse(bad), None, "{bad}");
        }
    }
}
