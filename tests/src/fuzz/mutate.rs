//! Breaks good messages: bits, lengths, tags, pieces left out, doubled, moved, from another message.

use crate::oracle::random::Random;

/// Longest message made here; the bounds of whole messages are tested elsewhere.
const LONGEST: usize = 16 * 1024;

/// Numbers that lengths, counts and tags are replaced by.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    1 << 60,
    u64::MAX / 2,
    u64::MAX,
];

/// Bytes that mean something to one of the readers.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t\x1b/.:\\%$\"'[]{}=,#-+*~ @09azAZ\xc0\xc1\xd9\xdf";

/// Makes the next message in `out`.
pub(super) fn next(random: &mut Random, corpus: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    if random.chance(2) {
        let length = random.below(64);
        out.extend((0..length).map(|_| random.next().to_le_bytes()[0]));
        return;
    }
    if let Some(sample) = corpus.get(random.below(corpus.len())) {
        out.extend_from_slice(sample);
    }
    for _ in 0..=random.below(4) {
        one(random, corpus, out);
    }
    out.truncate(LONGEST);
}

fn one(random: &mut Random, corpus: &[Vec<u8>], out: &mut Vec<u8>) {
    let at = random.below(out.len() + 1);
    let end = (at + 1 + random.below(16)).min(out.len());
    match random.below(10) {
        0 => {
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = out.get_mut(at) {
                *byte = random.pick(BYTES);
            }
        }
        2 | 3 => number(random, out, at),
        4 => out.truncate(at),
        5 => drop(out.drain(at.min(end)..end)),
        6 => {
            let piece = out.get(at.min(end)..end).unwrap_or_default().to_vec();
            insert(out, at, &piece);
        }
        7 => {
            let piece: Vec<u8> = (0..=random.below(8)).map(|_| random.pick(BYTES)).collect();
            insert(out, at, &piece);
        }
        8 => {
            let other = corpus.get(random.below(corpus.len())).map_or(&[][..], Vec::as_slice);
            let from = random.below(other.len());
            let to = (from + 1 + random.below(64)).min(other.len());
            let piece = other.get(from..to).unwrap_or_default().to_vec();
            insert(out, at, &piece);
        }
        _ => out.push(random.pick(BYTES)),
    }
}

/// Writes a number of one of the widths of the wire, in one of the two orders.
fn number(random: &mut Random, out: &mut [u8], at: usize) {
    let number = if random.chance(50) {
        random.pick(&NUMBERS)
    } else {
        u64::try_from(random.below(64)).unwrap_or_default()
    };
    let width = random.pick(&[1, 2, 4, 8]);
    let bytes = number.to_le_bytes();
    let mut bytes = bytes.get(..width).unwrap_or_default().to_vec();
    if random.chance(30) {
        bytes.reverse();
    }
    for (to, from) in out.iter_mut().skip(at).zip(bytes) {
        *to = from;
    }
}

fn insert(out: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if out.len() + piece.len() <= LONGEST {
        out.splice(at..at, piece.iter().copied());
    }
}
