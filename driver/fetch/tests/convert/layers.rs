//! Layers on each other, mounted as the launcher mounts them, compared with what umoci unpacks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fetch::{Below, Bounds, Error, Lower, RootAttributes, Summary};

use crate::archives::{acl, capability};
use crate::support::builder::{Archive, Header};
use crate::support::listing::{Listing, assert_same, list};
use crate::support::tools::{Mounted, Scratch, convert_bytes, shell};

/// Puts a blob into an OCI layout: its digest and size.
fn add_blob(layout: &Path, content: &[u8]) -> (String, usize) {
    fs::write(layout.join("blob"), content).unwrap();
    let script = "sum=$(sha256sum blob | cut -c-64); mv blob blobs/sha256/$sum; printf %s $sum";
    let digest = String::from_utf8(shell(layout, script)).unwrap();
    (format!("sha256:{digest}"), content.len())
}

/// What umoci unpacks of an image with these layers, the lowest first.
fn unpack_with_umoci(scratch: &Scratch, layers: &[Vec<u8>]) -> PathBuf {
    let layout = scratch.join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blobs: Vec<_> = layers.iter().map(|layer| add_blob(&layout, layer)).collect();
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| format!("\"{digest}\"")).collect();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        digests.join(",")
    );
    let part = |kind: &str, (digest, size): &(String, usize)| {
        let kind = format!("application/vnd.oci.image.{kind}");
        format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
    };
    let config = part("config.v1+json", &add_blob(&layout, config.as_bytes()));
    let layers: Vec<_> = blobs.iter().map(|blob| part("layer.v1.tar", blob)).collect();
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{}]}}"#, layers.join(","));
    let manifest = part("manifest.v1+json", &add_blob(&layout, manifest.as_bytes()));
    let manifest = manifest.trim_end_matches('}');
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{manifest},"annotations":{{"org.opencontainers.image.ref.name":"t"}}}}]}}"#
    );
    fs::write(layout.join("index.json"), index).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    shell(&scratch.join("."), "rm -rf bundle; umoci unpack --image layout:t bundle");
    fs::remove_dir_all(layout).unwrap();
    scratch.join("bundle/rootfs")
}

/// Converts layers, the lowest first, each with those below it.
fn convert_layers(scratch: &Scratch, layers: &[Vec<u8>]) -> Vec<(PathBuf, Summary)> {
    let mut done: Vec<(PathBuf, Summary)> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let output = scratch.join(&format!("{number}.erofs"));
        let below = lower(&done);
        let summary = convert_bytes(layer, &output, below, Bounds::default());
        let summary = summary.unwrap_or_else(|error| panic!("layer {number}: {error}"));
        done.push((output, summary));
    }
    done
}

fn lower(done: &[(PathBuf, Summary)]) -> Below {
    if done.is_empty() {
        return Below::Nothing;
    }
    let open = |(path, _): &(PathBuf, Summary)| Lower::open(File::open(path).unwrap()).unwrap();
    Below::Layers(done.iter().rev().map(open).collect())
}

fn mount(done: &[(PathBuf, Summary)]) -> Mounted {
    let files: Vec<&Path> = done.iter().rev().map(|(path, _)| path.as_path()).collect();
    Mounted::stack(&files)
}

/// Compares with umoci; the merged tree.
fn compare(layers: &[Vec<u8>]) -> Listing {
    let scratch = Scratch::new();
    let theirs = unpack_with_umoci(&scratch, layers);
    let done = convert_layers(&scratch, layers);
    let mounted = mount(&done);
    let ours = list(&mounted.root, false);
    assert_same(&ours, &list(&theirs, false));
    ours
}

fn base() -> Archive {
    let directory = |name, mode, uid, gid| Header::new(b'5', name).mode(mode).owner(uid, gid);
    let acl = acl(5);
    Archive::new()
        .add(directory("./", 0o755, 0, 0))
        .add(directory("tmp/", 0o1777, 0, 0))
        .add(directory("var/", 0o755, 7, 8))
        .pax(&[("SCHILY.xattr.user.dir", b"kept"), ("SCHILY.xattr.system.posix_acl_access", &acl)])
        .add(directory("var/www/", 0o2750, 33, 33))
        .file("var/www/index", b"hello")
        .file("var/www/old", b"old")
        .add(directory("usr/", 0o755, 0, 0))
        .add(directory("usr/lib/", 0o711, 1, 2))
        .file("usr/lib/one", &[1; 9000])
        .hard_link("usr/lib/two", "usr/lib/one")
        .hard_link("three", "usr/lib/one")
        .pax(&[("SCHILY.xattr.security.capability", &capability())])
        .add(Header::new(b'0', "usr/lib/ping").mode(0o4755).size(3).owner(3, 4))
        .raw(b"abc")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/var/www")
        .add(directory("gone/", 0o755, 0, 0))
        .file("gone/a", b"a")
        .file("gone/sub/b", b"b")
        .add(directory("opaque/", 0o700, 9, 9))
        .file("opaque/x", b"x")
        .file("opaque/sub/y", b"y")
        .file("becomes-directory", b"")
        .add(directory("becomes-file/", 0o755, 0, 0))
        .file("becomes-file/x", b"")
        .symlink("becomes-real", "var")
}

#[test]
fn whiteouts_and_replacements_equal_umoci() {
    let second = Archive::new()
        .file(".wh.gone", b"")
        .add(Header::new(b'5', "opaque/").mode(0o711))
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"new")
        .directory("var/")
        .add(Header::new(b'5', "var/www/").mode(0o2755).owner(33, 33))
        .file("var/www/.wh.old", b"")
        .directory("becomes-directory/")
        .file("becomes-directory/x", b"x")
        .file("becomes-file", b"now")
        .directory("becomes-real/")
        .file("becomes-real/x", b"x")
        .file(".wh.absent", b"");
    let third = Archive::new()
        .directory("gone/")
        .file("gone/c", b"again")
        .directory("opaque/")
        .directory("opaque/sub/")
        .file("opaque/sub/z", b"z")
        .file("becomes-directory/.wh.x", b"");
    let tree = compare(&[base().end(), second.end(), third.end()]);
    let has = |path: &str| tree.contains_key(Path::new(path));
    assert!(has("gone/c") && !has("gone/a") && has("opaque/sub/z") && !has("opaque/sub/y"));
    assert!(!has("absent") && !has("var/www/old") && has("var/www/index"));
}

#[test]
fn implied_directories_take_those_below() {
    let second = Archive::new()
        .file("tmp/x", b"1")
        .file("var/www/y", b"2")
        .file("var/sub/deep/y", b"2")
        .file("usr/lib/z", b"3");
    let third = Archive::new().file("var/sub/deep/more", b"4").file("new/dir/file", b"5");
    let tree = compare(&[base().end(), second.end(), third.end()]);
    assert_eq!(tree[Path::new("tmp")].mode, "41777");
    assert_eq!(tree[Path::new("var/www")].owner, (33, 33));
    assert_eq!(tree[Path::new("var/www")].xattrs.len(), 2);
    assert_eq!(tree[Path::new("var/sub")].mode, "40755");
}

#[test]
fn parents_may_be_links_below() {
    let second = Archive::new()
        .file("lib/through", b"1")
        .file("abs/through", b"2")
        .file("lib/sub/x", b"3")
        .symlink("again", "lib/../../usr");
    let third = Archive::new().file("again/lib/third", b"4").file("lib/.wh.ping", b"");
    let tree = compare(&[base().end(), second.end(), third.end()]);
    assert!(tree.contains_key(Path::new("usr/lib/third")));
    assert!(tree.contains_key(Path::new("var/www/through")));
    assert_eq!(tree[Path::new("lib")].target, PathBuf::from("usr/lib"));
    assert!(!tree.contains_key(Path::new("usr/lib/ping")));
}

#[test]
fn hard_links_lead_into_layers_below() {
    let second = Archive::new()
        .hard_link("four", "usr/lib/one")
        .hard_link("ping", "lib/ping")
        .hard_link("link", "abs")
        .hard_link("ping2", "usr/lib/ping");
    let third = Archive::new().file("usr/lib/.wh.two", b"").hard_link("five", "three");
    let tree = compare(&[base().end(), second.clone().end()]);
    // All names of the file that the lower layer had, and the new one.
    assert_eq!(tree[Path::new("four")].links.1, 4);
    assert_eq!(tree[Path::new("ping")].xattrs.len(), 1);
    let later = Archive::new().hard_link("five", "three").file("usr/lib/.wh.two", b"");
    assert_eq!(compare(&[base().end(), later.end()])[Path::new("five")].links.1, 3);
    let tree = compare(&[base().end(), second.end(), third.end()]);
    let names = ["five", "four", "three", "usr/lib/one"].map(PathBuf::from);
    assert_eq!(tree[Path::new("five")].links, (names.to_vec(), 4));
}

/// The class of error of a layer above others that are not given.
fn alone(archive: Archive) -> Result<Summary, Error> {
    let scratch = Scratch::new();
    convert_bytes(&archive.end(), &scratch.join("a"), Below::Unknown, Bounds::default())
}

#[test]
fn a_layer_that_leaves_something_out_needs_those_below() {
    for (what, archive) in [
        ("parent", Archive::new().file("usr/x", b"")),
        ("parent of a parent", Archive::new().directory("usr/lib/")),
        ("linked file", Archive::new().hard_link("a", "b")),
        ("directory of a link", Archive::new().symlink("l", "usr").file("l/x", b"")),
        ("directory of a whiteout", Archive::new().file("usr/.wh.x", b"")),
    ] {
        let result = alone(archive);
        assert!(matches!(result, Err(Error::NeedsLower(_))), "{what}: {result:?}");
    }
    // All that a builder writes who describes every directory.
    let whole = Archive::new()
        .directory("usr/")
        .directory("usr/lib/")
        .file("usr/lib/x", b"x")
        .hard_link("usr/lib/y", "usr/lib/x")
        .file("usr/.wh.share", b"")
        .file(".wh.srv", b"")
        .directory("opt/")
        .file("opt/.wh..wh..opq", b"")
        .file("opt/new/below", b"nothing shows through here");
    let summary = alone(whole.clone()).unwrap();
    assert_eq!((summary.root, summary.opaque_root), (RootAttributes::Implied, false));
    // Above layers that have nothing of it, the same tree.
    let scratch = Scratch::new();
    let layers = [base().end(), whole.end()];
    let theirs = unpack_with_umoci(&scratch, &layers);
    let mut done = convert_layers(&scratch, &layers[..1]);
    let output = scratch.join("alone");
    let summary = convert_bytes(&layers[1], &output, Below::Unknown, Bounds::default()).unwrap();
    done.push((output, summary));
    assert_same(&list(&mount(&done).root, false), &list(&theirs, false));
}

#[test]
fn roots_are_reported() {
    let root = |mode, uid| {
        let archive = Archive::new().add(Header::new(b'5', "./").mode(mode).owner(uid, 0));
        alone(archive).unwrap().root
    };
    assert_eq!(root(0o755, 0), RootAttributes::Explicit { special: false });
    assert_eq!(root(0o700, 0), RootAttributes::Explicit { special: true });
    assert_eq!(root(0o755, 1), RootAttributes::Explicit { special: true });
    let opaque = alone(Archive::new().file(".wh..wh..opq", b"").file("a", b"")).unwrap();
    assert!(opaque.opaque_root);
    // A root that nobody describes is like the one below, when that is given.
    let scratch = Scratch::new();
    let odd = Archive::new().add(Header::new(b'5', "./").mode(0o711).owner(5, 6));
    let layers = [odd.end(), Archive::new().file("a", b"").end()];
    let tree = list(&mount(&convert_layers(&scratch, &layers)).root, false);
    assert_eq!(tree[Path::new("")].mode, "40711");
    assert_eq!(tree[Path::new("")].owner, (5, 6));
}

#[test]
fn devices_hide_what_lies_below() {
    let scratch = Scratch::new();
    let second = Archive::new().device("three").device("var/www").device("new");
    let layers = [base().end(), second.end()];
    let tree = list(&mount(&convert_layers(&scratch, &layers)).root, false);
    for name in ["three", "var/www", "new"] {
        assert!(!tree.contains_key(Path::new(name)), "{name}");
    }
    assert!(tree.contains_key(Path::new("usr/lib/one")));
}

#[test]
fn a_damaged_layer_below_is_an_error() {
    let scratch = Scratch::new();
    let done = convert_layers(&scratch, &[base().end()]);
    let whole = fs::read(&done[0].0).unwrap();
    let open = |bytes: &[u8]| {
        fs::write(scratch.join("damaged"), bytes).unwrap();
        Lower::open(File::open(scratch.join("damaged")).unwrap())
    };
    assert!(open(&whole).is_ok());
    // Every byte of the superblock, whose UUID, count of inodes and time may be anything.
    for at in (1024..1152).filter(|at| !matches!(at - 1024, 16..36 | 48..64)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        assert!(open(&bytes).is_err(), "byte {}", at - 1024);
    }
    assert!(open(&whole[..whole.len() - 4096]).is_err());
    assert!(open(&whole[..1100]).is_err());
    // Damage elsewhere ends in time, with an error or with another layer.
    let above = Archive::new()
        .file("var/www/sub/x", b"")
        .hard_link("a", "usr/lib/two")
        .hard_link("b", "abs")
        .file("lib/y", b"")
        .end();
    let mut failed = 0;
    for at in (1152..whole.len()).step_by(3) {
        if whole[at] == 0 && at % 24 != 0 {
            continue;
        }
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(0x83);
        let lower = open(&bytes).unwrap();
        let output = File::create(scratch.join("above")).unwrap();
        let options = fetch::Options {
            uuid: [1; 16],
            below: Below::Layers(vec![lower]),
            bounds: Bounds { total_size: 1 << 20, ..Bounds::default() },
        };
        let result = fetch::convert(std::io::Cursor::new(above.clone()), output, &options);
        failed += usize::from(result.is_err());
    }
    assert!(failed > 20, "{failed}");
}
