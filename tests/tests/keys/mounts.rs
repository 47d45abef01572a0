//! File systems in memory, overlay mounts, `mount` blocks and hidden paths.

use crate::*;
use std::sync::Once;

/// Layers `low` and `high`, and the same below a name with a colon.
fn layers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        stand()
            .rig
            .sh("set -e; cd /srv/closed; mkdir -p lay/low lay/high lay/c:d; mkdir -m 0700 lay/up; \
                 echo low > lay/low/low; echo low > lay/low/both; echo high > lay/high/both; \
                 echo colon > lay/c:d/both; mkdir -p lay/m")
            .unwrap();
    });
}

const LOOK: &str = "cat /mnt/o/both; (echo x > /mnt/o/made) 2>/dev/null && echo written; true";

#[test]
fn key_overlay() {
    layers();
    let overlay = |text: &str| json!({ "overlay": [text] });
    effects(&[
        (overlay("/srv/closed/lay/low:/srv/closed/lay/high::/mnt/o"), LOOK, "high\nwritten\n"),
        (overlay("/srv/closed/lay/low::/mnt/o"), LOOK, "low\nwritten\n"),
        (overlay(r"/srv/closed/lay/c\:d::/mnt/o"), LOOK, "colon\nwritten\n"),
        (overlay("/srv/closed/lay/low::/mnt/o"), "ls /mnt/o", "both\nlow\n"),
    ]);
    // An upper directory keeps the changes, for the same ids.
    let kept = |range: &str| {
        with(
            overlay("/srv/closed/lay/low:/srv/closed/lay/up:/mnt/o"),
            json!({ "private_users": range }),
        )
    };
    effects(&[
        (kept("1073741824"), "echo kept > /mnt/o/kept; rm /mnt/o/low", ""),
        (kept("1073741824"), "cat /mnt/o/kept; ls /mnt/o", "kept\nboth\nkept\n"),
    ]);
    // Two paths: the second is upper and target.
    let two = overlay("/srv/closed/lay/low:local/up");
    refusals(&[(two, &["overlay", "absolute"])]);
    stand().rig.run(&["mkdir", "-m", "0700", "/srv/closed/lay-target"]).unwrap();
    let two = overlay("/srv/closed/lay/low:/srv/closed/lay-target");
    assert_eq!(says(two, "cat /srv/closed/lay-target/both"), "low\n");
    // Relative layers are the task's own.
    let prepare = "mkdir $1/t/local/low; echo own > $1/t/local/low/both";
    assert_eq!(says_in(prepare, overlay("local/low::/mnt/o"), LOOK), "own\nwritten\n");
    refusals(&[
        (overlay("/one"), &["overlay \"/one\"", "at least two paths"]),
        (overlay(":/a:/b"), &["overlay", "/a"]),
    ]);
    strict_refusals(&[(overlay("/srv:/opt::/mnt/o"), &["/srv", "[binds] read_only"])]);
}

#[test]
fn key_overlay_ro() {
    layers();
    let overlay = |text: &str| json!({ "overlay_ro": [text] });
    effects(&[
        (overlay("/srv/closed/lay/low:/srv/closed/lay/high:/mnt/o"), LOOK, "high\n"),
        (overlay("/srv/closed/lay/high:/srv/closed/lay/low:/mnt/o"), LOOK, "low\n"),
        // One layer alone, at its own path.
        (
            overlay("/srv/closed/lay/low:/srv/closed/lay/high"),
            "cat /srv/closed/lay/high/both",
            "high\n",
        ),
    ]);
    refusals(&[(overlay("/one"), &["overlay_ro \"/one\"", "at least two paths"])]);
    strict_refusals(&[(overlay("/srv:/opt:/mnt/o"), &["/srv", "[binds] read_only"])]);
}

fn mount(block: Value) -> Value {
    json!({ "mount": [block] })
}

#[test]
fn key_mount() {
    layers();
    let bind = |more: Value| {
        mount(with(json!({ "source": "/srv/closed/lay/low", "target": "/mnt/o" }), more))
    };
    let clean = format!("{LOOK}; rm -f /mnt/o/made 2>/dev/null; true");
    let options = "grep ' /mnt/o ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | \
                   grep -xE 'ro|noexec|size=.*'; true";
    effects(&[
        (bind(json!({})), &clean, "low\nwritten\n"),
        (bind(json!({ "type": "bind", "readonly": false })), &clean, "low\nwritten\n"),
        (bind(json!({ "readonly": true })), LOOK, "low\n"),
        (bind(json!({ "propagation": "private" })), "cat /mnt/o/both", "low\n"),
        (bind(json!({ "options": ["noidmap", "norbind"] })), "stat -c %u /mnt/o", "65534\n"),
        (bind(json!({ "options": ["idmap"] })), "stat -c %u /mnt/o", "0\n"),
        (
            mount(json!({ "type": "tmpfs", "target": "/mnt/o" })),
            "stat -f -c %T /mnt/o; stat -c %a /mnt/o; echo x > /mnt/o/x",
            "tmpfs\n755\n",
        ),
        (
            mount(json!({ "type": "tmpfs", "target": "/mnt/o", "options": ["size=1m", "noexec"] })),
            options,
            "noexec\nsize=1024k\n",
        ),
        (mount(json!({ "type": "tmpfs", "target": "/mnt/o", "readonly": true })), options, "ro\n"),
        (
            mount(json!({
                "type": "overlay", "target": "/mnt/o",
                "source": "/srv/closed/lay/low:/srv/closed/lay/high:",
            })),
            LOOK,
            "high\nwritten\n",
        ),
        (
            mount(json!({
                "type": "overlay", "target": "/mnt/o", "readonly": true,
                "source": "/srv/closed/lay/low:/srv/closed/lay/high",
            })),
            LOOK,
            "high\n",
        ),
        (
            json!({ "mount": [
                { "type": "tmpfs", "target": "/a" },
                { "source": "/srv/closed/lay/low", "target": "/a/deep" },
            ] }),
            "cat /a/deep/both; stat -f -c %T /a",
            "low\ntmpfs\n",
        ),
    ]);
    let prepare = "echo own > $1/t/local/file";
    let own = mount(json!({ "source": "local/file", "target": "/etc/own" }));
    assert_eq!(says_in(prepare, own, "cat /etc/own"), "own\n");
    propagation();
    refusals(&[
        (mount(json!({ "source": "/srv" })), &["mount[0].target", "is required"]),
        (mount(json!({ "target": "/x" })), &["mount[0].source"]),
        (
            bind(json!({ "type": "volume" })),
            &["mount[0].type = \"volume\"", "bind, tmpfs, overlay"],
        ),
        (
            bind(json!({ "type": "tmpfs" })),
            &["mount[0].source", "no meaning for a mount of type tmpfs"],
        ),
        (bind(json!({ "options": ["ro"] })), &["mount[0].options", "knows no such option"]),
        (
            bind(json!({ "propagation": "bidirectional" })),
            &["mount[0].propagation = \"bidirectional\"", "private or host-to-task"],
        ),
        (
            mount(
                json!({ "type": "overlay", "source": "/a:/b", "target": "/x", "options": ["ro"] }),
            ),
            &["mount[0].options", "no meaning for a mount of type overlay"],
        ),
        (
            mount(json!({ "type": "tmpfs", "target": "/x", "propagation": "host-to-task" })),
            &["mount[0].propagation", "no meaning"],
        ),
    ]);
    strict_refusals(&[(
        mount(json!({ "source": "/srv", "target": "/x" })),
        &["\"/srv\" added to [binds] read_write"],
    )]);
}

/// Later mounts of the host arrive where it was asked for.
fn propagation() {
    let rig = &stand().rig;
    let script = "echo up; until [ -e /local/go ]; do sleep 0.05; done; ls /mnt/o/m";
    for (mode, seen) in [("host-to-task", "up\nlate\n"), ("private", "up\n")] {
        let block = json!({ "source": "/srv/closed/lay", "target": "/mnt/o", "propagation": mode });
        let mut task = started(&sh(mount(block), script));
        task.wait_output("up").unwrap();
        rig.sh("mount -t tmpfs x /srv/closed/lay/m; echo > /srv/closed/lay/m/late").unwrap();
        rig.run(&["touch", &format!("{}/t/local/go", task.allocation.dir())]).unwrap();
        assert_eq!(task.finish().unwrap().stdout, seen, "{mode}");
        rig.run(&["umount", "/srv/closed/lay/m"]).unwrap();
    }
}

#[test]
fn key_tmpfs() {
    let tmpfs = |text: &str| json!({ "tmpfs": [text] });
    let options = "stat -f -c %T /m; grep ' /m ' /proc/mounts | cut -d' ' -f4 | tr , '\\n' | \
                   grep -xE 'ro|noexec|size=.*|nr_inodes=.*'; stat -c %a /m";
    let runs = "printf '#!/bin/sh\\necho runs\\n' > /m/p; chmod 755 /m/p; \
                /m/p 2>/dev/null || echo held";
    effects(&[
        (tmpfs("/m"), options, "tmpfs\n755\n"),
        (tmpfs("/m:size=1m"), options, "tmpfs\nsize=1024k\n755\n"),
        (tmpfs("/m:size=65536"), options, "tmpfs\nsize=64k\n755\n"),
        (tmpfs("/m:nr_inodes=16"), options, "tmpfs\nnr_inodes=16\n755\n"),
        (tmpfs("/m:mode=1777"), options, "tmpfs\n1777\n"),
        (tmpfs("/m:ro"), options, "tmpfs\nro\n755\n"),
        (tmpfs("/m:ro,rw"), options, "tmpfs\n755\n"),
        (tmpfs("/m:noexec"), options, "tmpfs\nnoexec\n755\n"),
        (tmpfs("/m:noexec"), runs, "held\n"),
        (tmpfs("/m:exec"), runs, "runs\n"),
        (tmpfs("/m:noexec,exec,nosuid,nodev"), runs, "runs\n"),
        (tmpfs(r"/m\:ro"), "stat -f -c %T /m:ro", "tmpfs\n"),
        (json!({ "tmpfs": ["/a", "/b/c"] }), "stat -f -c %T /a /b/c", "tmpfs\ntmpfs\n"),
    ]);
    refusals(&[
        (tmpfs("m"), &["tmpfs \"m\"", "absolute"]),
        (tmpfs("/m:size=big"), &["tmpfs", "size=big", "knows no such option"]),
        (tmpfs("/m:mode=9"), &["mode=9", "mode=OCTAL"]),
        (tmpfs("/m:uid=0"), &["uid=0", "knows no such option"]),
        (json!({ "tmpfs": ["/m", "/m"] }), &["tmpfs", "/m"]),
        (tmpfs("/proc/x"), &["/proc/x"]),
        (tmpfs("/alloc"), &["/alloc"]),
    ]);
}

/// As every distribution has them: a user other than root writes there.
#[test]
fn a_tmpfs_where_all_write_is_open_to_every_user() {
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        let script = format!("stat -c %a {place}; echo mine > {place}/x; cat {place}/x");
        let user = |keys| with(json!({ "image": "debian", "user": "daemon" }), keys);
        let block = json!({ "mount": [{ "type": "tmpfs", "target": place }] });
        effects(&[
            (user(json!({ "tmpfs": [format!("{place}:size=512m")] })), &script, "1777\nmine\n"),
            (user(json!({ "tmpfs": [format!("{place}/")] })), &script, "1777\nmine\n"),
            (user(block), &script, "1777\nmine\n"),
            (json!({ "tmpfs": [format!("{place}:mode=0750")] }), &script, "750\nmine\n"),
        ]);
    }
}

/// What docs/CONFIG.md says of /tmp and /dev/shm.
#[test]
fn tmp_is_in_memory_unless_the_tasks_own_directory_is_bound_there() {
    let kind = "stat -f -c %T /tmp; stat -c %a /tmp; echo mine > /tmp/x; cat /tmp/x";
    let user = |keys| with(json!({ "image": "debian", "user": "daemon" }), keys);
    assert_eq!(says(user(json!({})), kind), "tmpfs\n1777\nmine\n");
    let shm = "stat -f -c %T /dev/shm; stat -c %a /dev/shm";
    assert_eq!(says(user(json!({})), shm), "tmpfs\n1777\n");
    // As Nomad makes the task's directory.
    let prepare = "mkdir -p $1/t/tmp; chmod 1777 $1/t/tmp";
    let seen = says_in(prepare, user(json!({ "bind": [{ "tmp": "/tmp" }] })), kind);
    assert!(seen.ends_with("\n1777\nmine\n") && !seen.contains("tmpfs"), "{seen}");
}

#[test]
fn key_inaccessible() {
    let keys = json!({ "inaccessible": ["/etc/passwd", "/home"] });
    let script = "cat /etc/passwd 2>/dev/null; ls /home 2>/dev/null; stat -c %a /etc/passwd /home; \
                  umount /home 2>/dev/null && echo undone; head -n 1 /etc/group";
    effects(&[(keys, script, "0\n0\nroot:x:0:\n")]);
    let missing = sh(json!({ "inaccessible": ["/no/such"] }), "true");
    let refused = stand().refusal(&missing).unwrap();
    assert!(refused.text.contains("/no/such"), "{}", refused.text);
    refusals(&[(json!({ "inaccessible": ["home"] }), &["inaccessible", "\"home\"", "absolute"])]);
}
