//! A set of CPUs: as the kernel lists it, and as PID 1 takes it.
//!
//! Trusts nothing: a list comes from the driver, or from a file that Nomad writes. Never longer than
//! [`limits::CPUS_MAX`].

use bincode::{Decode, Encode};

use crate::limits;

/// A set of CPUs, as a mask: bit n of byte n/8 is CPU n (`AllowedCPUs=` on the bus).
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode)]
pub struct CpuSet(Vec<u8>);

impl CpuSet {
    /// Reads a list of the kernel's form (cpuset(7), "List format"): `0-3,8`. An empty one is the
    /// empty set.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut mask = Vec::new();
        for part in text.trim().split(',').filter(|_| !text.trim().is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.parse().ok().filter(|n| *n < limits::CPUS_MAX);
            let (first, last): (usize, usize) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            mask.resize(mask.len().max(last / 8 + 1), 0);
            for cpu in first..=last {
                *mask.get_mut(cpu / 8)? |= 1 << (cpu % 8);
            }
        }
        Some(Self(mask))
    }

    /// The mask.
    #[must_use]
    pub fn mask(&self) -> &[u8] {
        &self.0
    }

    /// Whether no CPU is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

impl<C> Decode<C> for CpuSet {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        decoder: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        let mask: Vec<u8> = Vec::decode(decoder)?;
        if mask.len() > limits::CPUS_MAX / 8 {
            return Err(bincode::error::DecodeError::Other("a set of more CPUs than there can be"));
        }
        Ok(Self(mask))
    }
}

bincode::impl_borrow_decode!(CpuSet);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[test]
    fn lists_are_the_kernels() {
        let mask = |text: &str| CpuSet::parse(text).map(|set| set.0);
        assert_eq!(mask("0"), Some(vec![1]));
        assert_eq!(mask("0-2,9\n"), Some(vec![0b111, 0b10]));
        assert_eq!(mask("7,0"), Some(vec![0b1000_0001]));
        assert_eq!(mask(""), Some(vec![]));
        assert_eq!(mask("\n"), Some(vec![]));
        assert_eq!(mask("8191").map(|mask| mask.len()), Some(1024));
        for bad in ["a", "1-", "-1", "3-1", "8192", "0,,1", "0-99999999999999999999", "1 2", ","] {
            assert_eq!(mask(bad), None, "{bad}");
        }
        assert!(CpuSet::parse("").unwrap().is_empty() && !CpuSet::parse("3").unwrap().is_empty());
    }

    #[test]
    fn a_set_has_a_bound_on_its_way_too() {
        let most = CpuSet(vec![0xff; limits::CPUS_MAX / 8]);
        assert_eq!(codec::decode::<CpuSet>(&codec::encode(&most).unwrap()), Ok(most));
        let more = CpuSet(vec![0; limits::CPUS_MAX / 8 + 1]);
        assert!(codec::decode::<CpuSet>(&codec::encode(&more).unwrap()).is_err());
    }
}
