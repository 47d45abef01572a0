//! File systems in memory and hidden paths.

use crate::{at, host, refused, run};
use proto::task_spec::files::{Files, Tmpfs};

fn tmpfs(target: &str) -> Tmpfs {
    Tmpfs {
        target: at(target),
        size: None,
        inodes: None,
        mode: None,
        read_only: false,
        executable: true,
    }
}

#[test]
fn file_systems_in_memory_are_as_asked_for() {
    let rig = host();
    let files = Files {
        tmpfs: vec![
            tmpfs("/plain"),
            Tmpfs { size: Some(1 << 20), inodes: Some(16), mode: Some(0o1777), ..tmpfs("/small") },
            Tmpfs { executable: false, mode: Some(0o700), ..tmpfs("/quiet:noexec,x") },
            Tmpfs { read_only: true, ..tmpfs("/usr/share/fixed") },
        ],
        ..Files::default()
    };
    let script = r#"
        for m in /plain /small /quiet:noexec,x /usr/share/fixed; do
            stat -c '%n %a %u:%g' "$m"
            grep -F " $m tmpfs " /proc/mounts | cut -d' ' -f4 | tr , '\n' >/run/o
            grep -q nosuid /run/o && grep -q nodev /run/o || echo "$m has no nosuid,nodev"
            echo $(grep -xE 'noexec|ro|size=.*|nr_inodes=.*' /run/o)
        done
        dd if=/dev/zero of=/small/f bs=64k count=32 2>/dev/null && echo 'more than 1 MiB'
        printf '#!/bin/sh\necho runs\n' >/plain/p; cp /plain/p /quiet:noexec,x/p
        chmod 755 /plain/p /quiet:noexec,x/p; /plain/p; /quiet:noexec,x/p 2>/dev/null || echo held
        touch /usr/share/fixed/f 2>/dev/null || echo fixed
    "#;
    let expected = "/plain 755 0:0\n\n/small 1777 0:0\nsize=1024k nr_inodes=16\n\
                    /quiet:noexec,x 700 0:0\nnoexec\n/usr/share/fixed 755 0:0\nro\nruns\nheld\nfixed\n";
    assert_eq!(run(rig, files, script), expected);
}

#[test]
fn hidden_paths_cannot_be_looked_into() {
    let rig = host();
    let files =
        Files { inaccessible: ["/etc/passwd", "/srv"].map(at).to_vec(), ..Files::default() };
    let script = "
        cat /etc/passwd 2>/dev/null && exit 1
        ls -A /srv 2>/dev/null
        stat -c %a /etc/passwd /srv
        umount /etc/passwd 2>/dev/null && exit 2
        umount /srv 2>/dev/null && exit 3
        cat /etc/group | head -n 1
    ";
    assert_eq!(run(rig, files, script), "0\n0\nroot:x:0:\n");
    let files = Files { inaccessible: vec![at("/no/such/file")], ..Files::default() };
    let text = refused(rig, files);
    assert!(text.contains("/no/such/file"), "{text}");
}
