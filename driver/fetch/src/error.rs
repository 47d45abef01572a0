//! Why a conversion ended.
//!
//! For: one sentence for a task's events, and the class by which a caller chooses what follows.
//! Trusts: nothing; names from archives are escaped and cut.
//! Never: hides the cause of a failed read or write.

use std::fmt;
use std::io;

/// Why a conversion ended. The file then has no superblock and cannot be mounted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The stream could not be read. A later try may work.
    Input(io::Error),
    /// The file could not be written: disk full, or above a limit of the process.
    Output(io::Error),
    /// The stream is not what it should be, or contains what no layer may contain. Final.
    Archive(String),
    /// The layer is larger than its bounds allow. Final, until the operator raises them.
    Bound(String),
    /// What the archive leaves out has to be taken from the layers below, which were not given.
    NeedsLower(String),
    /// A layer below is damaged: it is to be made again.
    Lower(String),
}

/// Result of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Longest part of a name from an archive that is shown, in bytes.
const SHOWN: usize = 200;

/// `bytes` of an archive as text that is safe in a log line.
pub(crate) fn show(bytes: &[u8]) -> String {
    let cut = bytes.get(..SHOWN).unwrap_or(bytes);
    let rest = if bytes.len() > SHOWN { "…" } else { "" };
    format!("\"{}{rest}\"", cut.escape_ascii())
}

impl Error {
    /// A rule that the archive breaks.
    pub(crate) fn archive(rule: impl Into<String>) -> Self {
        Self::Archive(rule.into())
    }

    /// The same error, with the member of the archive that it is about.
    pub(crate) fn in_member(self, path: &[u8]) -> Self {
        let name = show(path);
        match self {
            Self::Archive(rule) => Self::Archive(format!("member {name}: {rule}")),
            Self::Bound(rule) => Self::Bound(format!("member {name}: {rule}")),
            Self::NeedsLower(rule) => Self::NeedsLower(format!("member {name}: {rule}")),
            other => other,
        }
    }

    /// A failed read of the stream. Decompressors report damage as I/O errors as well.
    pub(crate) fn input(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Self::archive("the stream ends in the middle; it was cut off")
            }
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                Self::archive(format!("the compressed stream is damaged: {error}"))
            }
            io::ErrorKind::QuotaExceeded => Self::Bound(error.to_string()),
            _ => Self::Input(error),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(error) => write!(f, "read of the layer: {error}"),
            Self::Output(error) => write!(f, "write of the EROFS file: {error}"),
            Self::Archive(rule) => write!(f, "archive refused: {rule}"),
            Self::Bound(rule) => write!(f, "layer too large: {rule}"),
            Self::NeedsLower(rule) => write!(f, "layers below are needed: {rule}"),
            Self::Lower(rule) => write!(f, "a layer below is damaged: {rule}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Input(error) | Self::Output(error) => Some(error),
            _ => None,
        }
    }
}
