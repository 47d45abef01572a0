//! What goes through a virtio-serial port: one command a session, in frames.
//!
//! For [`super::channel`] outside and [`super::guest`] inside. A frame is a type, a length and bytes.
//! A session begins with a mark and a number in both directions; whatever a broken session has left
//! in the port is skipped up to it. Sizes are bounded, so a confused peer cannot make the other
//! allocate.

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// Begins a session, followed by the number that the client chose.
pub const MARK: &[u8; 8] = b"\0rigsync";
/// Longest content of a frame.
pub const MAX: usize = 1 << 20;

/// The command of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables in addition to PATH, HOME and LANG.
    pub env: Vec<(String, String)>,
    /// After so many milliseconds its process group is killed; by the guest's clock.
    pub limit_ms: u64,
}

/// How a command ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum End {
    /// Its status, as wait(2) reports it.
    Status(i32),
    /// It was killed at its limit.
    TimedOut,
    /// It could not be started, and why.
    NotStarted(String),
}

/// Types of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: a [`Request`] as JSON.
    Request,
    /// Client: bytes for standard input; none for its end.
    Input,
    /// Guest: bytes of standard output.
    Stdout,
    /// Guest: bytes of standard error.
    Stderr,
    /// Guest: nothing new, but alive.
    Alive,
    /// Guest: an [`End`] as JSON; the session is over.
    End,
    /// A new session begins, with this number: the last client has gone, and another has come
    /// before that showed.
    Mark,
}

const KINDS: [(u8, Kind); 6] = [
    (b'R', Kind::Request),
    (b'I', Kind::Input),
    (b'O', Kind::Stdout),
    (b'E', Kind::Stderr),
    (b'A', Kind::Alive),
    (b'X', Kind::End),
];

/// Writes one frame.
///
/// # Errors
/// The kernel's, or content that is too long.
pub fn write(out: &mut impl Write, kind: Kind, content: &[u8]) -> Result<()> {
    if content.len() > MAX {
        bail!("a frame of {} bytes", content.len());
    }
    let byte = KINDS.iter().find(|(_, known)| *known == kind).map_or(0, |(byte, _)| *byte);
    let mut frame = vec![byte];
    frame.extend_from_slice(&u32::try_from(content.len())?.to_le_bytes());
    frame.extend_from_slice(content);
    out.write_all(&frame)?;
    Ok(out.flush()?)
}

/// Reads one frame.
///
/// # Errors
/// The kernel's, its end, or bytes that are no frame.
pub fn read(from: &mut impl Read) -> Result<(Kind, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    if MARK.starts_with(&head) {
        let mut rest = [0; 3];
        from.read_exact(&mut rest)?;
        let mut number = vec![0; 8];
        from.read_exact(&mut number)?;
        return Ok((Kind::Mark, number));
    }
    let [byte, length @ ..] = head;
    let known = KINDS.iter().find(|(known, _)| *known == byte);
    let (_, kind) = known.with_context(|| format!("not a frame: {head:?}"))?;
    let length = usize::try_from(u32::from_le_bytes(length))?;
    if length > MAX {
        bail!("a frame of {length} bytes");
    }
    let mut content = vec![0; length];
    from.read_exact(&mut content)?;
    Ok((*kind, content))
}

/// Writes the beginning of a session.
///
/// # Errors
/// The kernel's.
pub fn write_mark(out: &mut impl Write, number: [u8; 8]) -> Result<()> {
    out.write_all(&[MARK.as_slice(), &number].concat())?;
    Ok(out.flush()?)
}

/// Skips bytes up to the beginning of a session and returns its number.
///
/// # Errors
/// The kernel's, or the end.
pub fn read_mark(from: &mut impl Read) -> Result<[u8; 8]> {
    let mut last = [0; 8];
    while last != *MARK {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        last.rotate_left(1);
        if let Some(end) = last.last_mut() {
            [*end] = byte;
        }
    }
    let mut number = [0; 8];
    from.read_exact(&mut number)?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_a_broken_session_left_is_skipped() {
        let mut bytes = b"O\x10\0\0\0half \0rig\0rigsync".to_vec();
        bytes.truncate(bytes.len() - MARK.len());
        write_mark(&mut bytes, *b"12345678").unwrap();
        write(&mut bytes, Kind::Stdout, b"text").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read_mark(&mut from).unwrap(), *b"12345678");
        assert_eq!(read(&mut from).unwrap(), (Kind::Stdout, b"text".to_vec()));
        assert!(read(&mut from).is_err(), "the end");
    }

    #[test]
    fn the_next_session_is_noticed_between_frames() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Input, b"x").unwrap();
        write_mark(&mut bytes, *b"12345678").unwrap();
        let mut from = bytes.as_slice();
        assert_eq!(read(&mut from).unwrap(), (Kind::Input, b"x".to_vec()));
        assert_eq!(read(&mut from).unwrap(), (Kind::Mark, b"12345678".to_vec()));
    }

    #[test]
    fn a_length_beyond_the_bound_is_not_believed() {
        assert!(read(&mut b"O\xff\xff\xff\xff".as_slice()).is_err());
        assert!(read(&mut b"?\0\0\0\0".as_slice()).is_err());
    }
}
