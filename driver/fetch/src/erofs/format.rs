//! Constants and the superblock.
//!
//! For: what reader and writer have in common.
//! Trusts: nothing.
//! Never: does I/O.

use crate::bytes::{le16, le32, le64};

/// Bytes of a block.
pub(crate) const BLOCK: u64 = 4096;
/// The same, as a length.
pub(crate) const BLOCK_LEN: usize = 4096;
/// Bytes of a slot; an inode's number (nid) is its offset in slots.
pub(crate) const SLOT: u64 = 32;
/// Bytes of an extended inode.
pub(crate) const INODE_LEN: usize = 64;
/// Where the superblock lies.
pub(crate) const SUPER_OFFSET: u64 = 1024;
/// Bytes of the superblock.
pub(crate) const SUPER_LEN: usize = 128;
/// The root's inode: right after the superblock, because its number has 16 bits only.
pub(crate) const ROOT_NID: u16 = 36;
/// Its offset.
pub(crate) const ROOT_AT: usize = 1152;
/// Bytes of a directory entry, without its name.
pub(crate) const DIRENT_LEN: usize = 12;

const _: () = assert!(ROOT_AT as u64 == ROOT_NID as u64 * SLOT);

const MAGIC: u32 = 0xe0f5_e1e2;
const BLOCK_BITS: u8 = 12;

/// The fields of the superblock that differ between files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Super {
    pub(crate) inodes: u64,
    pub(crate) blocks: u32,
    pub(crate) uuid: [u8; 16],
}

impl Super {
    /// The bytes. No time of making: the same archive gives the same bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SUPER_LEN);
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend([0; 8]); // checksum and compatible features: none
        bytes.extend([BLOCK_BITS, 0]);
        bytes.extend(ROOT_NID.to_le_bytes());
        bytes.extend(self.inodes.to_le_bytes());
        bytes.extend([0; 12]); // time of making
        bytes.extend(self.blocks.to_le_bytes());
        bytes.extend([0; 8]); // inodes count from block 0; no shared attributes
        bytes.extend(self.uuid);
        bytes.resize(SUPER_LEN, 0);
        bytes
    }

    /// Reads one; none when it has another form than the one written here.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let plain = le32(bytes, 0)? == MAGIC
            && le64(bytes, 4)? == 0
            && bytes.get(12..14)? == [BLOCK_BITS, 0]
            && le16(bytes, 14)? == ROOT_NID
            && le64(bytes, 40)? == 0
            && bytes.get(64..SUPER_LEN)?.iter().all(|byte| *byte == 0);
        plain.then_some(())?;
        Some(Self {
            inodes: le64(bytes, 16)?,
            blocks: le32(bytes, 36)?,
            uuid: crate::bytes::array(bytes, 48)?,
        })
    }
}
