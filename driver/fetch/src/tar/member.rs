//! One member of an archive.
//!
//! For: what a header, its long names and its PAX records mean together.
//! Trusts: nothing.
//! Never: chooses between two meanings: contradictions refuse the archive.

use super::header::Header;
use super::pax::Pax;
use super::sparse::Sparse;
use crate::error::{Error, Result};

/// The type of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    HardLink,
    Symlink,
    Directory,
    Fifo,
    /// A character or block device.
    Device,
    /// Neither a file nor a header: a volume's label, a vendor's type.
    Other,
}

/// A member, without its data.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) kind: Kind,
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    /// Permissions with set-user-ID, set-group-ID and sticky bit.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Bytes of data in the archive.
    pub(crate) stored: u64,
    pub(crate) sparse: Option<Sparse>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) acl_access: Option<Vec<u8>>,
    pub(crate) acl_default: Option<Vec<u8>>,
}

impl Member {
    /// Bytes of the file that the member describes.
    pub(crate) fn file_size(&self) -> u64 {
        self.sparse.as_ref().map_or(self.stored, |sparse| sparse.size)
    }

    /// Puts header, GNU long names and PAX records together. PAX records win over the header, as
    /// POSIX has it; a GNU long name next to a PAX path has to be the same.
    pub(crate) fn new(
        header: &Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Self> {
        let path = pax.sparse.name.or(pax.path);
        let path = choose(path, long_name, "name")?.unwrap_or_else(|| header.path());
        let link = choose(pax.link, long_link, "link target")?.unwrap_or_else(|| header.link());
        let stored = match pax.size {
            Some(size) => size,
            None => header.size(124, 12, "size")?,
        };
        let kind = kind_of(header.type_flag(), &path)?;
        let stored = check_size(kind, stored, header.type_flag())?;
        Ok(Self {
            kind,
            path,
            link,
            mode: permissions(header.number(100, 8, "mode")?),
            uid: owner(pax.uid, header, 108, "uid")?,
            gid: owner(pax.gid, header, 116, "gid")?,
            mtime: match pax.mtime {
                Some(time) => time,
                None => (header.number(136, 12, "modification time")?, 0),
            },
            stored,
            sparse: None,
            xattrs: pax.xattrs,
            acl_access: pax.acl_access,
            acl_default: pax.acl_default,
        })
    }
}

fn choose(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, what: &str) -> Result<Option<Vec<u8>>> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => {
            Err(Error::archive(format!("PAX and GNU headers give it two different {what}s")))
        }
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

fn kind_of(flag: u8, path: &[u8]) -> Result<Kind> {
    Ok(match flag {
        // Archives from before ustar mark directories by the slash alone.
        b'0' | 0 if path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' | b'S' => Kind::Regular,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' | b'4' => Kind::Device,
        b'5' | b'D' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'M' => return Err(Error::archive("it is a part of a multi-volume archive")),
        _ => Kind::Other,
    })
}

/// Data of members that have none. A hard link's size is the file's, without data, for GNU tar and
/// Go alike. For the others, some readers skip the data and some do not.
fn check_size(kind: Kind, stored: u64, flag: u8) -> Result<u64> {
    match kind {
        Kind::HardLink => Ok(0),
        // The list of names of an incremental backup.
        Kind::Directory if flag == b'D' => Ok(stored),
        Kind::Symlink | Kind::Directory | Kind::Fifo | Kind::Device if stored > 0 => {
            Err(Error::archive("it is not a regular file and has data all the same"))
        }
        _ => Ok(stored),
    }
}

fn permissions(mode: i64) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// A uid or gid; 4294967295 is none for the kernel.
fn owner(pax: Option<u64>, header: &Header, at: usize, name: &str) -> Result<u32> {
    let id = match pax {
        Some(id) => id,
        None => header.size(at, 8, name)?,
    };
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(Error::archive(format!("the {name} {id} is beyond 4294967294"))),
    }
}
