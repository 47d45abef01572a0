//! Inodes with their attributes.
//!
//! For: encoding and decoding of extended inodes and of the attributes that follow them.
//! Trusts: nothing that it decodes.
//! Never: uses compact inodes: they have no modification time.

use super::format::INODE_LEN;
use crate::bytes::{le16, le32, le64};

/// Types of files, with the numbers of `st_mode` and of directory entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileType {
    Regular,
    Directory,
    Character,
    Fifo,
    Symlink,
}

impl FileType {
    const ALL: [Self; 5] =
        [Self::Regular, Self::Directory, Self::Character, Self::Fifo, Self::Symlink];

    /// The bits of `st_mode`.
    pub(crate) fn mode_bits(self) -> u16 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Character => 0o020_000,
            Self::Fifo => 0o010_000,
            Self::Symlink => 0o120_000,
        }
    }

    /// The number in a directory entry.
    pub(crate) fn entry_type(self) -> u8 {
        match self {
            Self::Regular => 1,
            Self::Directory => 2,
            Self::Character => 3,
            Self::Fifo => 5,
            Self::Symlink => 7,
        }
    }

    fn from_mode(mode: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.mode_bits() == mode & 0o170_000)
    }
}

/// What a file is beside its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permissions with set-user-ID, set-group-ID and sticky bit.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes, encoded; empty when there are none.
    pub(crate) xattrs: Box<[u8]>,
}

impl Attributes {
    /// Those of a directory that nobody describes.
    pub(crate) fn of_implied_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Box::default() }
    }
}

/// Where an inode's data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// All of it from this block on.
    Plain(u32),
    /// Whole blocks from this block on, the rest right after the attributes.
    Inline(u32),
}

/// An inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) file_type: FileType,
    pub(crate) attributes: Attributes,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) layout: Layout,
    /// Number for programs with 32 bits; others see the nid.
    pub(crate) number: u32,
}

/// Offset of the number of links in an inode.
pub(crate) const LINKS_OFFSET: u64 = 44;

const XATTR_HEADER: usize = 12;

/// Bytes of the attributes with their header, as they lie after the inode.
pub(crate) fn xattr_len(xattrs: &[u8]) -> usize {
    if xattrs.is_empty() { 0 } else { XATTR_HEADER + xattrs.len() }
}

impl Inode {
    /// The bytes: inode, then attributes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let a = &self.attributes;
        let mut bytes = Vec::with_capacity(INODE_LEN + xattr_len(&a.xattrs));
        let (layout, block) = match self.layout {
            Layout::Plain(block) => (0u16, block),
            Layout::Inline(block) => (2, block),
        };
        // A whiteout is a character device 0:0, with the number where others have their block.
        let block = if self.file_type == FileType::Character { 0 } else { block };
        let count = if a.xattrs.is_empty() { 0 } else { a.xattrs.len() / 4 + 1 };
        bytes.extend((1 | (layout << 1)).to_le_bytes());
        bytes.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        bytes.extend((self.file_type.mode_bits() | a.mode).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(block.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(a.uid.to_le_bytes());
        bytes.extend(a.gid.to_le_bytes());
        bytes.extend(a.mtime.0.to_le_bytes());
        bytes.extend(a.mtime.1.to_le_bytes());
        bytes.extend(self.links.to_le_bytes());
        bytes.extend([0; 16]);
        if !a.xattrs.is_empty() {
            bytes.extend([0; XATTR_HEADER]); // no filter, none shared
            bytes.extend(&a.xattrs);
        }
        bytes
    }

    /// Reads the inode and how many bytes of attributes follow it, with their header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let block = le32(bytes, 16)?;
        let layout = match le16(bytes, 0)? {
            1 => Layout::Plain(block),
            5 => Layout::Inline(block),
            _ => return None,
        };
        let mode = le16(bytes, 4)?;
        let count = usize::from(le16(bytes, 2)?);
        let xattrs = if count == 0 { 0 } else { XATTR_HEADER + (count - 1) * 4 };
        let inode = Self {
            file_type: FileType::from_mode(mode)?,
            attributes: Attributes {
                mode: mode & 0o7777,
                uid: le32(bytes, 24)?,
                gid: le32(bytes, 28)?,
                mtime: (le64(bytes, 32)?.cast_signed(), le32(bytes, 40)?),
                xattrs: Box::default(),
            },
            size: le64(bytes, 8)?,
            links: le32(bytes, 44)?,
            layout,
            number: le32(bytes, 20)?,
        };
        Some((inode, xattrs))
    }
}

/// Namespaces of attribute names, with the numbers that EROFS has for them.
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];

/// Encodes attributes in the order of their names. None when a name or value is too long, or when
/// EROFS has no number for the name.
pub(crate) fn encode_xattrs(
    xattrs: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>,
) -> Option<Box<[u8]>> {
    let mut bytes = Vec::new();
    for (name, value) in xattrs {
        let (rest, number) = PREFIXES
            .iter()
            .find_map(|(prefix, number)| Some((name.strip_prefix(*prefix)?, number)))?;
        bytes.push(u8::try_from(rest.len()).ok()?);
        bytes.push(*number);
        bytes.extend(u16::try_from(value.len()).ok()?.to_le_bytes());
        bytes.extend(rest);
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes.into_boxed_slice())
}

/// Reads attributes back. None when they are damaged.
pub(crate) fn decode_xattrs(
    mut bytes: &[u8],
) -> Option<std::collections::BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut xattrs = std::collections::BTreeMap::new();
    while !bytes.is_empty() {
        let [name_len, number, low, high, ..] = *bytes else { return None };
        let (name_len, value_len) =
            (usize::from(name_len), usize::from(u16::from_le_bytes([low, high])));
        let (prefix, _) = PREFIXES.iter().find(|(_, one)| *one == number)?;
        let name = bytes.get(4..4 + name_len)?;
        let value = bytes.get(4 + name_len..4 + name_len + value_len)?;
        xattrs.insert([*prefix, name].concat(), value.to_vec());
        let len = (4 + name_len + value_len).next_multiple_of(4);
        bytes = bytes.get(len..)?;
    }
    Some(xattrs)
}
