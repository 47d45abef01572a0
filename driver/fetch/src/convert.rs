//! From a stream of tar to an EROFS file.
//!
//! For: one layer, or one archive with a whole root.
//! Trusts: nothing of the stream.
//! Never: writes a superblock before all is read and checked, so that a half-made file cannot be
//! mounted.

use std::fs::File as OsFile;
use std::io::{BufReader, Read};

use crate::bounds::Bounds;
use crate::bytes::length;
use crate::compression::decompress;
use crate::erofs::format::BLOCK;
use crate::erofs::inode::{Attributes, FileType, Inode};
use crate::erofs::writer::{FileContent, Writer};
use crate::error::{Error, Result};
pub use crate::layer::below::Below;
use crate::layer::below::LowerFile;
use crate::layer::path::{Name, classify, components};
use crate::layer::tree::{File, Node, NodeId, ROOT, Tree};
use crate::layer::walk::Target;
use crate::layer::write::{new_inode, write_tree};
use crate::layer::xattrs;
use crate::tar::member::{Kind, Member};
use crate::tar::reader::Reader;

/// What a conversion is to make.
#[derive(Debug)]
pub struct Options {
    /// UUID of the file system: the first 16 bytes of the file's key. Overlayfs recognises layers
    /// by it and does without its index when it is zero.
    pub uuid: [u8; 16],
    /// The layers below.
    pub below: Below,
    /// What the layer may cost.
    pub bounds: Bounds,
}

/// The root directory of a layer, which overlayfs takes from the uppermost one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootAttributes {
    /// The archive leaves it out: it is like the one of the layers below, where they were given,
    /// else 0755 and root's. A caller that stacks this on a layer with another root has to convert
    /// it again, with the layers below.
    Implied,
    /// The archive describes it.
    Explicit {
        /// Whether it is other than 0755, root's, without extended attributes.
        special: bool,
    },
}

/// What a conversion has made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Bytes of the file, holes included.
    pub size: u64,
    /// Inodes in the file.
    pub inodes: u64,
    /// Where the root directory's attributes are from.
    pub root: RootAttributes,
    /// The archive hides all layers below. Overlayfs merges roots whatever their marks: a caller
    /// leaves the lower layers out.
    pub opaque_root: bool,
    /// Character and block devices that were left out, with their links.
    pub devices: u64,
    /// Extended attributes that were left out.
    pub xattrs: u64,
    /// Members that are no files: labels of volumes, bookkeeping of aufs, unknown types.
    pub others: u64,
}

impl Summary {
    /// What is found before the first member.
    fn new() -> Self {
        Self {
            size: 0,
            inodes: 0,
            root: RootAttributes::Implied,
            opaque_root: false,
            devices: 0,
            xattrs: 0,
            others: 0,
        }
    }
}

/// Reads `input` to its end and writes `output`, which is emptied first and has to be open for
/// writing. The file is on disk when this returns.
///
/// # Errors
///
/// See [`Error`]. Then `output` has no superblock.
pub fn convert(
    input: impl Read + 'static,
    output: OsFile,
    options: &Options,
) -> std::result::Result<Summary, Error> {
    let bounds = options.bounds;
    let writer = Writer::new(output, bounds.total_size)?;
    let plain = decompress(Box::new(input), bounds.ratio)?;
    let mut reader = Reader::new(BufReader::with_capacity(128 << 10, plain), bounds);
    let tree = Tree::new(&options.below, bounds)?;
    let mut layer = Layer { tree, writer, summary: Summary::new() };
    while let Some(member) = reader.next_member()? {
        layer.add(&member, &mut reader).map_err(|error| error.in_member(&member.path))?;
    }
    reader.drain()?;
    layer.finish(options.uuid)
}

/// A layer in the making.
struct Layer<'a> {
    tree: Tree<'a>,
    writer: Writer,
    summary: Summary,
}

impl Layer<'_> {
    fn add<R: std::io::BufRead>(&mut self, member: &Member, reader: &mut Reader<R>) -> Result<()> {
        self.tree.count_entry()?;
        if member.kind == Kind::Other {
            self.summary.others += 1;
            return Ok(());
        }
        let path = components(&member.path, &self.tree.bounds)?;
        let Some((name, parents)) = path.split_last() else {
            return self.add_root(member);
        };
        match classify(parents, name)? {
            Name::Bookkeeping => self.summary.others += 1,
            // There is nothing below that they could hide.
            Name::Opaque | Name::Whiteout(_) if matches!(self.tree.below, Below::Nothing) => {}
            Name::Opaque => {
                let directory = self.tree.open_directory(parents)?;
                self.tree.set_opaque(directory)?;
            }
            Name::Whiteout(name) => {
                let directory = self.tree.open_directory(parents)?;
                self.tree.put_whiteout(directory, name)?;
            }
            Name::Plain(name) => {
                let directory = self.tree.open_directory(parents)?;
                self.add_file(member, directory, name, reader)?;
            }
        }
        Ok(())
    }

    fn add_root(&mut self, member: &Member) -> Result<()> {
        if member.kind != Kind::Directory {
            return Err(Error::archive("it is the root and not a directory"));
        }
        let attributes = self.attributes(member)?;
        let plain = Attributes { mtime: attributes.mtime, ..Attributes::of_implied_directory() };
        self.summary.root = RootAttributes::Explicit { special: attributes != plain };
        self.tree.directory_mut(ROOT)?.attributes = attributes;
        Ok(())
    }

    fn attributes(&mut self, member: &Member) -> Result<Attributes> {
        let kept = xattrs::keep(member, &self.tree.bounds)?;
        self.summary.xattrs += kept.dropped;
        Ok(Attributes {
            mode: kept.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: kept.encoded,
        })
    }

    fn add_file<R: std::io::BufRead>(
        &mut self,
        member: &Member,
        directory: NodeId,
        name: &[u8],
        reader: &mut Reader<R>,
    ) -> Result<()> {
        let node = match member.kind {
            Kind::HardLink => return self.add_hard_link(member, directory, name),
            Kind::Directory => {
                let attributes = self.attributes(member)?;
                return self.tree.put_directory(directory, name, attributes).map(|_| ());
            }
            Kind::Device | Kind::Other => {
                self.summary.devices += 1;
                Node::Dropped
            }
            Kind::Regular => {
                let attributes = self.attributes(member)?;
                let nid = self.write_content(member, attributes, reader)?;
                Node::File(File { nid, links: 1, file_type: FileType::Regular })
            }
            Kind::Fifo => {
                let inode = new_inode(FileType::Fifo, self.attributes(member)?, 1);
                let nid = self.writer.add_small(inode, &[])?;
                Node::File(File { nid, links: 1, file_type: FileType::Fifo })
            }
            Kind::Symlink => {
                check_target(&member.link, &self.tree.bounds)?;
                let attributes = Attributes { mode: 0o777, ..self.attributes(member)? };
                let inode = new_inode(FileType::Symlink, attributes, 1);
                let nid = self.writer.add_small(inode, &member.link)?;
                let file = File { nid, links: 1, file_type: FileType::Symlink };
                Node::Symlink(Box::new((file, member.link.clone().into())))
            }
        };
        self.tree.put(directory, name, node).map(|_| ())
    }

    /// Writes a regular file as its data arrives.
    fn write_content<R: std::io::BufRead>(
        &mut self,
        member: &Member,
        attributes: Attributes,
        reader: &mut Reader<R>,
    ) -> Result<u64> {
        let size = member.file_size();
        if size > self.tree.bounds.file_size {
            return Err(Error::Bound(format!(
                "it has {size} bytes, more than {}",
                self.tree.bounds.file_size
            )));
        }
        let writer = &mut self.writer;
        let mut content = FileContent::begin(writer, size)?;
        let whole = [(0, size)];
        let regions = member.sparse.as_ref().map_or(&whole[..], |sparse| &sparse.regions);
        let mut at = 0;
        for (offset, length) in regions {
            content.append_zeros(writer, offset - at)?;
            reader.read_data(*length, |piece| content.append(writer, piece))?;
            at = offset + length;
        }
        content.append_zeros(writer, size - at)?;
        content.finish(writer, new_inode(FileType::Regular, attributes, 1))
    }

    fn add_hard_link(&mut self, member: &Member, directory: NodeId, name: &[u8]) -> Result<()> {
        let path = components(&member.link, &self.tree.bounds)?;
        let node = match self.tree.find_target(&path)? {
            Target::None => {
                return Err(Error::archive(format!(
                    "it is a hard link to {}, which does not exist",
                    crate::error::show(&member.link)
                )));
            }
            Target::Node(node) => node,
            Target::Below(file, inode, parent) => {
                let name = path.last().copied().unwrap_or_default();
                self.copy_up(file, &inode, parent, name)?
            }
        };
        match self.tree.node(node) {
            // A link to itself.
            _ if self.tree.child(directory, name)?.is_some_and(|child| child.node == node) => {
                Ok(())
            }
            Some(Node::Dropped) => {
                self.summary.devices += 1;
                self.tree.put(directory, name, Node::Dropped).map(|_| ())
            }
            Some(Node::Directory(_)) => Err(Error::archive("it is a hard link to a directory")),
            _ => self.tree.put_link(directory, name, node, false),
        }
    }

    /// Copies a file from a layer below, with all of its names, so that they stay links to one
    /// file, as they do when overlayfs copies it.
    fn copy_up(
        &mut self,
        file: LowerFile,
        inode: &Inode,
        parent: NodeId,
        name: &[u8],
    ) -> Result<NodeId> {
        let below = self.tree.below;
        let attributes = below.inode_to_copy(file)?.attributes;
        let copy = new_inode(inode.file_type, attributes, 1);
        let (nid, target) = match inode.file_type {
            FileType::Regular => {
                let mut content = FileContent::begin(&mut self.writer, inode.size)?;
                let mut at = 0;
                while at < inode.size {
                    let block = below.block(file, inode, at)?;
                    content.append(&mut self.writer, &block)?;
                    at += BLOCK;
                }
                (content.finish(&mut self.writer, copy)?, None)
            }
            FileType::Symlink => {
                let target = below.target(file, inode)?;
                (self.writer.add_small(copy, &target)?, Some(target))
            }
            _ => (self.writer.add_small(copy, &[])?, None),
        };
        let file_of = File { nid, links: 0, file_type: inode.file_type };
        let node = match target {
            Some(target) => Node::Symlink(Box::new((file_of, target.into()))),
            None => Node::File(file_of),
        };
        // The name is there below: it must not look as if the archive had it.
        let names = match inode.links {
            0 | 1 => Vec::new(),
            _ => self.tree.names_below(file)?,
        };
        let node = self.tree.add_node(node)?;
        for path in names {
            let path = components(&path, &self.tree.bounds)?;
            if self.tree.still_shows(&path, file)? {
                let Some((name, parents)) = path.split_last() else { continue };
                let directory = self.tree.open_directory(parents)?;
                self.tree.put_link(directory, name, node, true)?;
            }
        }
        if self.tree.child(parent, name)?.is_none() {
            self.tree.put_link(parent, name, node, true)?;
        }
        Ok(node)
    }

    fn finish(mut self, uuid: [u8; 16]) -> Result<Summary> {
        self.summary.opaque_root = self.tree.directory(ROOT)?.opaque;
        write_tree(&mut self.tree, &mut self.writer)?;
        (self.summary.size, self.summary.inodes) = self.writer.finish(uuid)?;
        Ok(self.summary)
    }
}

/// A symbolic link's target is never followed here but inside of the layers: any text is one.
fn check_target(target: &[u8], bounds: &Bounds) -> Result<()> {
    if target.is_empty() || target.contains(&0) {
        return Err(Error::archive("the symbolic link's target is empty or contains a NUL"));
    }
    if length(target.len()) >= BLOCK || target.len() > bounds.path {
        return Err(Error::Bound(format!("a link's target is longer than {} bytes", bounds.path)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
