//! Trees as lists that can be compared: type, mode, owner, size, target, attributes, links, content.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Type and permissions.
    pub(crate) mode: String,
    pub(crate) owner: (u32, u32),
    /// None for directories.
    pub(crate) size: Option<u64>,
    /// Seconds and nanoseconds; none when they are not compared.
    pub(crate) mtime: Option<(i64, i64)>,
    pub(crate) target: PathBuf,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// Other names of the file, and its number of links.
    pub(crate) links: (Vec<PathBuf>, u64),
    pub(crate) content: u64,
}

/// A tree.
pub(crate) type Listing = BTreeMap<PathBuf, Entry>;

/// Lists a tree, with its root as an empty path.
pub(crate) fn list(root: &Path, with_mtime: bool) -> Listing {
    let mut listing = Listing::new();
    let mut names: HashMap<(u64, u64), Vec<PathBuf>> = HashMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        let full = if path.as_os_str().is_empty() { root.to_path_buf() } else { full };
        let meta = std::fs::symlink_metadata(&full).unwrap();
        if meta.is_dir() {
            let entries = std::fs::read_dir(&full).unwrap();
            todo.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        } else {
            names.entry((meta.dev(), meta.ino())).or_default().push(path.clone());
        }
        listing.insert(path, entry(&full, &meta, with_mtime));
    }
    for paths in names.values_mut() {
        paths.sort();
        for path in paths.iter() {
            listing.get_mut(path).unwrap().links.0.clone_from(paths);
        }
    }
    listing
}

fn entry(path: &Path, meta: &std::fs::Metadata, with_mtime: bool) -> Entry {
    let is_link = meta.file_type().is_symlink();
    Entry {
        mode: format!("{:o}", meta.mode()),
        owner: (meta.uid(), meta.gid()),
        size: (!meta.is_dir()).then_some(meta.size()),
        mtime: with_mtime.then_some((meta.mtime(), meta.mtime_nsec())),
        target: if is_link { std::fs::read_link(path).unwrap() } else { PathBuf::new() },
        xattrs: xattrs(path),
        links: (Vec::new(), if meta.is_dir() { 0 } else { meta.nlink() }),
        content: if meta.is_file() { hash(path) } else { 0 },
    }
}

/// Of a file beyond 1 GiB only the beginning of every 16 MiB and the end are read.
fn hash(path: &Path) -> u64 {
    let file = std::fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let (window, step) = if size > 1 << 30 { (64 << 10, 16 << 20) } else { (1 << 20, 1 << 20) };
    let mut hasher = DefaultHasher::new();
    let mut buffer = vec![0; window];
    let mut places: Vec<u64> = (0..size).step_by(step).collect();
    places.push(size.saturating_sub(window as u64));
    for at in places {
        let count = buffer.len().min((size - at) as usize);
        file.read_exact_at(&mut buffer[..count], at).unwrap();
        hasher.write(&buffer[..count]);
    }
    hasher.finish()
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let count = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = std::str::from_utf8(name).unwrap();
            let mut value = vec![0; 64 << 10];
            let count = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            value.truncate(count);
            (name.to_string(), value)
        })
        .collect()
}

/// Sets an attribute.
pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty())
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

/// Compares two trees and shows the first differences.
pub(crate) fn assert_same(ours: &Listing, theirs: &Listing) {
    let mut differences = Vec::new();
    let all: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in all {
        if ours.get(path) != theirs.get(path) {
            let name = path.as_os_str().as_bytes().escape_ascii().to_string();
            differences.push(format!("{name}\n  {:?}\n  {:?}", ours.get(path), theirs.get(path)));
        }
    }
    let count = differences.len();
    differences.truncate(10);
    assert!(count == 0, "{count} differ (ours, theirs):\n{}", differences.join("\n"));
}
