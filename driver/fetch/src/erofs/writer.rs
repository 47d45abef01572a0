//! The file in the making.
//!
//! For: data in the order of the archive, inodes beside it, each small rest of a file next to its
//! inode.
//! Trusts: the file is its own: nobody else writes to it.
//! Never: writes a block of zeros (it stays a hole), or a superblock before all else is complete.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::format::{
    BLOCK, BLOCK_LEN, INODE_LEN, ROOT_AT, ROOT_NID, SLOT, SUPER_LEN, SUPER_OFFSET, Super,
};
use super::inode::{FileType, Inode, LINKS_OFFSET, Layout, xattr_len};
use crate::bytes::{index, length};
use crate::error::{Error, Result};

/// Bytes that are collected before they are written.
const PENDING: usize = 1 << 20;
/// Blocks with inodes that still have room. More would save little.
const OPEN_BLOCKS: usize = 8;

/// Writes one EROFS file.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    total_size: u64,
    /// Where `pending` begins; a multiple of the block size.
    start: u64,
    pending: Vec<u8>,
    /// Number and bytes in use of blocks with inodes.
    open: Vec<(u64, usize)>,
    inodes: u64,
}

/// Room for an inode, its attributes and perhaps a rest of its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) nid: u64,
    /// Whether the rest of the data is beside the inode.
    pub(crate) inline: bool,
    /// First block of the data.
    pub(crate) block: u32,
}

impl Writer {
    /// Empties `file`, because holes have to be zeros.
    pub(crate) fn new(file: File, total_size: u64) -> Result<Self> {
        file.set_len(0).map_err(Error::Output)?;
        let pending = Vec::with_capacity(PENDING + BLOCK_LEN);
        // Block 0 has the superblock and the root, which are written last.
        let mut writer = Self { file, total_size, start: 0, pending, open: Vec::new(), inodes: 0 };
        writer.append_zeros(BLOCK)?;
        Ok(writer)
    }

    fn end(&self) -> u64 {
        self.start + length(self.pending.len())
    }

    /// Ends with an error when `more` bytes would be too many.
    pub(crate) fn check_room(&self, more: u64) -> Result<()> {
        // Block numbers have 32 bits.
        let most = self.total_size.min(u64::from(u32::MAX) * BLOCK);
        match self.end().checked_add(more) {
            Some(end) if end <= most => Ok(()),
            _ => Err(Error::Bound(format!("its files take more than {most} bytes together"))),
        }
    }

    /// Number of the next block; what is appended begins there.
    pub(crate) fn next_block(&mut self) -> Result<u32> {
        let over = self.end() % BLOCK;
        if over > 0 {
            self.append_zeros(BLOCK - over)?;
        }
        u32::try_from(self.end() / BLOCK).map_err(|_| Error::Bound("it is beyond 16 TiB".into()))
    }

    /// Appends data.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.check_room(length(bytes.len()))?;
        while !bytes.is_empty() {
            let room = PENDING.saturating_sub(self.pending.len());
            let (head, rest) = bytes.split_at(bytes.len().min(room));
            self.pending.extend_from_slice(head);
            bytes = rest;
            if self.pending.len() >= PENDING {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Appends `count` bytes of zeros, which take no room on disk.
    pub(crate) fn append_zeros(&mut self, count: u64) -> Result<()> {
        self.check_room(count)?;
        let mut left = count;
        let head = left.min((BLOCK - self.end() % BLOCK) % BLOCK);
        self.pending.resize(self.pending.len() + index(head), 0);
        left -= head;
        let whole = left - left % BLOCK;
        if whole > length(PENDING) {
            self.flush()?;
            self.start += whole;
            left -= whole;
        }
        self.pending.resize(self.pending.len() + index(left), 0);
        if self.pending.len() >= PENDING {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the whole blocks that are pending, without those of zeros.
    fn flush(&mut self) -> Result<()> {
        let whole = self.pending.len() - self.pending.len() % BLOCK_LEN;
        let (blocks, rest) = self.pending.split_at(whole);
        let mut offset = self.start;
        // Runs of blocks that are all of zeros or all not.
        let is_zero = |block: &[u8]| block == [0; BLOCK_LEN];
        let blocks: Vec<&[u8]> = blocks.chunks(BLOCK_LEN).collect();
        let mut at = 0;
        for run in blocks.chunk_by(|one, other| is_zero(one) == is_zero(other)) {
            let len = run.len() * BLOCK_LEN;
            if !run.first().is_some_and(|block| is_zero(block)) {
                let bytes = self.pending.get(at..at + len).unwrap_or_default();
                self.file.write_all_at(bytes, offset).map_err(Error::Output)?;
            }
            at += len;
            offset += length(len);
        }
        let rest = rest.to_vec();
        self.pending.clear();
        self.pending.extend(rest);
        self.start = offset;
        Ok(())
    }

    /// Overwrites bytes that were appended before.
    pub(crate) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        if offset < self.start {
            let on_disk = index(self.start - offset).min(bytes.len());
            let (head, rest) = bytes.split_at(on_disk);
            self.file.write_all_at(head, offset).map_err(Error::Output)?;
            return if rest.is_empty() { Ok(()) } else { self.write_at(self.start, rest) };
        }
        let from = index(offset - self.start);
        match self.pending.get_mut(from..from + bytes.len()) {
            Some(room) => room.copy_from_slice(bytes),
            None => return Err(Error::Output(std::io::ErrorKind::InvalidInput.into())),
        }
        Ok(())
    }

    /// Room for an inode with `xattrs` and the last `tail` bytes of its data, which begins at
    /// `block`. A tail that does not fit beside the inode has to be appended by the caller.
    pub(crate) fn reserve(&mut self, xattrs: &[u8], tail: usize, block: u32) -> Result<Place> {
        let head = INODE_LEN + xattr_len(xattrs);
        let inline = tail > 0 && head + tail <= BLOCK_LEN;
        let len = (head + if inline { tail } else { 0 }).next_multiple_of(index(SLOT));
        self.inodes += 1;
        // The kernel reads neither inodes nor tails across blocks; only attributes may be.
        let best = self
            .open
            .iter()
            .enumerate()
            .filter(|(_, (_, used))| used + len <= BLOCK_LEN)
            .max_by_key(|(_, (_, used))| *used)
            .map(|(position, _)| position);
        let (number, at) = match best.and_then(|position| self.open.get_mut(position)) {
            Some((number, used)) => {
                let at = *used;
                *used += len;
                (*number, at)
            }
            None => (self.open_block(len)?, 0),
        };
        Ok(Place { nid: (number * BLOCK + length(at)) / SLOT, inline, block })
    }

    /// New blocks for `len` bytes; what is left of the last one stays open.
    fn open_block(&mut self, len: usize) -> Result<u64> {
        let number = u64::from(self.next_block()?);
        let size = len.next_multiple_of(BLOCK_LEN);
        self.append_zeros(length(size))?;
        let last = number + length(size / BLOCK_LEN) - 1;
        self.open.push((last, BLOCK_LEN - (size - len)));
        if self.open.len() > OPEN_BLOCKS {
            let fullest = self.open.iter().enumerate().max_by_key(|(_, (_, used))| *used);
            let position = fullest.map_or(0, |(position, _)| position);
            self.open.remove(position);
        }
        Ok(number)
    }

    /// Number for the next inode, for programs with 32 bits.
    pub(crate) fn number(&self) -> u32 {
        u32::try_from(self.inodes).unwrap_or(u32::MAX)
    }

    /// Writes an inode into its place, with the tail.
    pub(crate) fn write_inode(&mut self, place: Place, inode: &Inode, tail: &[u8]) -> Result<()> {
        let mut bytes = inode.encode();
        if place.inline {
            bytes.extend(tail);
        }
        self.write_at(place.nid * SLOT, &bytes)
    }

    /// Writes an inode that has no data, or `tail` alone.
    pub(crate) fn add_small(&mut self, mut inode: Inode, tail: &[u8]) -> Result<u64> {
        inode.size = length(tail.len());
        let fits = INODE_LEN + xattr_len(&inode.attributes.xattrs) + tail.len() <= BLOCK_LEN;
        let mut block = 0;
        if !fits && !tail.is_empty() {
            block = self.next_block()?;
            self.append(tail)?;
            self.next_block()?;
        }
        let place = self.reserve(&inode.attributes.xattrs, tail.len(), block)?;
        inode.layout =
            if place.inline { Layout::Inline(place.block) } else { Layout::Plain(place.block) };
        inode.number = self.number();
        self.write_inode(place, &inode, tail)?;
        Ok(place.nid)
    }

    /// Room for the root, at its fixed place in block 0.
    pub(crate) fn reserve_root(&mut self, xattrs: &[u8], tail: usize, block: u32) -> Result<Place> {
        let at = ROOT_AT;
        let head = INODE_LEN + xattr_len(xattrs);
        if at + head > BLOCK_LEN {
            return Err(Error::Bound(format!(
                "the attributes of the root directory take more than {} bytes",
                BLOCK_LEN - at - INODE_LEN
            )));
        }
        self.inodes += 1;
        Ok(Place {
            nid: u64::from(ROOT_NID),
            inline: tail > 0 && at + head + tail <= BLOCK_LEN,
            block,
        })
    }

    /// Sets the number of links of an inode that was written with one.
    pub(crate) fn set_links(&mut self, nid: u64, links: u32) -> Result<()> {
        self.write_at(nid * SLOT + LINKS_OFFSET, &links.to_le_bytes())
    }

    /// Completes the file: all data, then the superblock, then fdatasync(2), because a rename that
    /// follows must never be on disk before the data. Returns the file's size.
    pub(crate) fn finish(mut self, uuid: [u8; 16]) -> Result<(u64, u64)> {
        let blocks = self.next_block()?;
        self.flush()?;
        let size = u64::from(blocks) * BLOCK;
        self.file.set_len(size).map_err(Error::Output)?;
        let block = Super { inodes: self.inodes, blocks, uuid }.encode();
        debug_assert_eq!(block.len(), SUPER_LEN);
        self.file.write_all_at(&block, SUPER_OFFSET).map_err(Error::Output)?;
        self.file.sync_data().map_err(Error::Output)?;
        Ok((size, self.inodes))
    }
}

/// Streams the content of one regular file.
#[derive(Debug)]
pub(crate) struct FileContent {
    size: u64,
    written: u64,
    block: u32,
    tail: Vec<u8>,
}

impl FileContent {
    /// Begins a file of `size` bytes.
    pub(crate) fn begin(writer: &mut Writer, size: u64) -> Result<Self> {
        let block = writer.next_block()?;
        writer.check_room(size)?;
        Ok(Self { size, written: 0, block, tail: Vec::new() })
    }

    /// Bytes in whole blocks.
    fn whole(&self) -> u64 {
        self.size - self.size % BLOCK
    }

    /// Adds content.
    pub(crate) fn append(&mut self, writer: &mut Writer, bytes: &[u8]) -> Result<()> {
        let room = index(self.whole().saturating_sub(self.written));
        let (head, tail) = bytes.split_at(bytes.len().min(room));
        writer.append(head)?;
        self.tail.extend(tail);
        self.written += length(bytes.len());
        Ok(())
    }

    /// Adds a hole.
    pub(crate) fn append_zeros(&mut self, writer: &mut Writer, count: u64) -> Result<()> {
        let head = self.whole().saturating_sub(self.written).min(count);
        writer.append_zeros(head)?;
        self.tail.resize(self.tail.len() + index(count - head), 0);
        self.written += count;
        Ok(())
    }

    /// Writes the inode; returns its nid. All of the content has to be there.
    pub(crate) fn finish(mut self, writer: &mut Writer, mut inode: Inode) -> Result<u64> {
        if self.written != self.size {
            return Err(Error::archive("its data is shorter than its size"));
        }
        inode.file_type = FileType::Regular;
        inode.size = self.size;
        let fits = INODE_LEN + xattr_len(&inode.attributes.xattrs) + self.tail.len() <= BLOCK_LEN;
        if !fits {
            writer.append(&self.tail)?;
            writer.next_block()?;
            self.tail.clear();
        }
        let block = if self.whole() == 0 && fits { 0 } else { self.block };
        let place = writer.reserve(&inode.attributes.xattrs, self.tail.len(), block)?;
        inode.layout = if place.inline { Layout::Inline(block) } else { Layout::Plain(block) };
        inode.number = writer.number();
        writer.write_inode(place, &inode, &self.tail)?;
        Ok(place.nid)
    }
}
