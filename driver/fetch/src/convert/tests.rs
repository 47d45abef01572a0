//! Random archives, read back, against a model; and archives with random damage.

use std::collections::BTreeMap;
use std::fs::File as OsFile;
use std::io::Cursor;

use proptest::prelude::*;

use super::{Below, Bounds, Options, convert};
use crate::erofs::inode::FileType;
use crate::erofs::reader::Lower;
use crate::error::Error;

#[path = "../../tests/convert/support/builder.rs"]
#[allow(dead_code, reason = "made for the tests of the whole")]
mod builder;

use builder::{Archive, Header};

/// A file without a name.
fn new_file() -> OsFile {
    let directories = ["/dev/shm", "/tmp"];
    let path = directories.iter().map(std::path::Path::new).find(|path| path.is_dir()).unwrap();
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = path.join(format!("convert-{}-{number}", std::process::id()));
    let file = OsFile::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

fn run(archive: Vec<u8>, below: Below) -> Result<Lower, Error> {
    let file = new_file();
    let bounds = Bounds { total_size: 64 << 20, ..Bounds::default() };
    let options = Options { uuid: [7; 16], below, bounds };
    convert(Cursor::new(archive), file.try_clone().unwrap(), &options)?;
    Lower::open(file)
}

/// Paths with content, or none for directories, and number of links.
type Files = BTreeMap<String, (Option<Vec<u8>>, u32)>;

/// All files of a layer.
fn read_back(lower: &Lower) -> Files {
    let mut files = BTreeMap::new();
    let mut todo = vec![(String::new(), lower.root())];
    while let Some((path, nid)) = todo.pop() {
        let inode = lower.inode(nid).unwrap();
        if inode.file_type != FileType::Directory {
            let blocks = (0..inode.size).step_by(4096);
            let content = blocks.flat_map(|at| lower.block(nid, &inode, at).unwrap()).collect();
            files.insert(path, (Some(content), inode.links));
            continue;
        }
        let entries = lower.entries(nid, &inode, 1000).unwrap();
        assert!(entries.is_sorted(), "{entries:?}");
        let directories = entries
            .iter()
            .filter(|(_, nid)| lower.inode(*nid).unwrap().file_type == FileType::Directory);
        assert_eq!(inode.links as usize, 2 + directories.count());
        for (name, child) in entries {
            assert_eq!(lower.find(nid, &inode, &name).unwrap(), Some(child));
            todo.push((format!("{path}/{}", String::from_utf8(name).unwrap()), child));
        }
        assert_eq!(lower.find(nid, &inode, b"\xff absent").unwrap(), None);
        files.insert(path, (None, 0));
    }
    files
}

#[derive(Debug, Clone)]
enum Step {
    File(Vec<usize>, Vec<u8>),
    Directory(Vec<usize>),
    HardLink(Vec<usize>, Vec<usize>),
}

/// Names around `.` and `..`, and one that fills directories' blocks.
fn names() -> [String; 5] {
    ["a".into(), "-".into(), ".b".into(), "...".into(), "l".repeat(255)]
}

fn path_of(path: &[usize]) -> String {
    path.iter().map(|name| names()[*name].clone()).collect::<Vec<_>>().join("/")
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || prop::collection::vec(0..5usize, 1..4);
    let sizes = prop_oneof![0..50usize, 3900..4200usize, 8000..8400usize];
    let content = (sizes, any::<u8>()).prop_map(|(size, seed)| {
        (0..size)
            .map(|at| u8::try_from(at % 256).unwrap().wrapping_mul(7).wrapping_add(seed))
            .collect()
    });
    let step = prop_oneof![
        3 => (path(), content).prop_map(|(path, content)| Step::File(path, content)),
        2 => path().prop_map(Step::Directory),
        1 => (path(), path()).prop_map(|(name, target)| Step::HardLink(name, target)),
    ];
    prop::collection::vec(step, 0..40)
}

/// What tar -x would have made: paths with the number of a file, or none for directories. None:
/// the archive is to be refused.
fn model(steps: &[Step]) -> Option<Files> {
    let mut tree: BTreeMap<String, Option<usize>> = BTreeMap::from([(String::new(), None)]);
    let mut contents = Vec::new();
    for step in steps {
        let (Step::File(path, _) | Step::Directory(path) | Step::HardLink(path, _)) = step;
        let (path, file) = (format!("/{}", path_of(path)), step);
        let make_parents = |tree: &mut BTreeMap<String, Option<usize>>, path: &str| {
            let parents = path.match_indices('/').map(|(at, _)| path[..at].to_string());
            parents.into_iter().all(|parent| tree.entry(parent).or_insert(None).is_none())
        };
        make_parents(&mut tree, &path).then_some(())?;
        let node = match file {
            Step::File(_, content) => {
                contents.push(content.clone());
                Some(contents.len() - 1)
            }
            Step::Directory(_) => None,
            Step::HardLink(_, target) => {
                let target = format!("/{}", path_of(target));
                make_parents(&mut tree, &target).then_some(())?;
                Some((*tree.get(&target)?)?)
            }
        };
        if node.is_some() {
            let below = format!("{path}/");
            tree.retain(|other, _| !other.starts_with(&below));
        }
        tree.insert(path, node);
    }
    let links = |node: usize| tree.values().filter(|other| **other == Some(node)).count();
    let entry = |node: &Option<usize>| match node {
        Some(node) => (Some(contents[*node].clone()), u32::try_from(links(*node)).unwrap()),
        None => (None, 0),
    };
    Some(tree.iter().map(|(path, node)| (path.clone(), entry(node))).collect())
}

fn archive(steps: &[Step]) -> Vec<u8> {
    let long = |archive: Archive, path: &[usize]| {
        archive.extension(b'L', format!("{}\0", path_of(path)).as_bytes())
    };
    let archive = steps.iter().fold(Archive::new(), |archive, step| match step {
        Step::File(path, content) => long(archive, path).file("name", content),
        Step::Directory(path) => long(archive, path).directory("name"),
        Step::HardLink(path, target) => {
            let target = format!("{}\0", path_of(target));
            long(archive, path).extension(b'K', target.as_bytes()).hard_link("name", "target")
        }
    });
    archive.end()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_archives_are_read_back(steps in steps()) {
        match (model(&steps), run(archive(&steps), Below::Nothing)) {
            (Some(tree), Ok(lower)) => prop_assert_eq!(read_back(&lower), tree),
            (None, Err(Error::Archive(_))) => {}
            (model, result) => prop_assert!(false, "{:?}: {:?}", model.is_some(), result.err()),
        }
    }

    /// A layer in two: hard links and directories of the second lead into the first.
    #[test]
    fn two_layers_come_to_one(first in steps(), second in steps()) {
        let Ok(lower) = run(archive(&first), Below::Nothing) else { return Ok(()) };
        let whole: Vec<Step> = first.into_iter().chain(second.iter().cloned()).collect();
        let below = Below::Layers(vec![lower]);
        match (model(&whole), run(archive(&second), below)) {
            (Some(tree), Ok(upper)) => {
                // All that the upper layer has is in the whole; what it has not, shows below.
                for (path, entry) in read_back(&upper) {
                    prop_assert_eq!(Some(&entry.0), tree.get(&path).map(|entry| &entry.0), "{}", path);
                }
            }
            (None, Err(Error::Archive(_))) => {}
            (model, result) => prop_assert!(false, "{:?}: {:?}", model.is_some(), result.err()),
        }
    }

    /// Whatever is wrong, there is an error, or a file that can be read to its end.
    #[test]
    fn damage_never_goes_unnoticed(
        steps in steps(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        repair in any::<bool>(),
    ) {
        let mut bytes = archive(&steps);
        for (place, value) in damage {
            // In a header, where it counts.
            let at = place.index(bytes.len());
            let at = if repair { at / 512 * 512 + at % 512 % 265 } else { at };
            bytes[at] = value;
            if repair {
                let block = at / 512 * 512;
                let header: [u8; 512] = bytes[block..block + 512].try_into().unwrap();
                if &header[257..262] == b"ustar" {
                    let header = Header::new(0, "").field(0, 512, &header).bytes();
                    bytes[block..block + 512].copy_from_slice(&header);
                }
            }
        }
        if let Ok(lower) = run(bytes, Below::Nothing) {
            let mut todo = vec![lower.root()];
            while let Some(nid) = todo.pop() {
                let inode = lower.inode(nid).unwrap();
                if inode.file_type == FileType::Directory {
                    todo.extend(lower.entries(nid, &inode, 1000).unwrap().into_iter().map(|(_, nid)| nid));
                }
            }
        }
    }
}
