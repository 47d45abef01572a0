//! Larger values in pieces: each piece names its offset, so that a lost or doubled one is noticed.

use bincode::{Decode, Encode};

use crate::limits;

/// A piece of an encoded value.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// Offset of the first byte; must be the number of bytes sent before.
    pub offset: u32,
    /// 1 to [`limits::PART_MAX`] bytes.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part {{ offset: {}, {} bytes }}", self.offset, self.bytes.len())
    }
}

/// Why a part does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartError {
    /// It is empty or longer than [`limits::PART_MAX`].
    Size,
    /// Its offset is not the number of bytes taken so far.
    Order,
    /// The whole would be longer than [`limits::SPEC_MAX`].
    TooLarge,
    /// The announced length is not the number of bytes taken.
    Length,
}

impl std::fmt::Display for PartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Size => "a part must hold 1 to 61,440 bytes",
            Self::Order => "a part's offset must be the number of bytes sent before",
            Self::TooLarge => {
                "command, environment and the rest of a task may take 1,572,864 bytes together"
            }
            Self::Length => "the announced length is not the number of bytes sent",
        })
    }
}

impl std::error::Error for PartError {}

/// Collects parts until the whole is there.
#[derive(Debug, Default)]
pub struct Assembly {
    bytes: Vec<u8>,
}

impl Assembly {
    /// Whether no part has been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// The part's size, its order, or the whole's size.
    pub fn take(&mut self, part: &Part) -> Result<(), PartError> {
        if part.bytes.is_empty() || part.bytes.len() > limits::PART_MAX {
            return Err(PartError::Size);
        }
        if usize::try_from(part.offset) != Ok(self.bytes.len()) {
            return Err(PartError::Order);
        }
        if self.bytes.len() + part.bytes.len() > limits::SPEC_MAX {
            return Err(PartError::TooLarge);
        }
        self.bytes.extend_from_slice(&part.bytes);
        Ok(())
    }

    /// The whole, when its length is the announced one.
    ///
    /// # Errors
    /// Another length, or nothing at all.
    pub fn finish(self, length: u32) -> Result<Vec<u8>, PartError> {
        if self.bytes.is_empty() || usize::try_from(length) != Ok(self.bytes.len()) {
            return Err(PartError::Length);
        }
        Ok(self.bytes)
    }
}

/// Cuts a whole into parts.
///
/// # Errors
/// The whole is longer than [`limits::SPEC_MAX`].
pub fn split(whole: &[u8]) -> Result<Vec<Part>, PartError> {
    if whole.len() > limits::SPEC_MAX {
        return Err(PartError::TooLarge);
    }
    let mut parts = Vec::new();
    let mut offset = 0_u32;
    for piece in whole.chunks(limits::PART_MAX) {
        parts.push(Part { offset, bytes: piece.to_vec() });
        offset = offset.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "a pattern")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_out_of_order_doubled_or_missing_are_refused() {
        let whole = vec![7_u8; limits::PART_MAX * 2 + 5];
        let parts = split(&whole).unwrap();
        let mut assembly = Assembly::default();
        assert_eq!(assembly.take(&parts[1]), Err(PartError::Order));
        assembly.take(&parts[0]).unwrap();
        assert_eq!(assembly.take(&parts[0]), Err(PartError::Order));
        assembly.take(&parts[1]).unwrap();
        assert_eq!(assembly.finish(u32::try_from(whole.len()).unwrap()), Err(PartError::Length));
        let empty = Part { offset: 0, bytes: vec![] };
        assert_eq!(Assembly::default().take(&empty), Err(PartError::Size));
        assert_eq!(Assembly::default().finish(0), Err(PartError::Length));
    }

    #[test]
    fn the_whole_is_bounded() {
        assert_eq!(split(&vec![0; limits::SPEC_MAX + 1]), Err(PartError::TooLarge));
        let mut assembly = Assembly::default();
        for part in split(&vec![0; limits::SPEC_MAX]).unwrap() {
            assembly.take(&part).unwrap();
        }
        let offset = u32::try_from(limits::SPEC_MAX).unwrap();
        assert_eq!(assembly.take(&Part { offset, bytes: vec![0] }), Err(PartError::TooLarge));
    }

    proptest! {
        #[test]
        fn split_and_take_round_trip(length in 1_usize..300_000, seed in any::<u8>()) {
            let whole: Vec<u8> = (0..length).map(|i| (i % 251) as u8 ^ seed).collect();
            let mut assembly = Assembly::default();
            for part in split(&whole).unwrap() {
                assembly.take(&part).unwrap();
            }
            prop_assert_eq!(assembly.finish(u32::try_from(whole.len()).unwrap()).unwrap(), whole);
        }
    }
}
