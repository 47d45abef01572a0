//! Numbers in bytes from outside.
//!
//! For: reads that cannot go beyond a slice.
//! Trusts: nothing.
//! Never: indexes.

/// `N` bytes of `bytes` from `at`.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// Little-endian number at `at`.
pub(crate) fn le16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// Little-endian number at `at`.
pub(crate) fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// Little-endian number at `at`.
pub(crate) fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// `value` as an index; no address space of ours is smaller than 64 bits.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length as a number.
pub(crate) fn length(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
