//! Nodes and names of the layer.
//!
//! For: the tree as the members of the archive change it: the later of two wins, as for tar -x.
//! Trusts: names and paths that `path.rs` has split.
//! Never: holds more names, targets and attributes than its bound.

use std::collections::BTreeMap;

use super::below::{Below, LinkedNames, LowerDirectory, LowerEntry, LowerFile};
use crate::bounds::Bounds;
use crate::bytes::length;
use crate::erofs::inode::{Attributes, FileType};
use crate::erofs::writer::Place;
use crate::error::{Error, Result, show};

/// Index of a node.
pub(crate) type NodeId = u32;

/// The layer's root.
pub(crate) const ROOT: NodeId = 0;

/// About the memory that a name takes beside its bytes: allocations, its entry, its node.
const NAME_COST: usize = 80;

/// The same for a directory, with room for its first entries.
const DIRECTORY_COST: usize = 448;

/// What names lead to.
#[derive(Debug)]
pub(crate) enum Node {
    Directory(Box<Directory>),
    Symlink(Box<(File, Box<[u8]>)>),
    File(File),
    /// The layers below have no such file.
    Whiteout,
    /// A device, which is left out.
    Dropped,
}

/// A file whose inode is written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct File {
    pub(crate) nid: u64,
    pub(crate) links: u32,
    pub(crate) file_type: FileType,
}

/// A directory, which is written last.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) attributes: Attributes,
    pub(crate) children: BTreeMap<Box<[u8]>, Child>,
    pub(crate) parent: NodeId,
    depth: u16,
    /// To be marked for overlayfs: it hides the directories of its name below.
    pub(crate) opaque: bool,
    /// Nothing of the layers below shows through, here or further down.
    pub(crate) hidden: bool,
    /// Whether a member describes it.
    pub(crate) explicit: bool,
    /// What it is merged with, when the layers below are given.
    pub(crate) lower: LowerDirectory,
    /// Where it is written; set when all members are read.
    pub(crate) place: Option<Place>,
}

/// A name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child {
    pub(crate) node: NodeId,
    /// Copied from a layer below, because a hard link needs it.
    pub(crate) copied: bool,
}

/// The tree.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) nodes: Vec<Node>,
    pub(crate) below: &'a Below,
    pub(crate) bounds: Bounds,
    /// Names of files below that have several; read when they are needed first.
    linked: Option<LinkedNames>,
    entries: u64,
    held: u64,
}

impl<'a> Tree<'a> {
    /// A root without entries, with the attributes of the one below.
    pub(crate) fn new(below: &'a Below, bounds: Bounds) -> Result<Self> {
        let lower = below.root()?;
        let attributes = match lower.first() {
            Some(file) => below.inode_to_copy(*file)?.attributes,
            None => Attributes::of_implied_directory(),
        };
        let root = Directory {
            attributes,
            children: BTreeMap::new(),
            parent: ROOT,
            depth: 0,
            opaque: false,
            hidden: matches!(below, Below::Nothing),
            explicit: false,
            lower,
            place: None,
        };
        let nodes = vec![Node::Directory(Box::new(root))];
        Ok(Self { nodes, below, bounds, linked: None, entries: 0, held: 0 })
    }

    /// Counts a member, or a directory that it implies.
    pub(crate) fn count_entry(&mut self) -> Result<()> {
        self.entries += 1;
        if self.entries > self.bounds.entries {
            return Err(Error::Bound(format!(
                "the archive has more than {} members and directories",
                self.bounds.entries
            )));
        }
        Ok(())
    }

    fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held = self.held.saturating_add(length(bytes));
        if self.held > self.bounds.held {
            return Err(Error::Bound(format!(
                "names, link targets and directories take more than {} bytes of memory",
                self.bounds.held
            )));
        }
        Ok(())
    }

    /// A directory that is known to be one.
    pub(crate) fn directory(&self, id: NodeId) -> Result<&Directory> {
        match self.node(id) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(Error::archive("a directory has been replaced")),
        }
    }

    /// The same, to be changed.
    pub(crate) fn directory_mut(&mut self, id: NodeId) -> Result<&mut Directory> {
        match self.nodes.get_mut(crate::bytes::index(id.into())) {
            Some(Node::Directory(directory)) => Ok(directory),
            _ => Err(Error::archive("a directory has been replaced")),
        }
    }

    /// A node.
    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(crate::bytes::index(id.into()))
    }

    /// What the layer itself has under a name.
    pub(crate) fn child(&self, directory: NodeId, name: &[u8]) -> Result<Option<Child>> {
        Ok(self.directory(directory)?.children.get(name).copied())
    }

    /// What the layers below have under a name that the layer does not have.
    pub(crate) fn find_below(&self, directory: NodeId, name: &[u8]) -> Result<LowerEntry> {
        let parent = self.directory(directory)?;
        match self.below {
            _ if parent.hidden => Ok(LowerEntry::None),
            Below::Nothing => Ok(LowerEntry::None),
            Below::Unknown => Err(Error::NeedsLower(format!(
                "the archive leaves out {}, which a layer below may have",
                show(name)
            ))),
            Below::Layers(_) => self.below.find(&parent.lower, name),
        }
    }

    /// The paths of a file of a layer below that has several.
    pub(crate) fn names_below(&mut self, file: LowerFile) -> Result<Vec<Vec<u8>>> {
        let linked = match self.linked.take() {
            Some(linked) => linked,
            None => self.below.linked_names(&self.bounds)?,
        };
        let names = linked.get(&file).cloned().unwrap_or_default();
        self.linked = Some(linked);
        Ok(names)
    }

    /// Adds a node that has no name yet.
    pub(crate) fn add_node(&mut self, node: Node) -> Result<NodeId> {
        let id = u32::try_from(self.nodes.len());
        self.nodes.push(node);
        id.map_err(|_| Error::Bound("the archive has too many members".into()))
    }

    /// Gives a name to a node, in the place of what had it.
    fn link(&mut self, directory: NodeId, name: &[u8], child: Child) -> Result<Option<Child>> {
        self.hold(NAME_COST + name.len())?;
        let children = &mut self.directory_mut(directory)?.children;
        let before = children.insert(name.into(), child);
        if let Some(before) = before {
            self.unlink(before.node);
        }
        Ok(before)
    }

    /// Takes one name away from a node, and all nodes below it.
    fn unlink(&mut self, node: NodeId) {
        let mut todo = vec![node];
        while let Some(id) = todo.pop() {
            match self.nodes.get_mut(crate::bytes::index(id.into())) {
                Some(Node::File(file)) => file.links = file.links.saturating_sub(1),
                Some(Node::Symlink(link)) => link.0.links = link.0.links.saturating_sub(1),
                Some(node @ Node::Directory(_)) => {
                    if let Node::Directory(directory) = std::mem::replace(node, Node::Dropped) {
                        todo.extend(directory.children.values().map(|child| child.node));
                    }
                }
                Some(Node::Whiteout | Node::Dropped) | None => {}
            }
        }
    }

    /// Puts a node that has one name.
    pub(crate) fn put(&mut self, directory: NodeId, name: &[u8], node: Node) -> Result<NodeId> {
        if let Node::Symlink(link) = &node {
            self.hold(link.1.len())?;
        }
        let id = self.add_node(node)?;
        self.link(directory, name, Child { node: id, copied: false })?;
        Ok(id)
    }

    /// Gives a further name to a file.
    pub(crate) fn put_link(
        &mut self,
        directory: NodeId,
        name: &[u8],
        node: NodeId,
        copied: bool,
    ) -> Result<()> {
        // The file's only other name may be below what the new name replaces: count first.
        match self.nodes.get_mut(crate::bytes::index(node.into())) {
            Some(Node::File(file)) => file.links += 1,
            Some(Node::Symlink(link)) => link.0.links += 1,
            _ => return Err(Error::archive("a hard link leads to no file")),
        }
        self.link(directory, name, Child { node, copied }).map(|_| ())
    }

    /// Puts a directory, or gives an existing one these attributes.
    pub(crate) fn put_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId> {
        self.hold(attributes.xattrs.len())?;
        let child = self.child(parent, name)?;
        if let Some(child) = child
            && let Ok(directory) = self.directory_mut(child.node)
        {
            directory.attributes = attributes;
            directory.explicit = true;
            return Ok(child.node);
        }
        // What it replaces has hidden the directories below already.
        let replaces = child.is_some();
        let lower = match self.below {
            Below::Layers(_) if !replaces => match self.find_below(parent, name)? {
                LowerEntry::Directory(lower) => lower,
                _ => Box::default(),
            },
            _ => Box::default(),
        };
        self.add_directory(parent, name, attributes, lower, (true, replaces))
    }

    /// Adds a directory that is not there. `lower`: what it is merged with.
    pub(crate) fn add_directory(
        &mut self,
        parent: NodeId,
        name: &[u8],
        attributes: Attributes,
        lower: LowerDirectory,
        (explicit, replaces): (bool, bool),
    ) -> Result<NodeId> {
        let above = self.directory(parent)?;
        let (depth, above_hidden) = (above.depth + 1, above.hidden);
        if depth > self.bounds.depth {
            return Err(Error::Bound(format!(
                "a directory is more than {} below the root",
                self.bounds.depth
            )));
        }
        let directory = Directory {
            attributes,
            children: BTreeMap::new(),
            parent,
            depth,
            opaque: replaces && !above_hidden,
            hidden: replaces || above_hidden,
            explicit,
            lower,
            place: None,
        };
        self.hold(DIRECTORY_COST)?;
        self.put(parent, name, Node::Directory(Box::new(directory)))
    }

    /// Hides what the layers below have in a directory.
    pub(crate) fn set_opaque(&mut self, id: NodeId) -> Result<()> {
        let directory = self.directory_mut(id)?;
        directory.opaque = !directory.hidden || directory.opaque;
        directory.hidden = true;
        directory.lower = Box::default();
        Ok(())
    }

    /// Hides what the layers below have under a name. What this layer has there stays.
    pub(crate) fn put_whiteout(&mut self, parent: NodeId, name: &[u8]) -> Result<()> {
        match self.child(parent, name)? {
            Some(child) if self.directory(child.node).is_ok() => self.set_opaque(child.node),
            Some(child) if !child.copied => Ok(()),
            _ => {
                let shows = match self.below {
                    _ if self.directory(parent)?.hidden => false,
                    Below::Nothing => false,
                    Below::Unknown => true,
                    Below::Layers(_) => !matches!(self.find_below(parent, name)?, LowerEntry::None),
                };
                if shows {
                    self.put(parent, name, Node::Whiteout)?;
                }
                Ok(())
            }
        }
    }
}
