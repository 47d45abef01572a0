//! Blocks of directory entries.
//!
//! For: entries of one directory in the order of their names, block by block.
//! Trusts: its caller, for names of 1 to 255 bytes in ascending order.
//! Never: holds more than one block.

use super::format::{BLOCK_LEN, DIRENT_LEN};
use super::inode::FileType;
use crate::bytes::{le16, le64};

/// An entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) nid: u64,
    pub(crate) file_type: FileType,
}

/// Collects the entries of one block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    heads: Vec<(u64, u16, u8)>,
    names: Vec<u8>,
}

impl Block {
    /// Whether a name of `len` bytes does not fit any more.
    pub(crate) fn is_full(&self, len: usize) -> bool {
        (self.heads.len() + 1) * DIRENT_LEN + self.names.len() + len > BLOCK_LEN
    }

    /// Adds an entry, which has to fit.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        let offset = u16::try_from(self.names.len()).unwrap_or(u16::MAX);
        self.heads.push((entry.nid, offset, entry.file_type.entry_type()));
        self.names.extend(entry.name);
    }

    /// Bytes in use.
    pub(crate) fn len(&self) -> usize {
        self.heads.len() * DIRENT_LEN + self.names.len()
    }

    /// Takes the bytes in use and begins a new block.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(BLOCK_LEN);
        let names_at = u16::try_from(self.heads.len() * DIRENT_LEN).unwrap_or(u16::MAX);
        for (nid, offset, file_type) in self.heads.drain(..) {
            bytes.extend(nid.to_le_bytes());
            bytes.extend(names_at.saturating_add(offset).to_le_bytes());
            bytes.extend([file_type, 0]);
        }
        bytes.append(&mut self.names);
        bytes
    }
}

/// Bytes of a directory with names of these lengths.
pub(crate) fn directory_size(names: impl Iterator<Item = usize>) -> u64 {
    let (mut blocks, mut used) = (0u64, 0usize);
    for len in names {
        if used + DIRENT_LEN + len > BLOCK_LEN {
            blocks += 1;
            used = 0;
        }
        used += DIRENT_LEN + len;
    }
    blocks * super::format::BLOCK + crate::bytes::length(used)
}

/// Reads the entries of one block: names with their nids. None when it is damaged.
pub(crate) fn parse_block(bytes: &[u8]) -> Option<Vec<(&[u8], u64)>> {
    let names_at = usize::from(le16(bytes, 8)?);
    let count = names_at / DIRENT_LEN;
    if count == 0 || !names_at.is_multiple_of(DIRENT_LEN) {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    for number in 0..count {
        let at = number * DIRENT_LEN;
        let from = usize::from(le16(bytes, at + 8)?);
        let to = if number + 1 < count {
            usize::from(le16(bytes, at + DIRENT_LEN + 8)?)
        } else {
            bytes.len()
        };
        let name = bytes.get(from..to)?;
        // The last name of a whole block ends at the first NUL.
        let name = name.split(|byte| *byte == 0).next()?;
        (!name.is_empty() && !name.contains(&b'/')).then_some(())?;
        entries.push((name, le64(bytes, at)?));
    }
    Some(entries)
}
