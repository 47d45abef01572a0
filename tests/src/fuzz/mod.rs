//! Fuzzing in process: every reader of hostile bytes, fed with broken copies of good input.
//!
//! No panic, no more memory than promised, nothing taken that does not encode to the same bytes
//! again. A run is told by its seed. Random bytes alone reach little, so `mutate` knows what
//! lengths and tags look like.

pub mod allocator;
mod mutate;
mod samples;
mod targets;

use crate::oracle::random::Random;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use targets::all;

/// `Ok(true)`: taken; `Err`: what is wrong with what was taken.
type Read = Box<dyn Fn(&[u8]) -> Result<bool, String>>;

/// A reader of hostile bytes.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Most memory that one message may take beyond what it takes to hold it, in bytes.
    pub memory: usize,
    /// Good input.
    corpus: Vec<Vec<u8>>,
    /// Reads.
    read: Read,
}

/// What came of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// The target.
    pub name: &'static str,
    /// Messages.
    pub tries: u64,
    /// Those that were taken.
    pub taken: u64,
    /// Most memory that one of them took, in bytes.
    pub peak: usize,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} samples)", self.name, self.corpus.len())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.peak.div_ceil(1024);
        write!(f, "{}: {} tries, {} taken, peak {kib} KiB", self.name, self.tries, self.taken)
    }
}

/// Reads `tries` broken copies.
///
/// The memory is counted only in programs whose allocator is [`allocator::Counting`].
///
/// # Errors
/// The message, in hexadecimal digits, and what went wrong with it.
pub fn run(target: &Target, seed: u64, tries: u64) -> Result<Figures, String> {
    let mut random = Random::new(seed);
    let mut figures = Figures { name: target.name, tries, taken: 0, peak: 0 };
    for sample in &target.corpus {
        if (target.read)(sample) != Ok(true) {
            return Err(format!("{}: a sample is not taken", target.name));
        }
    }
    let mut bytes = Vec::new();
    for number in 0..tries {
        mutate::next(&mut random, &target.corpus, &mut bytes);
        let before = allocator::begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| (target.read)(&bytes)));
        let peak = allocator::peak_since(before);
        figures.peak = figures.peak.max(peak);
        let wrong = match outcome {
            Ok(Ok(taken)) => {
                figures.taken += u64::from(taken);
                (peak > target.memory).then(|| format!("takes {peak} bytes of memory"))
            }
            Ok(Err(wrong)) => Some(wrong),
            Err(_) => Some("panics".to_owned()),
        };
        if let Some(wrong) = wrong {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            return Err(format!("{}: try {number} of seed {seed}: {wrong}: {hex}", target.name));
        }
    }
    Ok(figures)
}
