//! The stream of members.
//!
//! For: headers and data of one member after the other.
//! Trusts: nothing.
//! Never: reads headers beyond their bound, or beyond the end of the archive.

use std::io::{BufRead, ErrorKind, Read};

use super::header::{BLOCK, Header};
use super::member::{Kind, Member};
use super::pax::{Pax, decimal};
use super::sparse::{Sparse, push};
use crate::bounds::Bounds;
use crate::bytes::{index, length};
use crate::error::{Error, Result};

/// Reads members from a plain stream.
pub(crate) struct Reader<R> {
    stream: R,
    bounds: Bounds,
    /// Bytes of data of the current member that are not read yet.
    data: u64,
    /// Bytes up to the next block, after the data.
    padding: u64,
    /// Headers so far. Those that describe another one count as well.
    headers: u64,
}

/// Headers that came before the member that they describe.
#[derive(Default)]
struct Pending {
    bytes: u64,
    pax: Option<Vec<u8>>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: BufRead> Reader<R> {
    /// Reads from `stream`.
    pub(crate) fn new(stream: R, bounds: Bounds) -> Self {
        Self { stream, bounds, data: 0, padding: 0, headers: 0 }
    }

    /// The next member, or none at the end of the archive. Data that was not read is skipped.
    pub(crate) fn next_member(&mut self) -> Result<Option<Member>> {
        self.skip_data()?;
        let mut pending = Pending::default();
        loop {
            let Some(header) = self.read_header()? else {
                return match pending.bytes {
                    0 => Ok(None),
                    _ => Err(Error::archive("it ends after a header that describes no member")),
                };
            };
            let slot = match header.type_flag() {
                b'x' | b'X' => &mut pending.pax,
                b'L' => &mut pending.name,
                b'K' => &mut pending.link,
                b'g' => {
                    let data = self.read_extension(&header, &mut pending.bytes)?;
                    Pax::check_global(&data)?;
                    continue;
                }
                _ => {
                    let name = pending.name.clone().unwrap_or_else(|| header.path());
                    let member = self.read_member(&header, pending);
                    return member.map(Some).map_err(|error| error.in_member(&name));
                }
            };
            if slot.is_some() {
                return Err(Error::archive("two headers of one kind describe one member"));
            }
            *slot = Some(self.read_extension(&header, &mut pending.bytes)?);
        }
    }

    fn read_member(&mut self, header: &Header, pending: Pending) -> Result<Member> {
        let pax = pending.pax.as_deref().map(Pax::parse).transpose()?.unwrap_or_default();
        let [name, link] = [pending.name, pending.link].map(|long| long.map(cut_at_nul));
        let records = &pax.sparse;
        let version = match records.version {
            (Some(major), Some(minor)) => Some((major, minor)),
            (None, None) => None,
            _ => return Err(Error::archive("the version of the sparse format is not complete")),
        };
        let real_size = records.real_size;
        let size = pax.size;
        let from_records = match version {
            None | Some((0, 0 | 1)) => {
                let stored = size.map_or_else(|| header.size(124, 12, "size"), Ok)?;
                Sparse::from_records(records, stored, &self.bounds)?
            }
            Some((1, 0)) => None,
            Some((major, minor)) => {
                return Err(Error::archive(format!("unknown sparse format {major}.{minor}")));
            }
        };
        let mut member = Member::new(header, pax, name, link)?;
        self.set_data(member.stored);
        if header.type_flag() == b'S' {
            if !header.is_gnu() || version.is_some() || from_records.is_some() {
                return Err(Error::archive("two formats of sparse files contradict"));
            }
            member.sparse = Some(self.read_gnu_map(header, member.stored)?);
        } else if version == Some((1, 0)) {
            member.sparse = Some(self.read_map(real_size)?);
            member.stored = self.data;
        } else {
            member.sparse = from_records;
        }
        if member.sparse.is_some() && member.kind != Kind::Regular {
            return Err(Error::archive("it is not a regular file and has a sparse map"));
        }
        Ok(member)
    }

    /// The data of a header of type `x`, `g`, `L` or `K`.
    fn read_extension(&mut self, header: &Header, total: &mut u64) -> Result<Vec<u8>> {
        let size = header.size(124, 12, "size")?;
        *total = total.saturating_add(size).saturating_add(length(BLOCK));
        if *total > self.bounds.headers {
            return Err(Error::Bound(format!(
                "the headers of one member are larger than {} bytes",
                self.bounds.headers
            )));
        }
        self.set_data(size);
        let mut data = Vec::new();
        let read = self.stream.by_ref().take(size).read_to_end(&mut data).map_err(Error::input)?;
        if length(read) < size {
            return Err(Error::input(ErrorKind::UnexpectedEof.into()));
        }
        self.data = 0;
        self.skip_data()?;
        Ok(data)
    }

    /// Old GNU format: four regions in the header, 21 in each block that follows it.
    fn read_gnu_map(&mut self, header: &Header, stored: u64) -> Result<Sparse> {
        let mut regions = Vec::new();
        let size = header.size(483, 12, "real size")?;
        let mut more = header.field(482, 1) != [0];
        let mut full = gnu_regions(header.field(386, 96), &mut regions, &self.bounds)?;
        while more {
            if !full {
                return Err(Error::archive("the map of the sparse file is malformed"));
            }
            let mut block = [0; BLOCK];
            self.stream.read_exact(&mut block).map_err(Error::input)?;
            more = block.get(504) != Some(&0);
            full = gnu_regions(block.get(..504).unwrap_or_default(), &mut regions, &self.bounds)?;
        }
        Sparse::new(size, regions, stored)
    }

    /// PAX format 1.0: decimal numbers, a line each, in whole blocks before the data.
    fn read_map(&mut self, real_size: Option<u64>) -> Result<Sparse> {
        let malformed = || Error::archive("the map of the sparse file is malformed");
        let size = real_size.ok_or_else(malformed)?;
        let mut numbers = Numbers { reader: self, block: Vec::new(), at: 0 };
        let count = numbers.next()?;
        let mut regions = Vec::new();
        for _ in 0..count {
            let region = (numbers.next()?, numbers.next()?);
            push(&mut regions, region, &numbers.reader.bounds)?;
        }
        Sparse::new(size, regions, self.data)
    }

    fn set_data(&mut self, size: u64) {
        self.data = size;
        let block = length(BLOCK);
        self.padding = (block - size % block) % block;
    }

    /// The next header, or none after the end marker. An archive that ends without one is
    /// complete for GNU tar and Go, too.
    fn read_header(&mut self) -> Result<Option<Header>> {
        let Some(block) = self.read_block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            self.headers += 1;
            // Each member has its header, and may have three that describe it.
            if self.headers > self.bounds.entries.saturating_mul(4) {
                return Err(Error::Bound("the archive has too many headers".into()));
            }
            return Header::new(block).map(Some);
        }
        match self.read_block()? {
            Some(second) if second != [0; BLOCK] => {
                Err(Error::archive("a block of zeros lies between two members"))
            }
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        if self.stream.fill_buf().map_err(Error::input)?.is_empty() {
            return Ok(None);
        }
        self.stream.read_exact(&mut block).map_err(Error::input)?;
        Ok(Some(block))
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut left = self.data.saturating_add(self.padding);
        (self.data, self.padding) = (0, 0);
        while left > 0 {
            let count = length(self.stream.fill_buf().map_err(Error::input)?.len()).min(left);
            if count == 0 {
                return Err(Error::input(ErrorKind::UnexpectedEof.into()));
            }
            self.stream.consume(index(count));
            left -= count;
        }
        Ok(())
    }

    /// Hands `limit` bytes of data to `take`, in pieces.
    pub(crate) fn read_data(
        &mut self,
        limit: u64,
        mut take: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut left = limit.min(self.data);
        while left > 0 {
            let piece = self.stream.fill_buf().map_err(Error::input)?;
            let piece = piece.get(..index(left)).unwrap_or(piece);
            if piece.is_empty() {
                return Err(Error::input(ErrorKind::UnexpectedEof.into()));
            }
            let count = piece.len();
            take(piece)?;
            self.stream.consume(count);
            left -= length(count);
            self.data -= length(count);
        }
        Ok(())
    }

    /// Reads what follows the end of the archive, so that checksums at the end of compressed
    /// streams are compared.
    pub(crate) fn drain(&mut self) -> Result<()> {
        loop {
            let count = self.stream.fill_buf().map_err(Error::input)?.len();
            if count == 0 {
                return Ok(());
            }
            self.stream.consume(count);
        }
    }
}

/// Decimal numbers, one a line, from blocks of data.
struct Numbers<'a, R> {
    reader: &'a mut Reader<R>,
    block: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Numbers<'_, R> {
    fn next(&mut self) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            let Some(byte) = self.block.get(self.at).copied() else {
                self.fill()?;
                continue;
            };
            self.at += 1;
            match byte {
                b'\n' => break,
                b'0'..=b'9' if digits.len() < 20 => digits.push(byte),
                _ => return Err(Error::archive("the map of the sparse file is malformed")),
            }
        }
        decimal(&digits).ok_or_else(|| Error::archive("the map of the sparse file is malformed"))
    }

    fn fill(&mut self) -> Result<()> {
        self.at = 0;
        self.block.clear();
        let block = &mut self.block;
        self.reader.read_data(length(BLOCK), |piece| {
            block.extend_from_slice(piece);
            Ok(())
        })?;
        if self.block.len() < BLOCK {
            return Err(Error::archive("the map of the sparse file is malformed"));
        }
        Ok(())
    }
}

/// Takes regions from `list`; false when it ended.
fn gnu_regions(list: &[u8], regions: &mut Vec<(u64, u64)>, bounds: &Bounds) -> Result<bool> {
    for slot in list.chunks_exact(24) {
        let (offset, size) = slot.split_at(12);
        if offset.first() == Some(&0) || size.first() == Some(&0) {
            return Ok(false);
        }
        let number = |field| {
            super::header::number(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| Error::archive("the map of the sparse file is malformed"))
        };
        push(regions, (number(offset)?, number(size)?), bounds)?;
    }
    Ok(true)
}

/// GNU long names end with a NUL.
fn cut_at_nul(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}
