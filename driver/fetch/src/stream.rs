//! The stream before and after decompression.
//!
//! For: a source that decompressors read through, which can look ahead and counts; and a reader
//! that stops when the stream grows beyond its ratio.
//! Trusts: nothing.
//! Never: holds more than one buffer.

use std::cell::Cell;
use std::io::{self, BufRead, Read};
use std::rc::Rc;

use crate::bounds::Bounds;
use crate::bytes::length;

/// Bytes of the buffer.
const BUFFER: usize = 128 << 10;

/// The bytes as they came, with look-ahead, counted.
pub(crate) struct Source {
    inner: Box<dyn Read>,
    buffer: Vec<u8>,
    from: usize,
    consumed: Rc<Cell<u64>>,
}

impl Source {
    /// Reads from `inner`; `consumed` shows how many bytes were used.
    pub(crate) fn new(inner: Box<dyn Read>, consumed: Rc<Cell<u64>>) -> Self {
        Self { inner, buffer: Vec::with_capacity(BUFFER), from: 0, consumed }
    }

    /// The next `count` bytes without using them; fewer at the end of the stream.
    pub(crate) fn peek(&mut self, count: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.from < count {
            self.buffer.drain(..self.from);
            self.from = 0;
            let missing = length(count - self.buffer.len());
            self.inner.by_ref().take(missing).read_to_end(&mut self.buffer)?;
        }
        let rest = self.buffer.get(self.from..).unwrap_or_default();
        Ok(rest.get(..count).unwrap_or(rest))
    }
}

impl Read for Source {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.from >= self.buffer.len() {
            self.from = 0;
            self.buffer.resize(BUFFER, 0);
            let count = read_once(&mut self.inner, &mut self.buffer);
            self.buffer.truncate(*count.as_ref().unwrap_or(&0));
            count?;
        }
        Ok(self.buffer.get(self.from..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.from = (self.from + count).min(self.buffer.len());
        self.consumed.set(self.consumed.get().saturating_add(length(count)));
    }
}

/// One read that a signal does not end.
fn read_once(inner: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match inner.read(out) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The decompressed stream, which ends with an error when it grows beyond `ratio`.
pub(crate) struct Bounded<R> {
    inner: R,
    consumed: Rc<Cell<u64>>,
    produced: u64,
    ratio: u64,
}

impl<R: Read> Bounded<R> {
    /// Bounds `inner`, whose source counts in `consumed`.
    pub(crate) fn new(inner: R, consumed: Rc<Cell<u64>>, ratio: u64) -> Self {
        Self { inner, consumed, produced: 0, ratio }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = read_once(&mut self.inner, out)?;
        self.produced = self.produced.saturating_add(length(count));
        let most = self.consumed.get().saturating_mul(self.ratio);
        if self.produced > Bounds::RATIO_FROM && self.produced > most {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                format!("the stream unpacks to more than {} times its size", self.ratio),
            ));
        }
        Ok(count)
    }
}
