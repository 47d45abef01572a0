//! From paths to nodes.
//!
//! For: the directory that a member lies in, and the file that a hard link leads to. Symbolic links
//! on the way are followed as in a chroot of the layers: an absolute target begins at their root.
//! Trusts: nothing.
//! Never: leaves the tree; at its root, `..` leads to the root.

use super::below::{Below, LowerEntry, LowerFile};
use super::tree::{Node, NodeId, ROOT, Tree};
use crate::erofs::inode::{Attributes, FileType, Inode};
use crate::error::{Error, Result, show};

/// Symbolic links on one path; the kernel's number.
const MAX_LINKS: u32 = 40;

/// The file that a hard link leads to.
#[derive(Debug)]
pub(crate) enum Target {
    None,
    /// In this layer.
    Node(NodeId),
    /// In a layer below, under this name of this directory.
    Below(LowerFile, Inode, NodeId),
}

/// Components that are still to be walked, the next one last.
struct Rest {
    components: Vec<Vec<u8>>,
    links: u32,
    most: usize,
}

impl Rest {
    fn follow(&mut self, target: &[u8]) -> Result<()> {
        self.links += 1;
        let rest: usize = self.components.iter().map(|one| one.len() + 1).sum();
        if self.links > MAX_LINKS || rest + target.len() > self.most {
            return Err(Error::archive("too many symbolic links on the way to it"));
        }
        let components = target.split(|byte| *byte == b'/').rev();
        let components = components.filter(|one| !matches!(*one, b"" | b"."));
        self.components.extend(components.map(<[u8]>::to_vec));
        Ok(())
    }
}

impl Tree<'_> {
    /// The directory at this path. Those that are not there are made: like the ones below where
    /// these have them, else 0755, root.
    pub(crate) fn open_directory(&mut self, path: &[&[u8]]) -> Result<NodeId> {
        let components = path.iter().rev().map(|one| one.to_vec()).collect();
        let mut rest = Rest { components, links: 0, most: self.bounds.path };
        let mut at = ROOT;
        while let Some(name) = rest.components.pop() {
            at = match name.as_slice() {
                b".." => self.directory(at)?.parent,
                name => self.step(at, name, &mut rest)?,
            };
        }
        Ok(at)
    }

    /// One component further.
    fn step(&mut self, at: NodeId, name: &[u8], rest: &mut Rest) -> Result<NodeId> {
        let not_directory =
            || Error::archive(format!("{} on the way to it is not a directory", show(name)));
        let Some(child) = self.child(at, name)? else {
            return match self.find_below(at, name)? {
                LowerEntry::None => self.imply(at, name, Box::default(), false),
                LowerEntry::Directory(lower) => self.imply(at, name, lower, false),
                LowerEntry::File(file, inode) if inode.file_type == FileType::Symlink => {
                    follow(at, &self.below.target(file, &inode)?, rest)
                }
                LowerEntry::File(..) => Err(not_directory()),
            };
        };
        match self.node(child.node) {
            Some(Node::Directory(_)) => Ok(child.node),
            Some(Node::Symlink(link)) => follow(at, &link.1, rest),
            Some(Node::Whiteout) => self.imply(at, name, Box::default(), true),
            _ => Err(not_directory()),
        }
    }

    fn imply(
        &mut self,
        parent: NodeId,
        name: &[u8],
        lower: super::below::LowerDirectory,
        replaces: bool,
    ) -> Result<NodeId> {
        self.count_entry()?;
        let attributes = match lower.first() {
            Some(file) => self.below.inode_to_copy(*file)?.attributes,
            None => Attributes::of_implied_directory(),
        };
        self.add_directory(parent, name, attributes, lower, (false, replaces))
    }

    /// What a hard link to this path leads to. A symbolic link at its end is not followed.
    pub(crate) fn find_target(&mut self, path: &[&[u8]]) -> Result<Target> {
        let Some((name, parents)) = path.split_last() else {
            return Ok(Target::Node(ROOT));
        };
        let directory = self.open_directory(parents)?;
        if let Some(child) = self.child(directory, name)? {
            return Ok(match self.node(child.node) {
                Some(Node::Whiteout) | None => Target::None,
                Some(_) => Target::Node(child.node),
            });
        }
        Ok(match self.find_below(directory, name)? {
            LowerEntry::None => Target::None,
            LowerEntry::Directory(_) => return Err(Error::archive("it is a link to a directory")),
            LowerEntry::File(file, inode) => Target::Below(file, inode, directory),
        })
    }

    /// Whether this path, without symbolic links, still leads to `file` of a layer below.
    pub(crate) fn still_shows(&self, path: &[&[u8]], file: LowerFile) -> Result<bool> {
        let Some((name, parents)) = path.split_last() else { return Ok(false) };
        let mut merged = self.below.root()?;
        let mut node = Some(ROOT);
        for parent in parents {
            let child = match node {
                Some(node) => self.child(node, parent)?,
                None => None,
            };
            match child.map(|child| self.directory(child.node)) {
                Some(Ok(directory)) if !directory.hidden => {
                    merged = directory.lower.clone();
                    node = child.map(|child| child.node);
                }
                Some(_) => return Ok(false),
                None => {
                    let LowerEntry::Directory(next) = self.below.find(&merged, parent)? else {
                        return Ok(false);
                    };
                    merged = next;
                    node = None;
                }
            }
        }
        if let Some(node) = node
            && (self.directory(node)?.hidden || self.child(node, name)?.is_some())
        {
            return Ok(false);
        }
        let found = self.below.find(&merged, name)?;
        Ok(matches!(found, LowerEntry::File(one, _) if one == file))
    }

    /// Turns devices that were left out into whiteouts where a layer below has their name.
    pub(crate) fn settle_dropped(&mut self) -> Result<()> {
        if !matches!(self.below, Below::Layers(_)) {
            return Ok(());
        }
        let mut found = Vec::new();
        for node in &self.nodes {
            let Node::Directory(directory) = node else { continue };
            for (name, child) in directory.children.iter().filter(|_| !directory.hidden) {
                if matches!(self.node(child.node), Some(Node::Dropped))
                    && !matches!(self.below.find(&directory.lower, name)?, LowerEntry::None)
                {
                    found.push(child.node);
                }
            }
        }
        for id in found {
            if let Some(node) = self.nodes.get_mut(crate::bytes::index(id.into())) {
                *node = Node::Whiteout;
            }
        }
        Ok(())
    }
}

fn follow(at: NodeId, target: &[u8], rest: &mut Rest) -> Result<NodeId> {
    rest.follow(target)?;
    Ok(if target.starts_with(b"/") { ROOT } else { at })
}
