//! Archives of GNU tar, compared with what `tar -x` makes of them.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use fetch::RootAttributes;

use crate::support::listing::{assert_same, list, set_xattr};
use crate::support::tools::{Mounted, Scratch, convert_file, shell};

const EXTRACT: &str = "tar -xp --same-owner --numeric-owner --xattrs --xattrs-include='*' --acls";

/// An access control list with a user, a group and a mask, as an attribute.
pub(crate) fn acl(user: u32) -> Vec<u8> {
    let none = u32::MAX;
    let entries =
        [(1u16, 7u16, none), (2, 5, user), (4, 5, none), (8, 4, 77), (16, 5, none), (32, 0, none)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in entries {
        value.extend([&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    value
}

/// A file capability, `cap_net_raw=ep`.
pub(crate) fn capability() -> Vec<u8> {
    [0x0200_0001u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect()
}

fn fill(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(next).collect()
}

/// What every format of tar can hold.
pub(crate) fn make_plain(root: &Path) {
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir(root.join("empty")).unwrap();
    // Around the block, and around what fits beside an inode.
    for size in [0, 1, 31, 4031, 4032, 4033, 4095, 4096, 4097, 8128, 8192, 12_289, 1_200_005] {
        fs::write(root.join(format!("usr/bin/{size}")), fill(size, 3)).unwrap();
    }
    fs::write(root.join("zeros"), vec![0; 300_000]).unwrap();
    fs::hard_link(root.join("usr/bin/4097"), root.join("usr/other")).unwrap();
    fs::hard_link(root.join("usr/bin/4097"), root.join("usr/third")).unwrap();
    fs::hard_link(root.join("usr/bin/0"), root.join("nothing")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    symlink("/usr/bin/../nowhere", root.join("dangling")).unwrap();
    fs::hard_link(root.join("bin"), root.join("bin2")).unwrap();
    shell(root, "mkfifo -m 0620 fifo");
    for (name, mode) in [("usr/bin/1", 0o4755), ("usr/bin/31", 0o2711), ("empty", 0o1777)] {
        fs::set_permissions(root.join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    chown(root.join("usr/bin/4032"), Some(1234), Some(4321)).unwrap();
    chown(root.join("usr"), Some(7), Some(8)).unwrap();
    lchown(root.join("dangling"), Some(33), Some(33)).unwrap();
    // Around `.` and `..` in the order of names, and odd bytes.
    for name in ["+", "-", "-x", ".a", ".-", "...", "a\nb", "é", "~", " "] {
        fs::write(root.join("empty").join(name), name).unwrap();
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    File::open(root.join("usr/bin/31")).unwrap().set_modified(time).unwrap();
    File::open(root).unwrap().set_modified(time).unwrap();
}

/// What only GNU and PAX formats hold.
fn make_long(root: &Path) {
    let name = "n".repeat(255);
    let deep = root.join([&name[..200]; 5].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join(&name), "deep").unwrap();
    fs::hard_link(deep.join(&name), root.join("shallow")).unwrap();
    symlink("t/".repeat(2000), root.join("long-target")).unwrap();
    symlink("t/".repeat(150), root.join("target")).unwrap();
    // Directories of several blocks, with all lengths of names.
    for length in 1..=255 {
        let directory = root.join("names");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("{length:0length$}")), "").unwrap();
    }
    fs::create_dir(root.join("many")).unwrap();
    for number in 0..3000 {
        fs::write(root.join(format!("many/{number}")), number.to_string()).unwrap();
    }
    chown(root.join("many/7"), Some(3_000_000), Some(4_000_000_000)).unwrap();
}

/// What only the PAX format holds.
fn make_attributes(root: &Path) {
    set_xattr(&root.join("usr/bin/4031"), "user.small", b"value \0 and \n");
    set_xattr(&root.join("usr/bin/4031"), "user.empty", b"");
    // Two, that no block holds together, and a directory.
    fs::write(root.join("wide"), fill(5000, 9)).unwrap();
    set_xattr(&root.join("wide"), "user.wide", &fill(2500, 1));
    set_xattr(&root.join("usr"), "user.of.a.directory", &fill(700, 2));
    set_xattr(&root.join("usr/bin/12289"), "security.capability", &capability());
    set_xattr(&root.join("usr/bin/8192"), "system.posix_acl_access", &acl(1000));
    set_xattr(&root.join("usr"), "system.posix_acl_access", &acl(55));
    set_xattr(&root.join("usr"), "system.posix_acl_default", &acl(66));
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789);
    File::open(root.join("usr/bin/8192")).unwrap().set_modified(time).unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
    File::open(root.join("usr/bin/8128")).unwrap().set_modified(before).unwrap();
}

/// Archives `tree` with `options` and compares.
fn compare(scratch: &Scratch, options: &str) {
    shell(&scratch.join("."), &format!("tar --numeric-owner {options} -cf a.tar -C tree ."));
    compare_archive(scratch);
}

fn compare_archive(scratch: &Scratch) {
    let theirs = scratch.make_directory("theirs");
    shell(&theirs, &format!("{EXTRACT} -f ../a.tar"));
    let summary = convert_file(&scratch.join("a.tar"), &scratch.join("a.erofs"));
    assert!(matches!(summary.root, RootAttributes::Explicit { .. }));
    let mounted = Mounted::new(&scratch.join("a.erofs"));
    assert_same(&list(&mounted.root, true), &list(&theirs, true));
    fs::remove_dir_all(&theirs).unwrap();
}

#[test]
fn old_formats_equal_gnu_tar() {
    let scratch = Scratch::new();
    make_plain(&scratch.make_directory("tree"));
    compare(&scratch, "--format=ustar");
    // Version 7 has no FIFOs.
    fs::remove_file(scratch.join("tree/fifo")).unwrap();
    compare(&scratch, "--format=v7");
}

#[test]
fn the_gnu_format_equals_gnu_tar() {
    let scratch = Scratch::new();
    let tree = scratch.make_directory("tree");
    make_plain(&tree);
    make_long(&tree);
    compare(&scratch, "--format=gnu");
    compare(&scratch, "--format=oldgnu");
}

#[test]
fn the_pax_format_equals_gnu_tar() {
    let scratch = Scratch::new();
    let tree = scratch.make_directory("tree");
    make_plain(&tree);
    make_long(&tree);
    make_attributes(&tree);
    compare(&scratch, "--format=posix --xattrs --acls");
    // Lists as the attribute itself, as programs of the Go world write them; tar -x leaves them out.
    let tar =
        "tar --format=posix --numeric-owner --xattrs --xattrs-include='*' -cf a.tar -C tree .";
    shell(&scratch.join("."), tar);
    convert_file(&scratch.join("a.tar"), &scratch.join("a.erofs"));
    let mounted = Mounted::new(&scratch.join("a.erofs"));
    assert_same(&list(&mounted.root, true), &list(&tree, true));
}

/// 4 GB with few blocks of data, one at the end; holes at both ends; nothing but a hole; and a
/// file with more regions than one header holds.
fn make_sparse(root: &Path) {
    fs::create_dir(root.join("d")).unwrap();
    let file = |name: &str, size: u64, places: &[u64]| {
        let file = File::create(root.join(name)).unwrap();
        file.set_len(size).unwrap();
        for place in places {
            file.write_all_at(format!("data at {place}").as_bytes(), *place).unwrap();
        }
    };
    file("d/large", (4 << 30) + 20, &[16 << 20, 3 << 30, 4 << 30]);
    file("d/holes", 1 << 20, &[500_000]);
    file("d/hole", 1 << 20, &[]);
    file("d/tail", 8192 + 100, &[8192]);
    let places: Vec<u64> = (0..200).map(|number| number * 16_384 + 5).collect();
    file("d/many", 200 * 16_384, &places);
}

#[test]
fn all_sparse_formats_equal_gnu_tar() {
    let scratch = Scratch::new();
    make_sparse(&scratch.make_directory("tree"));
    let theirs = list(&scratch.join("tree"), true);
    for options in [
        "--format=gnu",
        "--format=posix --sparse-version=0.0",
        "--format=posix --sparse-version=0.1",
        "--format=posix --sparse-version=1.0",
    ] {
        shell(&scratch.join("."), &format!("tar --sparse {options} -cf a.tar -C tree ."));
        convert_file(&scratch.join("a.tar"), &scratch.join("a.erofs"));
        let meta = fs::metadata(scratch.join("a.erofs")).unwrap();
        assert!(meta.len() > 4 << 30 && meta.blocks() * 512 < 3 << 20, "{meta:?}");
        let mounted = Mounted::new(&scratch.join("a.erofs"));
        // The tree itself: extracting gigabytes of holes proves nothing more.
        let ours = list(&mounted.root.join("d"), true);
        let theirs = theirs.iter().filter_map(|(path, entry)| {
            let mut entry = entry.clone();
            let below = |path: &Path| path.strip_prefix("d").map(Path::to_path_buf);
            entry.links.0 = entry.links.0.iter().map(|path| below(path).unwrap()).collect();
            // Only PAX has fractions of a second.
            Some((below(path).ok()?, entry))
        });
        let mut theirs: crate::support::listing::Listing = theirs.collect();
        let mut ours = ours;
        for entry in theirs.values_mut().chain(ours.values_mut()) {
            entry.mtime = None;
        }
        assert_same(&ours, &theirs);
    }
}

#[test]
fn repeated_members_end_like_with_gnu_tar() {
    let scratch = Scratch::new();
    let tree = scratch.make_directory("tree");
    make_plain(&tree);
    let first = "tar --format=gnu --numeric-owner -cf a.tar -C tree .";
    shell(&scratch.join("."), first);
    fs::write(tree.join("usr/bin/4097"), "new").unwrap();
    fs::remove_file(tree.join("bin")).unwrap();
    fs::write(tree.join("bin"), "was a link").unwrap();
    fs::remove_file(tree.join("zeros")).unwrap();
    fs::create_dir(tree.join("zeros")).unwrap();
    fs::set_permissions(tree.join("usr"), PermissionsExt::from_mode(0o700)).unwrap();
    shell(
        &scratch.join("."),
        "tar --format=gnu --numeric-owner -rf a.tar -C tree ./usr ./bin ./zeros .",
    );
    compare_archive(&scratch);
}

#[test]
fn the_same_archive_gives_the_same_bytes() {
    let scratch = Scratch::new();
    let tree = scratch.make_directory("tree");
    make_plain(&tree);
    make_long(&tree);
    make_attributes(&tree);
    shell(&scratch.join("."), "tar --format=posix --xattrs --acls -cf a.tar -C tree .");
    convert_file(&scratch.join("a.tar"), &scratch.join("first"));
    // A file that had something else before, with bytes where holes will be.
    fs::write(scratch.join("second"), vec![0xaa; 30_000_000]).unwrap();
    convert_file(&scratch.join("a.tar"), &scratch.join("second"));
    assert!(fs::read(scratch.join("first")).unwrap() == fs::read(scratch.join("second")).unwrap());
}
