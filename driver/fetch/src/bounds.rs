//! What one layer may cost.
//!
//! For: every number that limits a conversion, in one place.
//! Trusts: its caller, which takes the sizes from the policy.
//! Never: counts anything itself.

/// Bounds of one conversion. Passing one ends it with [`crate::Error::Bound`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one file, holes included.
    pub file_size: u64,
    /// Bytes of the EROFS file, holes included. Its format ends at 16 TiB.
    pub total_size: u64,
    /// Members of the archive, with those that are dropped, and directories that it implies.
    pub entries: u64,
    /// Directories above a file.
    pub depth: u16,
    /// Bytes of a path or of a link's target; the kernel's `PATH_MAX` with its NUL.
    pub path: usize,
    /// Bytes of names and values of one file's extended attributes, as EROFS stores them.
    pub xattrs: usize,
    /// Bytes of one member's extension headers: long names and PAX records.
    pub headers: u64,
    /// Regions of data of one sparse file.
    pub regions: usize,
    /// Bytes of memory for names, link targets and directories, which are written last.
    pub held: u64,
    /// Bytes after decompression for one byte before, beyond the first [`Bounds::RATIO_FROM`].
    pub ratio: u64,
}

impl Bounds {
    /// Bytes after decompression from which [`Bounds::ratio`] counts.
    pub const RATIO_FROM: u64 = 64 << 20;
}

impl Default for Bounds {
    /// Far above what images contain, and such that the converter needs less than 384 MiB of
    /// memory. Deflate cannot do better than 1,032 to 1, so that only the denser formats, which
    /// reach millions to one, can meet the ratio.
    fn default() -> Self {
        Self {
            file_size: 64 << 30,
            total_size: 128 << 30,
            entries: 2_000_000,
            depth: 256,
            path: 4_095,
            xattrs: 64 << 10,
            headers: 1 << 20,
            regions: 1 << 18,
            held: 256 << 20,
            ratio: 1_100,
        }
    }
}
