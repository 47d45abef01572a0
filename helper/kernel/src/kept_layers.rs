//! Upper layers that outlive a run: their names, their uid range, and which of them nobody needs.
//!
//! One directory each below [`UPPERS`], named by allocation, uid range and task. A layer goes when
//! its allocation's directory is gone; as long as the directory of all allocations is missing too
//! (a disk that is not mounted), nothing goes. The launcher makes them.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::{fs, io};

use proto::name::AllocId;

use crate::layout::UPPERS;

/// What the name of each begins with.
pub const PREFIX: &str = "kept-";
/// A link to the allocation's directory.
pub const ALLOC: &str = "alloc";
/// A link whose text is the inode number of the directory of all allocations.
pub const OF_ALL: &str = "inode";

/// The names of all kept layers.
///
/// # Errors
/// The directory cannot be read.
pub fn names() -> io::Result<Vec<String>> {
    let names = fs::read_dir(UPPERS)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    let names: io::Result<Vec<_>> = names.collect();
    Ok(names?.into_iter().flatten().filter(|name| name.starts_with(PREFIX)).collect())
}

/// Range and task of a layer of this allocation.
#[must_use]
pub fn parse(name: &str, alloc: AllocId) -> Option<(u32, &str)> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix(alloc.simple().as_str())?;
    let (base, task) = rest.strip_prefix('-')?.split_once('-')?;
    Some((base.parse().ok()?, task))
}

/// First uid of the range that an allocation's kept layers belong to.
#[must_use]
pub fn base(alloc: AllocId) -> Option<u32> {
    let names = names().ok()?;
    let bases = names.iter().filter_map(|name| parse(name, alloc)).map(|(base, _)| base);
    bases.filter(|base| *base != 0).min()
}

/// Device of the file system of a directory.
#[must_use]
pub fn device(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.dev())
}

/// Inode number of a directory: unlike the device it is the same after a reboot.
#[must_use]
pub fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// Whether an allocation's directory is gone though other allocations are there, in the directory
/// that `is_the_one` knows from the start: what lies below a file system that is not mounted may be
/// empty or stale.
#[must_use]
pub fn is_gone(alloc: &Path, is_the_one: impl FnOnce(&Path) -> bool) -> bool {
    let missing = fs::symlink_metadata(alloc).is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    let Some(all) = alloc.parent().filter(|_| missing) else { return false };
    is_the_one(all) && fs::read_dir(all).is_ok_and(|mut others| others.next().is_some())
}

/// The layers whose allocation is gone.
fn orphans() -> io::Result<Vec<String>> {
    let mut names = names()?;
    // Without the links it has just been taken by another `clean`.
    names.retain(|name| {
        let layer = Path::new(UPPERS).join(name);
        let of_all = fs::read_link(layer.join(OF_ALL)).ok();
        let of_all = of_all.and_then(|text| text.to_str()?.parse().ok());
        let is_the_one = |all: &Path| of_all.is_some() && inode(all) == of_all;
        fs::read_link(layer.join(ALLOC)).is_ok_and(|alloc| is_gone(&alloc, is_the_one))
    });
    Ok(names)
}

/// Whether a `clean` has a kept layer to take along.
#[must_use]
pub fn has_orphans() -> bool {
    orphans().is_ok_and(|names| !names.is_empty())
}

/// Moves the layers whose allocation is gone into `directory`, which the caller removes.
///
/// # Errors
/// A layer cannot be moved.
pub fn claim_orphans(directory: &Path) -> io::Result<()> {
    for name in orphans()? {
        fs::create_dir_all(directory)?;
        match fs::rename(Path::new(UPPERS).join(&name), directory.join(&name)) {
            // Another clean-up has it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_nothing_is_gone_where_the_directory_of_all_allocations_is_not_that_of_the_start() {
        let all = std::env::temp_dir().join(format!("nspawn-kept-{}", std::process::id()));
        let alloc = all.join("a");
        let same = |_: &Path| true;
        assert!(!is_gone(&alloc, same));
        fs::create_dir(&all).unwrap();
        assert!(!is_gone(&alloc, same), "a mount point without its file system");
        fs::create_dir(all.join("b")).unwrap();
        assert!(is_gone(&alloc, same));
        assert!(!is_gone(&alloc, |_| false), "below a disk that is not mounted");
        fs::create_dir(&alloc).unwrap();
        assert!(!is_gone(&alloc, same));
        fs::remove_dir_all(&all).unwrap();
    }

    #[test]
    fn a_layer_is_found_by_allocation_range_and_task() {
        let alloc = AllocId([7; 16]);
        let name = format!("kept-{}-524288-web-1", "07".repeat(16));
        assert_eq!(parse(&name, alloc), Some((524_288, "web-1")));
        assert_eq!(parse(&name, AllocId([8; 16])), None);
        for bad in ["kept-", "kept-07", &format!("kept-{}-x-web", "07".repeat(16))] {
            assert_eq!(parse(bad, alloc), None, "{bad}");
        }
    }
}
