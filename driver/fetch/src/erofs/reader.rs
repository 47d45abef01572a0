//! A layer below.
//!
//! For: attributes, links and content that an archive leaves out, from the EROFS files of the
//! layers below, which a converter has made.
//! Trusts: nothing: another image's author may have broken that converter. All numbers are checked
//! against the file.
//! Never: reads without a bound: a look-up halves its blocks, a list has a limit.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::directory::parse_block;
use super::format::{BLOCK, BLOCK_LEN, INODE_LEN, ROOT_NID, SLOT, SUPER_LEN, SUPER_OFFSET, Super};
use super::inode::{FileType, Inode, Layout, decode_xattrs, xattr_len};
use crate::bytes::{index, length};
use crate::error::{Error, Result};

/// An EROFS file of this converter, opened for reading.
#[derive(Debug)]
pub struct Lower {
    file: File,
    size: u64,
}

fn damaged(what: &str) -> Error {
    Error::Lower(what.into())
}

impl Lower {
    /// Checks the superblock.
    ///
    /// # Errors
    ///
    /// [`Error::Lower`] when it is not a file that [`crate::convert`] has completed.
    pub fn open(file: File) -> std::result::Result<Self, Error> {
        let size = file.metadata().map_err(|error| damaged(&error.to_string()))?.len();
        let mut bytes = [0; SUPER_LEN];
        file.read_exact_at(&mut bytes, SUPER_OFFSET)
            .map_err(|error| damaged(&format!("its superblock: {error}")))?;
        let found = Super::decode(&bytes).filter(|found| u64::from(found.blocks) * BLOCK == size);
        found.ok_or_else(|| damaged("its superblock is not one of this converter"))?;
        Ok(Self { file, size })
    }

    /// Number of the root directory.
    pub(crate) fn root(&self) -> u64 {
        u64::from(ROOT_NID)
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        match offset.checked_add(length(len)) {
            Some(end) if end <= self.size => {}
            _ => return Err(damaged("something lies beyond its end")),
        }
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|error| damaged(&format!("read: {error}")))?;
        Ok(bytes)
    }

    /// The inode with this number and its attributes.
    pub(crate) fn inode(&self, nid: u64) -> Result<Inode> {
        let offset = nid.checked_mul(SLOT).ok_or_else(|| damaged("an inode's number"))?;
        let bytes = self.read(offset, INODE_LEN)?;
        let (mut inode, len) = Inode::decode(&bytes).ok_or_else(|| damaged("an inode"))?;
        if len > 0 {
            let bytes = self.read(offset + length(INODE_LEN), len)?;
            let bytes = bytes.get(12..).unwrap_or_default();
            decode_xattrs(bytes).ok_or_else(|| damaged("attributes of an inode"))?;
            inode.attributes.xattrs = bytes.into();
        }
        if inode.size > self.size {
            // Holes have blocks as well: no content is larger than the file.
            return Err(damaged("the size of an inode"));
        }
        Ok(inode)
    }

    /// Up to one block of content, from `at`, a multiple of the block size.
    pub(crate) fn block(&self, nid: u64, inode: &Inode, at: u64) -> Result<Vec<u8>> {
        let len = index((inode.size.saturating_sub(at)).min(BLOCK));
        let (block, inline) = match inode.layout {
            Layout::Plain(block) => (block, false),
            Layout::Inline(block) => (block, len < BLOCK_LEN),
        };
        let offset = if inline {
            let head = INODE_LEN + xattr_len(&inode.attributes.xattrs);
            nid.checked_mul(SLOT).and_then(|start| start.checked_add(length(head)))
        } else {
            (u64::from(block) * BLOCK).checked_add(at)
        };
        self.read(offset.ok_or_else(|| damaged("the place of content"))?, len)
    }

    /// The target of a symbolic link, at most 4,095 bytes.
    pub(crate) fn target(&self, nid: u64, inode: &Inode) -> Result<Vec<u8>> {
        if inode.file_type != FileType::Symlink || inode.size >= BLOCK {
            return Err(damaged("a symbolic link"));
        }
        self.block(nid, inode, 0)
    }

    /// The number of the entry `name` in a directory.
    pub(crate) fn find(&self, nid: u64, directory: &Inode, name: &[u8]) -> Result<Option<u64>> {
        // Blocks ascend by their names: the one that may hold `name` is the last that does not
        // begin beyond it.
        let (mut low, mut high) = (0, directory.size.div_ceil(BLOCK));
        while low < high {
            let middle = low + (high - low) / 2;
            let bytes = self.block(nid, directory, middle * BLOCK)?;
            let entries = parse_block(&bytes).ok_or_else(|| damaged("a directory"))?;
            match entries.iter().find(|(one, _)| *one == name) {
                Some((_, nid)) => return Ok(Some(*nid)),
                None if entries.first().is_some_and(|(first, _)| *first < name) => low = middle + 1,
                None => high = middle,
            }
        }
        Ok(None)
    }

    /// All entries of a directory but `.` and `..`; an error when there are more than `most`.
    pub(crate) fn entries(
        &self,
        nid: u64,
        directory: &Inode,
        most: u64,
    ) -> Result<Vec<(Vec<u8>, u64)>> {
        let mut all = Vec::new();
        for number in 0..directory.size.div_ceil(BLOCK) {
            let bytes = self.block(nid, directory, number * BLOCK)?;
            let entries = parse_block(&bytes).ok_or_else(|| damaged("a directory"))?;
            let entries = entries.into_iter().filter(|(name, _)| !matches!(*name, b"." | b".."));
            all.extend(entries.map(|(name, nid)| (name.to_vec(), nid)));
            if length(all.len()) > most {
                return Err(damaged("it has more files than its bounds allow"));
            }
        }
        Ok(all)
    }
}
