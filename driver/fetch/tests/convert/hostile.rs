//! Archives that are made to do harm. Each is refused with its sentence, or makes a tree in which
//! everything lies below the root; what the kernel shows of it is compared.

use std::path::PathBuf;

use fetch::{Below, Bounds, Error};

use crate::support::builder::{Archive, Header, record};
use crate::support::listing::{Listing, list};
use crate::support::tools::{Mounted, Scratch, convert_bytes};

fn convert(archive: &[u8], bounds: Bounds) -> Result<Listing, Error> {
    let scratch = Scratch::new();
    let output = scratch.join("a.erofs");
    convert_bytes(archive, &output, Below::Nothing, bounds)?;
    Ok(list(&Mounted::new(&output).root, false))
}

/// Refused, with these words.
pub(crate) fn refused(what: &str, archive: Archive, words: &str) {
    refused_within(what, &archive.end(), Bounds::default(), words);
}

pub(crate) fn refused_within(what: &str, archive: &[u8], bounds: Bounds, words: &str) {
    let scratch = Scratch::new();
    match convert_bytes(archive, &scratch.join("a.erofs"), Below::Nothing, bounds) {
        Err(error @ (Error::Archive(_) | Error::Bound(_))) => {
            let text = error.to_string();
            assert!(text.contains(words), "{what}: {text}");
            assert!(text.len() < 600 && !text.contains('\n'), "{what}: {text}");
        }
        other => panic!("{what}: {other:?}"),
    }
}

/// The paths of a tree, without its root.
fn paths(listing: &Listing) -> Vec<String> {
    let paths = listing.keys().map(|path| path.to_str().unwrap().to_string());
    paths.filter(|path| !path.is_empty()).collect()
}

pub(crate) fn accepted(archive: Archive) -> Listing {
    convert(&archive.end(), Bounds::default()).unwrap()
}

#[test]
fn paths_upwards_are_refused() {
    for path in ["..", "../x", "a/../../x", "a/..", "/../x", "./../x", "a/b/.."] {
        refused(path, Archive::new().file(path, b"x"), "contains \"..\"");
        let link = Archive::new().file("a", b"").hard_link("l", path);
        refused(path, link, "contains \"..\"");
        let pax = Archive::new().pax(&[("path", path.as_bytes())]).file("a", b"x");
        refused(path, pax, "contains \"..\"");
        let long = Archive::new().extension(b'L', &[path.as_bytes(), b"\0"].concat());
        refused(path, long.file("a", b"x"), "contains \"..\"");
    }
    let nul = Archive::new().pax(&[("path", b"a\0b")]).file("a", b"x");
    refused("NUL", nul, "contains a NUL");
    refused("no name", Archive::new().file("", b"x"), "a path is empty");
    refused("root as a file", Archive::new().file("./", b"").symlink("/", "x"), "not a directory");
}

#[test]
fn absolute_paths_and_links_stay_inside() {
    let archive = Archive::new()
        .file("/etc/shadow", b"root")
        .symlink("out", "/etc")
        .file("out/passwd", b"inside")
        .symlink("up", "../../../../etc")
        .file("up/group", b"inside")
        .symlink("self", ".")
        .file("self/self/x", b"y")
        .symlink("etc/back", "../new/./deep//")
        .file("etc/back/file", b"z");
    let listing = accepted(archive);
    let expected = [
        "etc",
        "etc/back",
        "etc/group",
        "etc/passwd",
        "etc/shadow",
        "new",
        "new/deep",
        "new/deep/file",
        "out",
        "self",
        "up",
        "x",
    ];
    assert_eq!(paths(&listing), expected);
    assert_eq!(listing[&PathBuf::from("out")].target, PathBuf::from("/etc"));
}

#[test]
fn loops_of_links_end() {
    let ring = Archive::new().symlink("a", "b").symlink("b", "a").file("a/x", b"");
    refused("ring", ring, "too many symbolic links");
    let own = Archive::new().symlink("a", "a/a").file("a/x", b"");
    refused("itself", own, "too many symbolic links");
    let mut growing = Archive::new();
    for number in 0..60 {
        let target = format!("{0}/{0}", number + 1);
        growing = growing.symlink(&number.to_string(), &target);
    }
    refused("growing", growing.file("0/x", b""), "too many symbolic links");
    let file = Archive::new().file("a", b"").symlink("l", "a").file("l/x", b"");
    refused("file as a directory", file, "is not a directory");
}

#[test]
fn hard_links_lead_to_files() {
    refused("nothing", Archive::new().hard_link("l", "nothing"), "which does not exist");
    let later = Archive::new().hard_link("l", "a").file("a", b"");
    refused("later", later, "which does not exist");
    refused("directory", Archive::new().directory("d").hard_link("l", "d"), "to a directory");
    refused("root", Archive::new().hard_link("l", "."), "to a directory");
    refused("above", Archive::new().file("a", b"").hard_link("a/l", "a"), "is not a directory");
    // To a symbolic link: the link itself, not what it leads to.
    let symlink = Archive::new().symlink("s", "/etc/shadow").hard_link("l", "s");
    let listing = accepted(symlink);
    assert_eq!(listing[&PathBuf::from("l")].target, PathBuf::from("/etc/shadow"));
    assert_eq!(listing[&PathBuf::from("l")].links.1, 2);
    // To itself, through a directory that the link replaces, and to one that is gone.
    let listing =
        accepted(Archive::new().file("a", b"1").hard_link("a", "a").hard_link("a", "./a"));
    assert_eq!(listing[&PathBuf::from("a")].links.1, 1);
    let listing = accepted(Archive::new().file("d/a", b"1").hard_link("d", "d/a"));
    assert_eq!((paths(&listing), listing[&PathBuf::from("d")].links.1), (vec!["d".into()], 1));
    let gone =
        Archive::new().file("a", b"1").hard_link("b", "a").file("a", b"2").hard_link("c", "b");
    let listing = accepted(gone);
    let links = |name: &str| listing[&PathBuf::from(name)].links.1;
    assert_eq!([links("a"), links("b"), links("c")], [1, 2, 2]);
    // A size on a link is the file's; there is no data.
    let sized = Archive::new()
        .file("a", b"1")
        .add(Header::new(b'1', "l").link("a").size(4096))
        .file("b", b"2");
    assert_eq!(paths(&accepted(sized)), ["a", "b", "l"]);
}

#[test]
fn devices_are_left_out() {
    let archive = Archive::new()
        .device("dev/null")
        .add(Header::new(b'4', "dev/sda"))
        .hard_link("null", "dev/null")
        .hard_link("null2", "null")
        .file("was", b"x")
        .device("was")
        .add(Header::new(b'6', "fifo"))
        .add(Header::new(b'0', "suid").mode(0o106_755).owner(0, 0));
    let scratch = Scratch::new();
    let output = scratch.join("a");
    let summary =
        convert_bytes(&archive.end(), &output, Below::Nothing, Bounds::default()).unwrap();
    assert_eq!(summary.devices, 5);
    let listing = list(&Mounted::new(&output).root, false);
    assert_eq!(paths(&listing), ["dev", "fifo", "suid"]);
    assert_eq!(listing[&PathBuf::from("suid")].mode, "106755");
    let below = Archive::new().device("null").file("null/x", b"");
    refused("below a device", below, "is not a directory");
}

#[test]
fn members_contradict_each_other() {
    // The later counts, with all that lay below the earlier.
    let archive = Archive::new()
        .file("a", b"1")
        .file("d/x", b"1")
        .file("d", b"now a file")
        .directory("a")
        .file("a/y", b"2")
        .symlink("s", "a")
        .directory("s")
        .file("s/z", b"3")
        .add(Header::new(b'5', "a/").mode(0o700));
    let listing = accepted(archive);
    assert_eq!(paths(&listing), ["a", "a/y", "d", "s", "s/z"]);
    assert_eq!(listing[&PathBuf::from("a")].mode, "40700");
    refused("file above", Archive::new().file("a", b"").file("a/b", b""), "is not a directory");
    // Two headers for one member, one without a member, two different names.
    let twice = Archive::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"");
    refused("two PAX headers", twice, "two headers of one kind");
    let twice = Archive::new().extension(b'L', b"a\0").extension(b'L', b"b\0").file("c", b"");
    refused("two long names", twice, "two headers of one kind");
    refused("no member", Archive::new().pax(&[("path", b"a")]), "describes no member");
    let both = Archive::new().pax(&[("path", b"a")]).extension(b'L', b"b\0").file("c", b"");
    refused("PAX and GNU", both, "two different names");
    // Data where some readers expect none.
    for kind in [b'2', b'3', b'4', b'5', b'6'] {
        let header = Header::new(kind, "a").link("x").size(512);
        let data = Archive::new().add(header).raw(&Header::new(b'0', "hidden").bytes());
        refused("data", data, "has data all the same");
    }
    let zeros = Archive::new().file("a", b"").raw(&[0; 512]).file("b", b"");
    refused("half an end", zeros, "between two members");
    let part = Archive::new().add(Header::new(b'M', "a").size(512)).raw(&[1; 512]);
    refused("multi-volume", part, "multi-volume");
}

#[test]
fn pax_records_override_and_are_exact() {
    // The size of the record counts, for every reader that knows PAX.
    let hidden = Header::new(b'0', "hidden").bytes();
    let archive = Archive::new().pax(&[("size", b"512")]).add(Header::new(b'0', "a")).raw(&hidden);
    assert_eq!(paths(&accepted(archive)), ["a"]);
    let archive = Archive::new()
        .pax(&[
            ("path", b"b/c"),
            ("uid", b"70000"),
            ("gid", b"4294967294"),
            ("mtime", b"-1.5"),
            ("path", b""),
            ("comment", b"\xff\n"),
            ("SCHILY.xattr.user.x", b"\0=\n"),
        ])
        .file("named/by/header", b"x");
    let listing = accepted(archive);
    let entry = &listing[&PathBuf::from("named/by/header")];
    assert_eq!(entry.owner, (70_000, 4_294_967_294));
    assert_eq!(entry.xattrs["user.x"], b"\0=\n");
    for (key, value, words) in [
        ("size", "18446744073709551616", "malformed value"),
        ("size", "-1", "malformed value"),
        ("size", "1e3", "malformed value"),
        ("size", "9223372036854775807", "more than"),
        ("uid", "4294967295", "beyond 4294967294"),
        ("gid", "18446744073709551615", "beyond 4294967294"),
        ("mtime", "99999999999999999999", "malformed value"),
    ] {
        let archive = Archive::new().pax(&[(key, value.as_bytes())]).file("a", b"x");
        refused(key, archive, words);
    }
    for records in ["5 a=b\n", "x path=a\n", "6 a=b", "99 path=a\n", "1\n", " 8 a=bb\n"] {
        let archive = Archive::new().extension(b'x', records.as_bytes()).file("a", b"x");
        refused(records, archive, "PAX record");
    }
    let global = Archive::new().extension(b'g', &record("uid", b"7")).file("a", b"x");
    refused("global", global, "a global PAX header sets");
    let comment = Archive::new().extension(b'g', &record("comment", b"abc")).file("a", b"x");
    assert_eq!(paths(&accepted(comment)), ["a"]);
}

#[test]
fn attributes_that_steer_the_host_are_dropped() {
    let capability = crate::archives::capability();
    let acl = crate::archives::acl(5);
    let archive = Archive::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.security.selinux", b"system_u:object_r:etc_t:s0"),
            ("SCHILY.xattr.security.ima", b"\x01"),
            ("SCHILY.xattr.system.nfs4_acl", b"x"),
            ("SCHILY.xattr.nonsense", b"x"),
            ("SCHILY.xattr.user.kept", b"x"),
            ("SCHILY.xattr.system.posix_acl_default", &acl),
        ])
        .directory("d")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability[..19]),
            ("SCHILY.xattr.user.x", b""),
        ])
        .file("short", b"")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", &acl[..20])])
        .file("list", b"")
        .pax(&[("SCHILY.xattr.user.x", b"")])
        .symlink("link", "x")
        .pax(&[("SCHILY.acl.access", b"user::rwx,user:who:rwx,group::r--,mask::rwx,other::---")])
        .add(Header::new(b'0', "names").mode(0o770));
    let scratch = Scratch::new();
    let output = scratch.join("a");
    let summary =
        convert_bytes(&archive.end(), &output, Below::Nothing, Bounds::default()).unwrap();
    assert_eq!(summary.xattrs, 10);
    let listing = list(&Mounted::new(&output).root, false);
    let names = |path: &str| {
        let names = listing[&PathBuf::from(path)].xattrs.keys().cloned();
        names.collect::<Vec<_>>()
    };
    assert_eq!(names("d"), ["system.posix_acl_default", "user.kept"]);
    assert_eq!(names("short"), ["user.x"]);
    assert!(names("list").is_empty() && names("link").is_empty());
    // Without the list, the group has no more than the list gave it.
    assert_eq!(listing[&PathBuf::from("names")].mode, "100740");
    let bad = Archive::new().pax(&[("SCHILY.acl.access", b"user::rwx")]).file("a", b"");
    refused("list", bad, "access control list");
}
