//! Sizes that overflow, maps that do not fit, and every bound.

use std::path::PathBuf;

use fetch::Bounds;

use crate::hostile::{accepted, refused, refused_within};
use crate::support::builder::{Archive, Header};

#[test]
fn sizes_that_overflow_are_refused() {
    let size = |bytes: &[u8]| Archive::new().add(Header::new(b'0', "a").field(124, 12, bytes));
    let huge = [0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255];
    refused("largest", size(&huge), "more than");
    let over = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    refused("beyond 64 bits", size(&over), "not a number");
    refused("negative", size(&[255; 12]), "below zero");
    refused("not octal", size(b"0000000009\0"), "not a number");
    refused("no number", size(b"12345 678\0"), "not a number");
    let header =
        |at, len, bytes: &[u8]| Archive::new().add(Header::new(b'0', "a").field(at, len, bytes));
    refused("uid", header(108, 8, &[0x80, 0, 0, 1, 0, 0, 0, 0]), "beyond 4294967294");
    refused("uid", header(108, 8, &[255; 8]), "below zero");
    let checksum = Header::new(b'0', "a").bytes();
    let mut wrong = checksum;
    wrong[0] ^= 1;
    refused("checksum", Archive::new().raw(&wrong), "checksum is wrong");
    refused("no archive", Archive::new().raw(&[b'x'; 512]), "archive refused");
    // Cut off in the header, in the data, in a header of a header.
    let whole = Archive::new().pax(&[("path", b"b")]).file("a", &[7; 2000]).0;
    for length in (1..whole.len()).step_by(100).filter(|length| length % 512 != 0) {
        refused_within("cut", &whole[..length], Bounds::default(), "cut off");
    }
    refused_within("nothing", b"", Bounds::default(), "the stream is empty");
}

#[test]
fn sparse_maps_fit_their_files() {
    let gnu = |size: u64, real: u64, regions: &[(u64, u64)], more: u8| {
        let mut header = Header::new(b'S', "a").gnu().size(size).octal(483, 12, real);
        for (number, (offset, length)) in regions.iter().enumerate() {
            header =
                header.octal(386 + number * 24, 12, *offset).octal(398 + number * 24, 12, *length);
        }
        Archive::new().add(header.field(482, 1, &[more])).raw(&vec![1; size as usize])
    };
    let listing = accepted(gnu(512, 8192, &[(4096, 512)], 0));
    assert_eq!(listing[&PathBuf::from("a")].size, Some(8192));
    for (what, archive) in [
        ("beyond the end", gnu(512, 600, &[(4096, 512)], 0)),
        ("other sum", gnu(512, 8192, &[(4096, 100)], 0)),
        ("overlap", gnu(1024, 8192, &[(0, 512), (256, 512)], 0)),
        ("descending", gnu(1024, 8192, &[(4096, 512), (0, 512)], 0)),
        ("more after the end", gnu(512, 8192, &[(4096, 512)], 1)),
    ] {
        refused(what, archive, "sparse file is malformed");
    }
    let huge =
        Header::new(b'S', "a").gnu().field(483, 12, &[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    refused("bomb", Archive::new().add(huge), "more than");
    let pax = |records: &[(&str, &[u8])], data: &[u8]| Archive::new().pax(records).file("a", data);
    let one = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")];
    let realsize = ("GNU.sparse.realsize", &b"4096"[..]);
    let map = |text: &str| {
        let mut data = text.as_bytes().to_vec();
        data.resize(512, 0);
        [data, vec![9; 10]].concat()
    };
    let listing = accepted(pax(&[one[0], one[1], realsize], &map("1\n100\n10\n")));
    assert_eq!(listing[&PathBuf::from("a")].size, Some(4096));
    for text in ["1\n100\n11\n", "99999999999\n", "-1\n", "\n", "1\n4090\n10\n", "x"] {
        refused(text, pax(&[one[0], one[1], realsize], &map(text)), "sparse file is malformed");
    }
    refused("no size", pax(&one, &map("1\n100\n10\n")), "malformed");
    refused("half a version", pax(&one[..1], b""), "not complete");
    refused("version", pax(&[("GNU.sparse.major", b"7"), one[1]], b""), "unknown sparse format");
    let pairs = [("GNU.sparse.numbytes", &b"1"[..]), ("GNU.sparse.offset", b"1")];
    refused("numbytes first", pax(&pairs, b"x"), "malformed value");
    let odd = [("GNU.sparse.size", &b"10"[..]), ("GNU.sparse.map", b"1,2,3")];
    refused("odd", pax(&odd, b"xx"), "malformed");
}

#[test]
fn bounds_hold() {
    let small = Bounds { entries: 100, ..Bounds::default() };
    let mut many = Archive::new();
    for number in 0..101 {
        many = many.file(&format!("f{number}"), b"");
    }
    refused_within("members", &many.end(), small, "more than 100 members");
    // Each path implies a hundred directories.
    let mut implied = Archive::new();
    for number in 0..2 {
        implied = implied.file(&format!("{number}{}", "/a".repeat(49)), b"");
    }
    refused_within(
        "implied",
        &implied.clone().file("x/y/z", b"").end(),
        small,
        "more than 100 members",
    );
    let headers = (0..500).fold(Archive::new(), |archive, _| archive.extension(b'g', b""));
    refused_within("headers", &headers.end(), small, "too many headers");
    let deep = format!("{}x", "d/".repeat(257));
    let deep = Archive::new().pax(&[("path", deep.as_bytes())]).file("a", b"");
    refused("depth", deep, "more than 256 below the root");
    let path = Archive::new().pax(&[("path", "a/".repeat(2048).as_bytes())]).file("a", b"");
    refused("path", path, "a path is longer than 4095");
    let name = Archive::new().pax(&[("path", &[b'a'; 256])]).file("a", b"");
    refused("name", name, "a name is longer than 255");
    let target = Archive::new().pax(&[("linkpath", &[b'a'; 4096])]).symlink("a", "");
    refused("target", target, "longer than 4095");
    let name = "SCHILY.xattr.user.x";
    let wide = Archive::new().pax(&[(name, &[0; 65_535])]).file("a", b"");
    refused("attributes", wide, "its attributes take more than 65536 bytes");
    let root = Archive::new().pax(&[(name, &[0; 4000])]).directory("./");
    refused("attributes of the root", root, "attributes of the root directory");
    let headers = Archive::new().pax(&[("comment", &vec![b'x'; 1 << 20])]).file("a", b"");
    refused("header", headers, "larger than 1048576 bytes");
    let size = Bounds { file_size: 1000, ..Bounds::default() };
    refused_within("file", &Archive::new().file("a", &[0; 1001]).end(), size, "more than 1000");
    let total = Bounds { total_size: 1 << 20, ..Bounds::default() };
    let two = Archive::new().file("a", &[1; 600_000]).file("b", &[1; 600_000]);
    refused_within("total", &two.end(), total, "more than 1048576 bytes together");
    let held = Bounds { held: 1000, ..Bounds::default() };
    let mut names = Archive::new();
    for number in 0..11 {
        names = names.file(&format!("{number:0100}"), b"");
    }
    refused_within("names", &names.end(), held, "more than 1000 bytes of memory");
    let mut directories = Archive::new();
    for number in 0..2400 {
        let path = format!("{number}{}", "/d".repeat(249));
        directories = directories.pax(&[("path", path.as_bytes())]).file("a", b"");
    }
    refused("directories", directories, "more than 268435456 bytes of memory");
    let regions = Bounds { regions: 1, ..Bounds::default() };
    let two = [("GNU.sparse.size", &b"10"[..]), ("GNU.sparse.map", b"0,1,5,1")];
    let two = Archive::new().pax(&two).file("a", b"xx");
    refused_within("regions", &two.end(), regions, "more than 1 regions");
}
