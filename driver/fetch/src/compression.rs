//! The four compressions, found by their first bytes.
//!
//! For: one plain stream of whatever came, with all members, frames or streams that follow each
//! other in it.
//! Trusts: nothing. The decompressors are memory-safe, without C.
//! Never: reads more memory into windows than [`MEMORY_KIB`] allows.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::error::{Error, Result};
use crate::stream::{Bounded, Source};

/// Memory of a decompressor's window, in KiB: `zstd --long` and `xz -9` need up to this much.
const MEMORY_KIB: u32 = 128 << 10;

/// A format by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Gzip,
    Zstd,
    ZstdSkippable,
    Xz,
    Bzip2,
    Plain,
}

fn detect(head: &[u8]) -> Format {
    match head {
        [0x1f, 0x8b, ..] => Format::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Format::Zstd,
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::ZstdSkippable,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Format::Xz,
        [b'B', b'Z', b'h', ..] => Format::Bzip2,
        _ => Format::Plain,
    }
}

/// The decompressed stream of `input`, bounded by `ratio`.
pub(crate) fn decompress(input: Box<dyn Read>, ratio: u64) -> Result<Bounded<Box<dyn Read>>> {
    let consumed = Rc::new(Cell::new(0));
    let mut source = Source::new(input, Rc::clone(&consumed));
    let head = source.peek(6).map_err(Error::input)?;
    if head.is_empty() {
        return Err(Error::archive("the stream is empty"));
    }
    let plain: Box<dyn Read> = match detect(head) {
        Format::Plain => Box::new(source),
        // Reads the streams that follow by itself, and the padding between them.
        Format::Xz => Box::new(XzReader::new_mem_limit(source, true, MEMORY_KIB)),
        _ => Box::new(Members { state: State::Between(source) }),
    };
    Ok(Bounded::new(plain, consumed, ratio))
}

enum State {
    Between(Source),
    Gzip(Box<GzDecoder<Source>>),
    Bzip2(Box<BzDecoder<Source>>),
    Zstd(Box<StreamingDecoder<Source, FrameDecoder>>),
    End,
}

/// Members of gzip, streams of bzip2 or frames of zstd, one after the other.
struct Members {
    state: State,
}

impl Members {
    /// Begins what comes next. Bytes that begin nothing end the stream, as they do for gzip(1):
    /// padding and signatures are appended to archives.
    fn begin(mut source: Source) -> io::Result<State> {
        let format = detect(source.peek(6)?);
        Ok(match format {
            Format::Gzip => State::Gzip(Box::new(GzDecoder::new(source))),
            Format::Bzip2 => State::Bzip2(Box::new(BzDecoder::new(source))),
            Format::Zstd => {
                let most = u64::from(MEMORY_KIB) << 10;
                let decoder = StreamingDecoder::new_with_max_window_size(source, most)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                State::Zstd(Box::new(decoder))
            }
            Format::ZstdSkippable => {
                let mut head = [0; 8];
                source.read_exact(&mut head)?;
                let [_, _, _, _, size @ ..] = head;
                let size = u64::from(u32::from_le_bytes(size));
                if io::copy(&mut source.by_ref().take(size), &mut io::sink())? < size {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                State::Between(source)
            }
            Format::Xz | Format::Plain => State::End,
        })
    }
}

impl Read for Members {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match &mut self.state {
                State::Between(_) => 0,
                State::Gzip(decoder) => decoder.read(out)?,
                State::Bzip2(decoder) => decoder.read(out)?,
                // Its errors are of kind "other", which would pass for a failed read.
                State::Zstd(decoder) => decoder.read(out).map_err(damaged)?,
                State::End => return Ok(0),
            };
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            self.state = match std::mem::replace(&mut self.state, State::End) {
                State::Between(source) => Self::begin(source)?,
                State::Gzip(decoder) => State::Between(decoder.into_inner()),
                State::Bzip2(decoder) => State::Between(decoder.into_inner()),
                State::Zstd(decoder) => finish_frame(*decoder)?,
                State::End => State::End,
            };
        }
    }
}

fn damaged(error: io::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Compares the checksum of a frame, which the decoder only computes.
fn finish_frame(decoder: StreamingDecoder<Source, FrameDecoder>) -> io::Result<State> {
    let (source, frame) = decoder.into_parts();
    let stored = frame.get_checksum_from_data();
    if stored.is_some() && stored != frame.get_calculated_checksum() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame's checksum is wrong"));
    }
    Ok(State::Between(source))
}
