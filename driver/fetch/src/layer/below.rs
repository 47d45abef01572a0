//! What lies below a layer.
//!
//! For: one view of the layers below, merged as overlayfs merges them, for paths that the archive
//! leaves out.
//! Trusts: nothing of their content.
//! Never: guesses where the layers are not known.

use std::collections::{BTreeMap, BTreeSet};

use crate::bounds::Bounds;
use crate::bytes::length;
use crate::erofs::inode::{FileType, Inode, decode_xattrs, encode_xattrs};
use crate::erofs::reader::Lower;
use crate::error::{Error, Result};

/// Name of the attribute by which overlayfs marks a directory that hides those below it.
pub(crate) const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Layers below the one that is made.
#[derive(Debug)]
pub enum Below {
    /// None: it is the lowest, or a file of its own.
    Nothing,
    /// Some, which are not given: the conversion ends with [`Error::NeedsLower`] when the archive
    /// leaves something out.
    Unknown,
    /// These, the uppermost first.
    Layers(Vec<Lower>),
}

/// A file in one of the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LowerFile {
    pub(crate) layer: u16,
    pub(crate) nid: u64,
}

/// A directory, as the list of those that are merged, the uppermost first. Empty: there is none.
pub(crate) type LowerDirectory = Box<[LowerFile]>;

/// Paths, with a slash at their end, of the files that have several.
pub(crate) type LinkedNames = BTreeMap<LowerFile, Vec<Vec<u8>>>;

/// What a name stands for.
#[derive(Debug)]
pub(crate) enum LowerEntry {
    None,
    Directory(LowerDirectory),
    File(LowerFile, Inode),
}

impl Below {
    fn layer(&self, layer: u16) -> Result<&Lower> {
        let Self::Layers(layers) = self else { return Err(Error::Lower("not given".into())) };
        layers.get(usize::from(layer)).ok_or_else(|| Error::Lower("not given".into()))
    }

    /// The merged root.
    pub(crate) fn root(&self) -> Result<LowerDirectory> {
        let Self::Layers(layers) = self else { return Ok(Box::default()) };
        let mut merged = Vec::new();
        for (layer, lower) in (0u16..).zip(layers) {
            let file = LowerFile { layer, nid: lower.root() };
            let inode = self.inode(file)?;
            if inode.file_type != FileType::Directory {
                return Err(Error::Lower("its root is not a directory".into()));
            }
            merged.push(file);
            if is_opaque(&inode) {
                break;
            }
        }
        Ok(merged.into())
    }

    /// The inode of a file.
    pub(crate) fn inode(&self, file: LowerFile) -> Result<Inode> {
        self.layer(file.layer)?.inode(file.nid)
    }

    /// The inode with the attributes that a copy of it has. The marks of overlayfs stay behind.
    pub(crate) fn inode_to_copy(&self, file: LowerFile) -> Result<Inode> {
        let mut inode = self.inode(file)?;
        let damaged = || Error::Lower("attributes of an inode".into());
        let mut xattrs = decode_xattrs(&inode.attributes.xattrs).ok_or_else(damaged)?;
        xattrs.retain(|name, _| !name.starts_with(b"trusted."));
        inode.attributes.xattrs = encode_xattrs(&xattrs).ok_or_else(damaged)?;
        Ok(inode)
    }

    /// Looks `name` up in a merged directory.
    pub(crate) fn find(&self, directory: &[LowerFile], name: &[u8]) -> Result<LowerEntry> {
        let mut merged = Vec::new();
        for part in directory {
            let lower = self.layer(part.layer)?;
            let Some(nid) = lower.find(part.nid, &lower.inode(part.nid)?, name)? else { continue };
            let file = LowerFile { layer: part.layer, nid };
            let inode = lower.inode(nid)?;
            match inode.file_type {
                FileType::Directory => {
                    merged.push(file);
                    if is_opaque(&inode) {
                        break;
                    }
                }
                // A whiteout.
                FileType::Character => break,
                _ if merged.is_empty() => return Ok(LowerEntry::File(file, inode)),
                _ => break,
            }
        }
        if merged.is_empty() {
            return Ok(LowerEntry::None);
        }
        Ok(LowerEntry::Directory(merged.into()))
    }

    /// The target of a symbolic link.
    pub(crate) fn target(&self, file: LowerFile, inode: &Inode) -> Result<Vec<u8>> {
        self.layer(file.layer)?.target(file.nid, inode)
    }

    /// A block of a file's content.
    pub(crate) fn block(&self, file: LowerFile, inode: &Inode, at: u64) -> Result<Vec<u8>> {
        self.layer(file.layer)?.block(file.nid, inode, at)
    }

    /// The paths of all files that have several names, which may be in any directory.
    pub(crate) fn linked_names(&self, bounds: &Bounds) -> Result<LinkedNames> {
        let mut names = LinkedNames::new();
        let (mut entries, mut bytes) = (bounds.entries, bounds.held);
        let too_large = || Error::Lower("it has more files than its bounds allow".into());
        let mut todo = vec![(Vec::new(), self.root()?, bounds.depth)];
        while let Some((path, directory, depth)) = todo.pop() {
            let mut seen = BTreeSet::new();
            for part in &directory {
                let lower = self.layer(part.layer)?;
                let found = lower.entries(part.nid, &lower.inode(part.nid)?, entries)?;
                entries -= length(found.len()).min(entries);
                for (name, nid) in found {
                    if seen.contains(&name) {
                        continue;
                    }
                    let file = LowerFile { layer: part.layer, nid };
                    let inode = lower.inode(nid)?;
                    let path = [&path, &name[..], b"/"].concat();
                    bytes = bytes.checked_sub(length(path.len())).ok_or_else(too_large)?;
                    if inode.file_type == FileType::Directory {
                        let depth = depth.checked_sub(1).ok_or_else(too_large)?;
                        if let LowerEntry::Directory(next) = self.find(&directory, &name)? {
                            todo.push((path, next, depth));
                        }
                    } else if inode.links > 1 && inode.file_type != FileType::Character {
                        names.entry(file).or_default().push(path);
                    }
                    seen.insert(name);
                }
            }
        }
        names.values_mut().for_each(|paths| paths.sort());
        Ok(names)
    }
}

fn is_opaque(inode: &Inode) -> bool {
    decode_xattrs(&inode.attributes.xattrs).is_some_and(|xattrs| xattrs.contains_key(OPAQUE))
}
