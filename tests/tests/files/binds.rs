//! Binds: what is visible, what can be written, which sources are taken.

use crate::{Task, bind, binds, host, read_only, refused, relative, run};
use nix::fcntl::OFlag;
use proto::task_spec::files::{Bind, Files, Source};

#[test]
fn files_and_directories_are_there_writable_or_not() {
    let rig = host();
    rig.sh(
        "set -e; cd /srv/closed; mkdir -p b/w b/r; echo one >b/w/f; echo two >b/r/f; echo x >b/x",
    )
    .unwrap();
    let files = binds([
        bind("/srv/closed/b/w", "/mnt/w"),
        read_only("/srv/closed/b/r", "/new/deep/r"),
        read_only("/srv/closed/b/x", "/etc/one file"),
        bind("/srv/closed/b/x", "/new/x"),
    ]);
    let script = r#"
        cat /mnt/w/f /new/deep/r/f '/etc/one file' && echo three >/mnt/w/g || exit 1
        for f in /new/deep/r/g '/etc/one file'; do
            (echo no >"$f") 2>&1 | grep -q 'Read-only file system' || exit 2
        done
        for m in /mnt/w /new/deep/r '/etc/one\040file' /new/x; do
            grep -F " $m " /proc/mounts | cut -d' ' -f4 | tr , '\n' >/tmp/o
            grep -q nodev /tmp/o && grep -q nosuid /tmp/o || exit 3
        done
        # Container root may mount, but not undo the host's flags.
        mount -o remount,bind,rw /new/deep/r 2>/dev/null && exit 4
        mount -o remount,bind,suid,dev /mnt/w 2>/dev/null && exit 5
        echo four >/new/x
    "#;
    assert_eq!(run(rig, files, script), "one\ntwo\nx\n");
    let left = rig.run(&["cat", "/srv/closed/b/w/g", "/srv/closed/b/x"]).unwrap();
    assert_eq!(left, "three\nfour");
    assert!(!rig.exists("/srv/closed/b/r/g"));
}

#[test]
fn mounts_below_come_along_and_are_as_read_only_as_the_bind() {
    let rig = host();
    rig.sh(
        "set -e; mkdir -p /srv/closed/sub/m; mount -t tmpfs -o mode=0777 sub /srv/closed/sub/m; \
         echo below >/srv/closed/sub/m/f; chmod 0666 /srv/closed/sub/m/f",
    )
    .unwrap();
    let shallow = Bind { recursive: false, ..read_only("/srv/closed/sub", "/mnt/shallow") };
    let files = binds([read_only("/srv/closed/sub", "/mnt/deep"), shallow]);
    let script = "
        cat /mnt/deep/m/f; ls /mnt/shallow/m
        (echo no >/mnt/deep/m/f) 2>/dev/null && exit 1
        mount -o remount,bind,rw /mnt/deep/m 2>/dev/null && exit 2
        umount /mnt/deep/m 2>/dev/null && exit 3
        exit 0
    ";
    assert_eq!(run(rig, files, script), "below\n");
    rig.run(&["umount", "/srv/closed/sub/m"]).unwrap();
}

/// D63: characters with a meaning for systemd-nspawn are only characters.
#[test]
fn any_name_is_a_name() {
    let rig = host();
    for name in ["a:b", r"back\slash", "sp ace", "c,d", "q\"'", "%n", "é漢", "+plus", "-x"] {
        let directory = format!("/srv/closed/names/{name}");
        rig.run(&["mkdir", "-p", "--", &directory]).unwrap();
        rig.write_file(&format!("{directory}/f"), name, 0o644).unwrap();
    }
    let list = rig.run(&["ls", "/srv/closed/names"]).unwrap();
    let all: Vec<Bind> = list
        .lines()
        .map(|n| bind(&format!("/srv/closed/names/{n}"), &format!("/mnt/{n}/{n}")))
        .collect();
    assert_eq!(all.len(), 9);
    let out = run(rig, binds(all), "for f in /mnt/*/*/f; do echo \"$(cat \"$f\")\"; done");
    let mut seen: Vec<_> = out.lines().collect();
    let mut named: Vec<_> = list.lines().collect();
    seen.sort_unstable();
    named.sort_unstable();
    assert_eq!(seen, named);
}

/// P5: every kind of node that is neither a file nor a directory.
#[test]
fn p05_odd_nodes_are_refused_by_name() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/odd/dir; cd /srv/closed/odd; echo x >file; \
         ln -s file link; ln -s dir dirlink; ln -s /etc abs; ln -s nowhere dangling; mkfifo fifo; \
         mknod char c 1 3; mknod block b 7 0; \
         systemd-run --quiet --collect --unit=odd-socket \
           --socket-property=ListenStream=/srv/closed/odd/socket true; \
         mkdir -p dir/below; echo y >dir/below/f")
        .unwrap();
    assert!(rig.exists("/srv/closed/odd/socket"));
    for (name, word) in [
        ("link", "symbolic link"),
        ("dirlink", "symbolic link"),
        ("dirlink/below", "symbolic link"),
        ("abs/passwd", "symbolic link"),
        ("dangling", "symbolic link"),
        ("fifo", "neither a regular file nor a directory"),
        ("char", "neither a regular file nor a directory"),
        ("block", "neither a regular file nor a directory"),
        ("socket", "neither a regular file nor a directory"),
        ("none", "does not exist"),
    ] {
        let source = format!("/srv/closed/odd/{name}");
        for one in [bind(&source, "/mnt/x"), read_only(&source, "/mnt/x")] {
            let text = refused(rig, binds([one]));
            assert!(text.contains(word) && text.contains(&source), "{name}: {text}");
        }
    }
    let files = binds([bind("/srv/closed/odd/dir/below", "/mnt/x")]);
    assert_eq!(run(rig, files, "cat /mnt/x/f"), "y\n");
    rig.run(&["systemctl", "stop", "odd-socket.socket"]).unwrap();
}

/// A relative source is the task's own; a link in it, which an earlier run may have made, leads
/// nowhere.
#[test]
fn sources_of_the_task_lie_below_its_own_directory() {
    let rig = host();
    let files = |source: &str| Files {
        binds: vec![Bind { source: Source::Task(relative(source)), ..bind("/", "/mnt/x") }],
        ..Files::default()
    };
    let prepare = |made: &nspawn_tests::hostile::Handmade<'_>| {
        let local = format!("{}/t/local", made.dir());
        rig.sh(&format!("mkdir {local}/d; echo mine >{local}/d/f; ln -s /etc {local}/l")).unwrap();
    };
    let with = |source: &str| {
        Task::try_with(
            rig,
            |made| {
                prepare(made);
                files(source)
            },
            "cat /mnt/x/f",
            |spec| spec,
        )
    };
    assert_eq!(with("local/d").unwrap().finish(), "mine\n");
    for source in ["local/l", "local/l/default"] {
        let text = with(source).err().unwrap().to_string();
        assert!(text.contains("symbolic link"), "{text}");
    }
}

/// Mount points inside other mounts are made with container root's own rights.
#[test]
fn targets_may_lie_in_other_mounts() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/in/a /srv/closed/in/b; echo in >/srv/closed/in/b/f")
        .unwrap();
    let inner = |target: &str| read_only("/srv/closed/in/b", target);
    let files = binds([
        bind("/srv/closed/in/a", "/mnt/a"),
        inner("/mnt/a/x/y"),
        inner("/local/cache"),
        inner("/alloc/shared"),
        inner("/run/own"),
        inner("/tmp/own"),
        read_only("/srv/closed/in/b/f", "/local/file"),
    ]);
    let script =
        "cat /mnt/a/x/y/f /local/cache/f /alloc/shared/f /run/own/f /tmp/own/f /local/file";
    assert_eq!(run(rig, files, script), "in\n".repeat(6));
    assert_eq!(rig.run(&["stat", "-c", "%u %F", "/srv/closed/in/a/x/y"]).unwrap(), "0 directory");
    // In a read-only mount nothing can be made, and nothing is.
    let files = binds([read_only("/srv/closed/in/b", "/mnt/b"), inner("/mnt/b/x")]);
    let text = refused(rig, files);
    assert!(text.contains("/mnt/b/x") && text.contains("beforehand"), "{text}");
    assert!(!rig.exists("/srv/closed/in/b/x"));
    // A payload's link in the way is not followed.
    rig.sh("mkdir /srv/closed/in/c /srv/closed/elsewhere; ln -s /srv/closed/elsewhere /srv/closed/in/c/l")
        .unwrap();
    let files = binds([bind("/srv/closed/in/c", "/mnt/c"), inner("/mnt/c/l/x")]);
    refused(rig, files);
    assert_eq!(rig.run(&["ls", "/srv/closed/elsewhere"]).unwrap(), "");
}

/// Whoever makes a directory there may not read it, by the directory's default access list
/// (acl(5)): version 2, then user, group and others with their rights.
#[test]
fn a_mount_point_is_made_where_it_cannot_be_read() {
    let rig = host();
    rig.sh("set -e; mkdir -p /srv/closed/acl /srv/closed/in/d; echo in >/srv/closed/in/d/f")
        .unwrap();
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (who, rights) in [(0x01_u16, 3_u16), (0x04, 0), (0x20, 0)] {
        list.extend([who.to_le_bytes(), rights.to_le_bytes()].concat());
        list.extend(u32::MAX.to_le_bytes());
    }
    let directory = rig.open("/srv/closed/acl", OFlag::O_RDONLY | OFlag::O_DIRECTORY, 0).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&directory, "system.posix_acl_default", &list, flags).unwrap();
    let files =
        binds([bind("/srv/closed/acl", "/mnt/a"), read_only("/srv/closed/in/d", "/mnt/a/x/y")]);
    assert_eq!(run(rig, files, "cat /mnt/a/x/y/f"), "in\n");
    assert_eq!(rig.run(&["stat", "-c", "%a %u", "/srv/closed/acl/x"]).unwrap(), "300 0");
}

/// The same bind in both spellings of a mount point that is a file in the one and a directory in
/// the other.
#[test]
fn a_target_of_the_other_kind_is_refused_with_both_kinds() {
    let rig = host();
    rig.sh("mkdir -p /srv/closed/kind; echo x >/srv/closed/kind/f").unwrap();
    for (source, target) in [("/srv/closed/kind", "/etc/passwd"), ("/srv/closed/kind/f", "/etc")] {
        let text = refused(rig, binds([read_only(source, target)]));
        assert!(text.contains(target), "{text}");
        assert!(text.contains("file") && text.contains("directory"), "{text}");
    }
}
