//! Writing the tree.
//!
//! For: directories, whiteouts and numbers of links, after the last member.
//! Trusts: the tree.
//! Never: depends on anything but the tree, so that the same archive gives the same bytes.

use super::below::OPAQUE;
use super::tree::{Directory, Node, NodeId, ROOT, Tree};
use crate::bytes::{index, length};
use crate::erofs::directory::{Block, Entry, directory_size};
use crate::erofs::format::{BLOCK, BLOCK_LEN, INODE_LEN, ROOT_AT};
use crate::erofs::inode::{
    Attributes, FileType, Inode, Layout, decode_xattrs, encode_xattrs, xattr_len,
};
use crate::erofs::writer::{Place, Writer};
use crate::error::{Error, Result};

/// Writes all that is not written yet, except for the superblock.
pub(crate) fn write_tree(tree: &mut Tree<'_>, writer: &mut Writer) -> Result<()> {
    tree.settle_dropped()?;
    mark_opaque(tree)?;
    let order = directories(tree)?;
    let whiteout = write_whiteout(tree, &order, writer)?;
    // Directories have to know the numbers of those in them: first a place for each.
    for id in &order {
        let directory = tree.directory(*id)?;
        let size = directory_size(names(directory, tree).map(|(name, _)| name.len()));
        let place = reserve(directory, *id, size, writer)?;
        tree.directory_mut(*id)?.place = Some(place);
    }
    for id in order {
        write_directory(tree, id, whiteout, writer)?;
    }
    for node in &tree.nodes {
        let file = match node {
            Node::File(file) => file,
            Node::Symlink(link) => &link.0,
            _ => continue,
        };
        if file.links > 1 {
            writer.set_links(file.nid, file.links)?;
        }
    }
    Ok(())
}

/// Directories, each before those in it.
fn directories(tree: &Tree<'_>) -> Result<Vec<NodeId>> {
    let mut order = Vec::new();
    let mut todo = vec![ROOT];
    while let Some(id) = todo.pop() {
        order.push(id);
        let children = tree.directory(id)?.children.values().rev().map(|child| child.node);
        todo.extend(children.filter(|id| tree.directory(*id).is_ok()));
    }
    Ok(order)
}

fn mark_opaque(tree: &mut Tree<'_>) -> Result<()> {
    let damaged = || Error::Bound("the attributes of a directory are too long".into());
    for node in &mut tree.nodes {
        let Node::Directory(directory) = node else { continue };
        if directory.opaque {
            let xattrs = &mut directory.attributes.xattrs;
            let mut all = decode_xattrs(xattrs).ok_or_else(damaged)?;
            all.insert(OPAQUE.to_vec(), b"y".to_vec());
            *xattrs = encode_xattrs(&all).ok_or_else(damaged)?;
        }
    }
    Ok(())
}

/// All whiteouts are names of one inode, as overlayfs itself makes them.
fn write_whiteout(tree: &Tree<'_>, order: &[NodeId], writer: &mut Writer) -> Result<u64> {
    let mut links = 0;
    for id in order {
        let children = tree.directory(*id)?.children.values();
        let whiteouts =
            children.filter(|child| matches!(tree.node(child.node), Some(Node::Whiteout)));
        links += whiteouts.count();
    }
    if links == 0 {
        return Ok(0);
    }
    let attributes = Attributes { mode: 0, ..Attributes::of_implied_directory() };
    let links = u32::try_from(links).unwrap_or(u32::MAX);
    writer.add_small(new_inode(FileType::Character, attributes, links), &[])
}

/// An inode whose size and place the writer sets.
pub(crate) fn new_inode(file_type: FileType, attributes: Attributes, links: u32) -> Inode {
    Inode { file_type, attributes, size: 0, links, layout: Layout::Plain(0), number: 0 }
}

/// Names that are written, in the order of their bytes, with those of the directory itself and of
/// the one above it.
fn names<'t>(
    directory: &'t Directory,
    tree: &'t Tree<'_>,
) -> impl Iterator<Item = (&'t [u8], Option<&'t Node>)> {
    let mut own = [&b"."[..], b".."].into_iter().peekable();
    let mut others = directory
        .children
        .iter()
        .map(|(name, child)| (&name[..], tree.node(child.node)))
        .filter(|(_, node)| !matches!(node, Some(Node::Dropped) | None))
        .peekable();
    std::iter::from_fn(move || match (own.peek(), others.peek()) {
        (Some(one), Some((other, _))) if one > other => others.next(),
        (Some(_), _) => own.next().map(|name| (name, None)),
        (None, _) => others.next(),
    })
}

fn reserve(directory: &Directory, id: NodeId, size: u64, writer: &mut Writer) -> Result<Place> {
    let xattrs = &directory.attributes.xattrs;
    let tail = index(size % BLOCK);
    let head = INODE_LEN + xattr_len(xattrs);
    let room = BLOCK_LEN - if id == ROOT { ROOT_AT } else { 0 };
    let inline = head + tail <= room;
    let block = writer.next_block()?;
    let data = if inline { size - size % BLOCK } else { size.next_multiple_of(BLOCK) };
    writer.append_zeros(data)?;
    let tail = if inline { tail } else { 0 };
    let block = if data == 0 { 0 } else { block };
    if id == ROOT {
        writer.reserve_root(xattrs, tail, block)
    } else {
        writer.reserve(xattrs, tail, block)
    }
}

fn write_directory(tree: &Tree<'_>, id: NodeId, whiteout: u64, writer: &mut Writer) -> Result<()> {
    let directory = tree.directory(id)?;
    let lost = || Error::archive("a directory has been replaced");
    let place = directory.place.ok_or_else(lost)?;
    let nid_of = |id: NodeId| tree.directory(id).ok().and_then(|one| one.place).map(|one| one.nid);
    let (mut links, mut size) = (2u32, 0u64);
    let mut offset = u64::from(place.block) * BLOCK;
    let mut block = Block::default();
    for (name, node) in names(directory, tree) {
        let (nid, file_type) = match node {
            None if name == b"." => (place.nid, FileType::Directory),
            None => (nid_of(directory.parent).ok_or_else(lost)?, FileType::Directory),
            Some(Node::Directory(child)) => {
                links = links.saturating_add(1);
                (child.place.ok_or_else(lost)?.nid, FileType::Directory)
            }
            Some(Node::File(file)) => (file.nid, file.file_type),
            Some(Node::Symlink(link)) => (link.0.nid, link.0.file_type),
            Some(Node::Whiteout) => (whiteout, FileType::Character),
            Some(Node::Dropped) => continue,
        };
        if block.is_full(name.len()) {
            let bytes = block.take();
            writer.write_at(offset, &bytes)?;
            offset += BLOCK;
            size += BLOCK;
        }
        block.push(&Entry { name, nid, file_type });
    }
    size += length(block.len());
    let tail = block.take();
    if !place.inline {
        writer.write_at(offset, &tail)?;
    }
    let layout =
        if place.inline { Layout::Inline(place.block) } else { Layout::Plain(place.block) };
    let inode = Inode {
        size,
        layout,
        number: u32::try_from(place.nid).unwrap_or(u32::MAX),
        ..new_inode(FileType::Directory, directory.attributes.clone(), links)
    };
    writer.write_inode(place, &inode, &tail)
}
