//! The four compressions, with several members, bombs, damage and what follows the end.

use std::fs::{self, File};
use std::io::Read;

use fetch::{Below, Bounds, Error};

use crate::support::builder::Archive;
use crate::support::tools::{Scratch, convert_bytes, convert_stream, shell};

#[test]
fn every_compression_gives_the_same_bytes() {
    let scratch = Scratch::new();
    crate::archives::make_plain(&scratch.make_directory("tree"));
    let here = scratch.join(".");
    shell(&here, "tar --format=posix -cf a.tar -C tree .; split -n 2 a.tar half.");
    let convert = |archive: &[u8], what: &str| {
        let output = scratch.join("a.erofs");
        let result = convert_bytes(archive, &output, Below::Nothing, Bounds::default());
        result.unwrap_or_else(|error| panic!("{what}: {error}"));
        fs::read(output).unwrap()
    };
    let plain = convert(&fs::read(scratch.join("a.tar")).unwrap(), "none");
    for program in ["gzip -9", "gzip -1", "zstd -3", "zstd --ultra -22 --long=27", "xz -0", "bzip2"]
    {
        // One member, several, and with something after the end.
        let one = shell(&here, &format!("{program} -c a.tar"));
        assert!(convert(&one, program) == plain, "{program}");
        let two = shell(&here, &format!("{program} -c half.aa; {program} -c half.ab"));
        assert!(convert(&two, program) == plain, "{program}, two");
        if !program.starts_with("xz") {
            let more = [&one[..], &[0; 700], b"signature"].concat();
            assert!(convert(&more, program) == plain, "{program}, with more");
        }
    }
    // Frames that a decoder skips, as zstd:chunked and pzstd write them.
    let skip = [&[0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let zstd = shell(&here, "zstd -c half.aa");
    let rest = shell(&here, "zstd -c half.ab");
    assert!(convert(&[&skip[..], &zstd, &skip, &rest, &skip].concat(), "skip") == plain);
}

/// Converts, and expects an error with these words.
fn refused(archive: &[u8], words: &str) {
    let scratch = Scratch::new();
    let output = scratch.join("a");
    let error = convert_bytes(archive, &output, Below::Nothing, Bounds::default()).unwrap_err();
    assert!(matches!(error, Error::Archive(_)), "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn damage_is_noticed() {
    let scratch = Scratch::new();
    let here = scratch.make_directory("d");
    // One member for all: after the archive, only the checksums are left.
    let content: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
    fs::write(here.join("a.tar"), Archive::new().file("a", &content).end()).unwrap();
    for (program, trailer) in [("gzip", 8), ("xz", 12), ("bzip2", 6), ("zstd", 2)] {
        let whole = shell(&here, &format!("{program} -c a.tar"));
        for cut in [7, whole.len() / 2, whole.len() - 2] {
            let scratch = Scratch::new();
            let output = scratch.join("a");
            let cut = &whole[..cut];
            let error = convert_bytes(cut, &output, Below::Nothing, Bounds::default()).unwrap_err();
            assert!(matches!(error, Error::Archive(_)), "{program}: {error:?}");
        }
        if program == "xz" {
            refused(&[&whole[..], b"more"].concat(), "archive refused");
        }
        let mut wrong = whole.clone();
        let at = wrong.len() - trailer;
        wrong[at] ^= 0x10;
        refused(&wrong, "archive refused");
    }
}

/// A stream of `count` copies of a frame.
fn repeat(frame: Vec<u8>, count: usize) -> impl Read {
    let mut all = Vec::new();
    (0..count).for_each(|_| all.extend(&frame));
    std::io::Cursor::new(all)
}

#[test]
fn bombs_end_at_the_ratio() {
    let scratch = Scratch::new();
    let here = scratch.make_directory("d");
    // A header of a file of 60 GiB, then zeros that take nearly nothing.
    let header =
        Archive::new().add(crate::support::builder::Header::new(b'0', "bomb").size(60 << 30));
    fs::write(here.join("header"), header.0).unwrap();
    File::create(here.join("zeros")).unwrap().set_len(64 << 20).unwrap();
    for program in ["zstd -1", "bzip2 -9", "xz -0"] {
        let frame = shell(&here, &format!("{program} -c zeros"));
        let head = shell(&here, &format!("{program} -c header"));
        let stream = std::io::Cursor::new(head).chain(repeat(frame, 960));
        let output = scratch.join("bomb");
        let error = convert_stream(stream, &output, Below::Nothing, Bounds::default()).unwrap_err();
        assert!(matches!(error, Error::Bound(_)), "{error:?}");
        assert!(error.to_string().contains("more than 1100 times"), "{program}: {error}");
        fs::remove_file(output).unwrap();
    }
    // Deflate cannot reach it: the bounds of the file's size hold.
    let frame = shell(&here, "gzip -9c zeros");
    let head = shell(&here, "gzip -c header");
    let bounds = Bounds { total_size: 100 << 20, ..Bounds::default() };
    let stream = std::io::Cursor::new(head).chain(repeat(frame, 1));
    let error = convert_stream(stream, &scratch.join("bomb"), Below::Nothing, bounds).unwrap_err();
    assert!(error.to_string().contains("bytes together"), "{error}");
}
