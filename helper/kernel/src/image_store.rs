//! The store of layers as the root side reads it: which layers a name means, and whether a layer's
//! file is one that the converter wrote.
//!
//! Trusts that root alone writes below [`IMAGES`], and checks that nobody else could. Treats what the
//! files hold as hostile: unprivileged converters make layers of anybody's archives. Never writes.

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use proto::layer::{Digest, IMAGES, IMPORTS, ImageLayer, ImageRecord, RECORDS};
use proto::limits;
use proto::name::ImageName;

use crate::open::{Mounts, beneath, directory, if_there, metadata, read_all};

/// Mode of a layer's file: nobody writes it again.
const LAYER_MODE: u32 = 0o400;
/// Where an EROFS has its superblock, in bytes.
const SUPER_OFFSET: u64 = 1024;
/// Bytes of one.
pub const SUPER_LEN: usize = 128;
/// Bytes of a block: the only size that the converter writes.
const BLOCK: u64 = 4096;
/// Bytes of the file of an imported name: an id and the end of the line.
const IMPORT_MAX: usize = 65;

/// Fields of the superblock that are the same in each layer: their names in the kernel's source
/// (struct erofs_super_block, fs/erofs/erofs_fs.h), where they are, what they are. All that is not
/// listed is free (`inos`), compared otherwise (`blocks`, `uuid`), or must be zero.
const FIELDS: [(&str, Range<usize>, &[u8]); 13] = [
    ("magic", 0..4, &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("checksum", 4..8, &[]),
    ("feature_compat", 8..12, &[]),
    ("blkszbits", 12..13, &[12]),
    ("sb_extslots", 13..14, &[]),
    ("root_nid", 14..16, &[36, 0]),
    ("build_time", 24..36, &[]),
    ("meta_blkaddr", 40..44, &[]),
    ("xattr_blkaddr", 44..48, &[]),
    ("volume_name", 64..80, &[]),
    ("feature_incompat", 80..84, &[]),
    ("u1 (compression)", 84..86, &[]),
    ("extra_devices and what follows it", 86..SUPER_LEN, &[]),
];

/// Opens the store; `None` where there is none.
///
/// # Errors
/// Somebody other than root could have written to it, or the kernel's.
pub fn open() -> io::Result<Option<OwnedFd>> {
    let Some(store) = if_there(directory(Path::new(IMAGES)))? else { return Ok(None) };
    let meta = metadata(&store)?;
    if meta.uid() != 0 || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "{IMAGES} must belong to root and be closed to all others: chown root:root and chmod \
             0700, and import its images again, as somebody may have changed them"
        )));
    }
    Ok(Some(store))
}

/// The layers of an imported image, the lowest first; `None` where the store has no such name.
///
/// # Errors
/// The store is open to others, or what it has of that name cannot be read.
pub fn find(name: &ImageName) -> io::Result<Option<Vec<ImageLayer>>> {
    let Some(store) = open()? else { return Ok(None) };
    let Some(id) = read_import(&store, name)? else { return Ok(None) };
    let record = read_record(&store, id)?;
    Ok(Some(record.layers().iter().map(|stored| stored.layer.clone()).collect()))
}

/// The id that an imported name means.
///
/// # Errors
/// What is there is not an id, or the kernel's.
pub fn read_import(store: &OwnedFd, name: &ImageName) -> io::Result<Option<Digest>> {
    let path = Path::new(IMPORTS).join(name.as_str());
    let Some(text) = if_there(read(store, &path, IMPORT_MAX))? else { return Ok(None) };
    let id =
        text.strip_suffix(b"\n").and_then(|text| Digest::parse(std::str::from_utf8(text).ok()?));
    id.map(Some).ok_or_else(|| damaged(&path, "is not the id of an image"))
}

/// The record of an image.
///
/// # Errors
/// It is missing or has another form.
pub fn read_record(store: &OwnedFd, id: Digest) -> io::Result<ImageRecord> {
    let path = Path::new(RECORDS).join(id.to_string());
    let bytes = if_there(read(store, &path, limits::MESSAGE_MAX))?;
    let bytes = bytes.ok_or_else(|| damaged(&path, "is missing"))?;
    ImageRecord::read(&bytes).map_err(|e| damaged(&path, &e.to_string()))
}

fn read(store: &OwnedFd, path: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = beneath(store.as_fd(), path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mounts::Stay)?;
    read_all(File::from(file), most)
}

fn damaged(path: &Path, why: &str) -> io::Error {
    let path = Path::new(IMAGES).join(path);
    io::Error::other(format!("{} {why}: import the image again", path.display()))
}

/// Opens the file of a layer and judges it; the kernel has not looked at what it holds.
///
/// # Errors
/// Which rule it breaks, or the kernel's.
pub fn open_layer(store: &OwnedFd, layer: &ImageLayer) -> io::Result<File> {
    // Without waiting for the writer of a FIFO.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
    let file = File::from(beneath(store.as_fd(), &layer.path(), flags, Mounts::Stay)?);
    check_layer(&file, layer.digest)?;
    Ok(file)
}

/// Judges the file of a layer: whose it is, and its superblock.
///
/// # Errors
/// Which rule it breaks, or the kernel's.
pub fn check_layer(file: &File, digest: Digest) -> io::Result<Metadata> {
    let meta = file.metadata()?;
    let bad = |reason: &str| Err(io::Error::other(format!("{reason}: import the image again")));
    if !meta.is_file() {
        return bad("is not a regular file");
    }
    if meta.uid() != 0 || meta.mode() & 0o7777 != LAYER_MODE {
        return bad("does not belong to root with mode 0400, so it may have been changed");
    }
    let mut bytes = [0; SUPER_LEN];
    if file.read_exact_at(&mut bytes, SUPER_OFFSET).is_err() {
        return bad("is too short for an EROFS");
    }
    match check_superblock(&bytes, meta.len(), &digest) {
        Ok(()) => Ok(meta),
        Err(reason) => bad(&reason),
    }
}

/// Whether a superblock is one of those that the converter writes, in a file of this length that was
/// made of an archive with this digest.
///
/// The kernel's code for compression, further devices and all else behind feature bits is not
/// reached then.
///
/// # Errors
/// The field that differs.
pub fn check_superblock(bytes: &[u8; SUPER_LEN], size: u64, digest: &Digest) -> Result<(), String> {
    let is = |range: Range<usize>, wanted: &[u8]| {
        let zeros = std::iter::repeat(&0);
        bytes
            .get(range)
            .is_some_and(|found| found.iter().zip(wanted.iter().chain(zeros)).all(|(a, b)| a == b))
    };
    let differs = |field: &str| {
        format!("is not a layer as nomad-nspawn-fetch writes it: {field} of its superblock differs")
    };
    if let Some((field, ..)) = FIELDS.iter().find(|(_, range, wanted)| !is(range.clone(), wanted)) {
        return Err(differs(field));
    }
    if !is(48..64, &digest.uuid()) {
        return Err(differs("uuid"));
    }
    let blocks = size / BLOCK;
    let fits = u32::try_from(blocks).is_ok_and(|blocks| is(36..40, &blocks.to_le_bytes()));
    if !fits || !size.is_multiple_of(BLOCK) {
        return Err(format!("{}, or the file has lost its end", differs("blocks")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the converter writes it.
    fn good(blocks: u32) -> [u8; SUPER_LEN] {
        let mut bytes = [0; SUPER_LEN];
        bytes[..4].copy_from_slice(&0xe0f5_e1e2_u32.to_le_bytes());
        (bytes[12], bytes[14], bytes[16]) = (12, 36, 7);
        bytes[36..40].copy_from_slice(&blocks.to_le_bytes());
        bytes[48..64].copy_from_slice(&[9; 16]);
        bytes
    }

    #[test]
    fn each_byte_of_a_superblock_but_the_number_of_inodes_is_judged() {
        let digest = Digest([9; 32]);
        let check = |bytes: &_, size| check_superblock(bytes, size, &digest);
        assert_eq!(check(&good(3), 3 * BLOCK), Ok(()));
        for at in 0..SUPER_LEN {
            for bit in 0..8 {
                let mut bytes = good(3);
                bytes[at] ^= 1 << bit;
                let result = check(&bytes, 3 * BLOCK);
                assert_eq!(result.is_ok(), (16..24).contains(&at), "{at}: {result:?}");
            }
        }
        let mut bytes = good(3);
        bytes[80] = 1;
        let reason = check(&bytes, 3 * BLOCK).unwrap_err();
        assert!(reason.contains("feature_incompat of its superblock"), "{reason}");
        for size in [0, 2 * BLOCK, 3 * BLOCK + 1, 4 * BLOCK, (3 << 32) * BLOCK + 3 * BLOCK] {
            assert!(check(&good(3), size).is_err(), "{size}");
        }
        assert!(check_superblock(&good(3), 3 * BLOCK, &Digest([8; 32])).is_err());
    }
}
