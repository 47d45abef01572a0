//! Limits of the task's unit, what becomes of it when memory runs out, and which addresses it reaches.
//!
//! Numbers alone: which property of the unit each becomes is the helper's to say. Nothing here is
//! checked but its form; ranges and the policy's ceilings are the policy's to judge.

use std::net::IpAddr;

use bincode::{Decode, Encode};

use crate::cpu_set::CpuSet;
use crate::limits;
use crate::name::{Checked, is_made_of, require, text_name};
use crate::path::Absolute;

/// Limits of the unit. `None`: no limit of that kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Resources {
    /// MemoryMax= in bytes.
    pub memory_max: Option<u64>,
    /// MemoryLow= in bytes.
    pub memory_low: Option<u64>,
    /// MemorySwapMax=.
    pub swap: Swap,
    /// CPUWeight=, 1 to 10,000.
    pub cpu_weight: Option<u64>,
    /// How many times that weight the task has until it is ready, 60 s at the most: 2 to 100.
    pub cpu_boost: Option<u8>,
    /// CPUQuotaPerSecUSec=: microseconds of CPU time a second.
    pub cpu_quota_us: Option<u64>,
    /// AllowedCPUs=; `None`: those that Nomad reserves for no task.
    pub cores: Option<CpuSet>,
    /// Processes and threads of the payload.
    pub tasks_max: Option<u64>,
    /// IOWeight=, 1 to 10,000.
    pub io_weight: Option<u64>,
    /// How readily the kernel kills the task when the host's memory runs out, -1,000 to 1,000.
    pub oom_score: i16,
    /// What ends when the task's own memory runs out.
    pub oom: OomScope,
    /// Slice=; `None`: the helper's own.
    pub slice: Option<SliceName>,
    /// Further properties of the unit.
    pub properties: Vec<Property>,
    /// The only addresses that the task exchanges packets with, beside its own loopback; `None`: all.
    pub egress: Option<Vec<AddressRange>>,
}

/// How much of its memory a task may have in swap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum Swap {
    /// Nothing: a task with a limit would have twice as much otherwise, and be slow before it is
    /// killed.
    #[default]
    None,
    /// So many bytes.
    Bytes(u64),
    /// As much as the host has.
    Unlimited,
}

impl Swap {
    /// In bytes; the largest number for no limit, as PID 1 takes it.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes,
            Self::Unlimited => u64::MAX,
        }
    }
}

/// What ends when a process of a task is killed because the task's memory has run out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
pub enum OomScope {
    /// That process.
    #[default]
    Process,
    /// The whole task.
    Task,
}

fn check_slice(text: &str) -> Checked {
    let rule = "a slice's name (systemd.slice(5)): letters, digits, _ . and single dashes, at most \
                255 bytes, with .slice at its end";
    let name = text.strip_suffix(".slice").unwrap_or_default();
    require(text.len() <= limits::VALUE_MAX && !name.is_empty(), rule)?;
    require(is_made_of(name, "_.-"), rule)?;
    require(name.split('-').all(|part| !part.is_empty()), rule)
}

text_name!(
    /// A slice of PID 1; never the root slice.
    SliceName, "slice", check_slice
);

/// A limit of accesses to a block device (systemd.resource-control(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum IoLimit {
    /// Bytes read a second.
    ReadBandwidth,
    /// Bytes written a second.
    WriteBandwidth,
    /// Reads a second.
    ReadOperations,
    /// Writes a second.
    WriteOperations,
}

impl IoLimit {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ReadBandwidth, Self::WriteBandwidth, Self::ReadOperations, Self::WriteOperations];

    /// The name of the unit's property.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadBandwidth => "IOReadBandwidthMax",
            Self::WriteBandwidth => "IOWriteBandwidthMax",
            Self::ReadOperations => "IOReadIOPSMax",
            Self::WriteOperations => "IOWriteIOPSMax",
        }
    }
}

/// A property of the unit that has no key of its own.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Property {
    /// MemoryHigh= in bytes: above it the kernel takes memory back and slows the task down.
    MemoryHigh(u64),
    /// A limit of accesses to one device.
    Io {
        /// Which.
        limit: IoLimit,
        /// The device's node on the host, or a file or directory on the device.
        device: Absolute,
        /// The most of it, a second.
        most: u64,
    },
}

/// Name of [`Property::MemoryHigh`].
pub const MEMORY_HIGH: &str = "MemoryHigh";

impl Property {
    /// The name of the unit's property.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::MemoryHigh(_) => MEMORY_HIGH,
            Self::Io { limit, .. } => limit.name(),
        }
    }

    /// The names of all.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once(MEMORY_HIGH).chain(IoLimit::ALL.map(IoLimit::name))
    }
}

/// Addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct AddressRange {
    /// The first of them.
    pub address: IpAddr,
    /// How many bits they share: at most 32, or 128 for IPv6.
    pub bits: u8,
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_systemds() {
        for good in ["machine-nspawn.slice", "a.slice", "batch_1-x.y.slice"] {
            assert!(SliceName::new(good).is_ok(), "{good}");
        }
        let long = format!("{}.slice", "a".repeat(250));
        for bad in ["-.slice", ".slice", "a", "a.service", "a--b.slice", "-a.slice", "a-.slice"] {
            assert!(SliceName::new(bad).is_err(), "{bad}");
        }
        for bad in ["a/b.slice", "a%n.slice", "a b.slice", "a\\x2d.slice", "é.slice", &long] {
            assert!(SliceName::new(bad).is_err(), "{bad}");
        }
    }
}
