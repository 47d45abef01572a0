//! Files, directories, devices and secrets of the host inside.

use crate::*;
use nomad_proto::drivers::{Device, Mount};
use std::sync::Once;

/// Directories of several owners: `one` is root's with a mount below, `app` uid 1000's.
fn sources() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        stand()
            .rig
            .sh("set -e; cd /srv/closed; mkdir -p one/sub app 'a:b' rooted owned plain; \
                 echo one > one/file; echo odd > 'a:b/file'; echo app > app/file; \
                 mount -t tmpfs -o mode=0755 sub one/sub; echo sub > one/sub/file; \
                 chown -R 1000:1000 app; for d in rooted owned plain; do \
                 chown 1234:1234 $d; chmod 0777 $d; done")
            .unwrap();
    });
}

fn bind(source: &str, target: &str) -> Value {
    json!({ "bind": [{ source: target }] })
}

fn read_only(source: &str, target: &str) -> Value {
    json!({ "bind_read_only": [{ source: target }] })
}

#[test]
fn key_bind() {
    sources();
    let one = |target: &str| bind("/srv/closed/one", target);
    let seen = "cat /data/file; ls /data/sub; echo x > /data/made; rm /data/made";
    effects(&[
        (one("/data"), seen, "one\nfile\n"),
        (one("/data:rbind"), seen, "one\nfile\n"),
        (one("/data:norbind"), seen, "one\n"),
        (one("/data:norbind,rbind,idmap"), seen, "one\nfile\n"),
        (one("/data\\:x"), "cat /data:x/file", "one\n"),
        (bind("/srv/closed/a:b", "/data"), "cat /data/file", "odd\n"),
        (bind("/srv/closed/one/file", "/etc/one"), "cat /etc/one", "one\n"),
        // Several in one block, in several, as a map.
        (
            json!({ "bind": [{ "/srv/closed/one": "/a", "/srv/closed/app": "/b" }] }),
            "cat /a/file /b/file",
            "one\napp\n",
        ),
        (
            json!({ "bind": [{ "/srv/closed/one": "/a" }, { "/srv/closed/app": "/b" }] }),
            "cat /a/file /b/file",
            "one\napp\n",
        ),
        (json!({ "bind": { "/srv/closed/one": "/a" } }), "cat /a/file", "one\n"),
    ]);
    for (option, owner) in
        [("", "1000"), ("idmap", "1000"), ("noidmap", "65534"), ("rootidmap", "0")]
    {
        let keys = bind("/srv/closed/app", &format!("/data:{option}"));
        assert_eq!(says(keys, "stat -c %u /data"), format!("{owner}\n"), "{option}");
    }
    let owner = bind("/srv/closed/app", "/home/app:owneridmap");
    if systemd(256) {
        assert_eq!(says(owner, "stat -c %u /home/app"), "1000\n");
    } else {
        refusals(&[(owner, &["owneridmap", "256", "write rootidmap"])]);
    }
    // A relative source is the task's own.
    let prepare = "mkdir $1/t/local/own; echo own > $1/t/local/own/file";
    assert_eq!(says_in(prepare, bind("local/own", "/data"), "cat /data/file"), "own\n");
    refusals(&[
        (one("data"), &["bind \"/srv/closed/one\"", "absolute"]),
        (one("/data:rw"), &["bind \"/srv/closed/one\"", "knows no such option", "\"rw\""]),
        (one("/a:/b:/c"), &["bind \"/srv/closed/one\"", r"a colon in a path is written \:"]),
        (one("/proc/x"), &["/proc/x"]),
        (bind("../up", "/data"), &["bind \"../up\""]),
    ]);
    strict_refusals(&[
        (bind("/srv", "/data"), &["bind of /srv", "\"/srv\" added to [binds] read_write"]),
        (bind("/", "/data"), &["bind of /"]),
        (bind("/etc/nomad-nspawn", "/data"), &["bind of /etc/nomad-nspawn"]),
    ]);
}

#[test]
fn key_bind_read_only() {
    sources();
    let one = |target: &str| read_only("/srv/closed/one", target);
    let script = "cat /data/file; ls /data/sub; for f in /data/made /data/sub/made; do \
                  (echo x > $f) 2>/dev/null && echo written; done; true";
    effects(&[
        (one("/data"), script, "one\nfile\n"),
        (one("/data:rbind"), script, "one\nfile\n"),
        (one("/data:norbind"), script, "one\n"),
        (one("/data:noidmap"), "stat -c %u /data", "65534\n"),
        (read_only("/srv/closed/app", "/data:idmap"), "stat -c %u /data", "1000\n"),
        (read_only("/srv/closed/app", "/data:rootidmap"), "stat -c %u /data", "0\n"),
        (read_only("/etc/hosts", "/etc/the host's"), "grep -c 127 \"/etc/the host's\"", "1\n"),
    ]);
    let prepare = "echo own > $1/t/local/file";
    let script = "cat /data; (echo x > /data) 2>/dev/null || echo no";
    assert_eq!(says_in(prepare, read_only("local/file", "/data"), script), "own\nno\n");
    let both = json!({ "bind": [{ "/srv": "/data" }], "bind_read_only": [{ "/opt": "/data" }] });
    refusals(&[(both, &["/data", "bind_read_only \"/opt\""])]);
    strict_refusals(&[(one("/data"), &["\"/srv/closed/one\" added to [binds] read_only"])]);
}

#[test]
fn key_bind_idmap() {
    sources();
    let keys = |word: &str, source: &str, target: &str| json!({ "bind_idmap": word, "bind": [{ format!("/srv/closed/{source}"): target }] });
    let script = "stat -c %u /data; touch /data/made; stat -c %u /data/made";
    // Inside, and on the host: who owns what container root makes.
    for (word, source, seen, owner) in [
        ("auto", "plain", "1234\n0\n", Some("0")),
        ("idmap", "plain", "1234\n0\n", Some("0")),
        ("rootidmap", "rooted", "0\n0\n", Some("1234")),
        ("none", "plain", "65534\n0\n", None),
    ] {
        assert_eq!(says(keys(word, source, "/data"), script), seen, "{word}");
        let made = format!("/srv/closed/{source}/made");
        let found = stand().rig.sh(&format!("stat -c %u {made}; rm {made}")).unwrap();
        match owner {
            Some(owner) => assert_eq!(found, owner, "{word}"),
            // The range's own.
            None => assert!(found.parse::<u32>().unwrap() >= 524_288, "{found}"),
        }
    }
    let owned = keys("owneridmap", "owned", "/home/app");
    if systemd(256) {
        let script = "stat -c %u /home/app; su app -c 'touch /home/app/made'";
        assert_eq!(says(owned, script), "1000\n");
        let made = stand().rig.sh("stat -c %u /srv/closed/owned/made").unwrap();
        assert_eq!(made, "1234");
    } else {
        refusals(&[(owned, &["bind_idmap", "owneridmap", "256"])]);
    }
    // It holds for volumes too, and an option of a bind wins.
    let volume = says_of(json!({ "bind_idmap": "rootidmap" }), "stat -c %u /v", |task| {
        task.mounts.push(mount("/srv/closed/rooted", "/v"));
    });
    assert_eq!(volume, "0\n");
    let option = json!({ "bind_idmap": "none", "bind": [{ "/srv/closed/app": "/data:idmap" }] });
    assert_eq!(says(option, "stat -c %u /data"), "1000\n");
    let wrong = json!({ "bind_idmap": "map" });
    refusals(&[(wrong, &["bind_idmap = \"map\"", "auto, none, idmap, rootidmap, owneridmap"])]);
}

fn mount(host: &str, task: &str) -> Mount {
    Mount { host_path: host.to_owned(), task_path: task.to_owned(), ..Mount::default() }
}

/// What a volume_mount block becomes.
#[test]
fn volumes_of_nomad() {
    sources();
    let script = "cat /v/file; (echo x > /v/made) 2>/dev/null && echo written; true";
    let seen = |change: fn(&mut Mount)| {
        says_of(json!({}), script, |task| {
            let mut volume = mount("/srv/closed/app", "/v");
            change(&mut volume);
            task.mounts.push(volume);
        })
    };
    assert_eq!(seen(|_| {}), "app\nwritten\n");
    assert_eq!(seen(|volume| volume.readonly = true), "app\n");
    assert_eq!(seen(|volume| volume.task_path = "v".to_owned()), "app\nwritten\n");
    assert_eq!(seen(|volume| volume.propagation_mode = "private".to_owned()), "app\nwritten\n");
    for (mode, label, words) in [
        ("bidirectional", "", ["propagation_mode", "private or host-to-task"]),
        ("shared", "", ["propagation_mode", "\"shared\""]),
        ("", "z", ["selinux_label", "chcon"]),
    ] {
        let refused = stand().refusal_with(&sh(json!({}), "true"), |task| {
            task.mounts.push(Mount {
                propagation_mode: mode.to_owned(),
                selinux_label: label.to_owned(),
                ..mount("/srv/closed/app", "/v")
            });
        });
        let text = refused.unwrap().text;
        assert!(words.iter().all(|word| text.contains(word)), "{mode}{label}: {text}");
    }
    // Later mounts of the host arrive where it was asked for.
    let rig = &stand().rig;
    rig.sh("mkdir -p /srv/closed/late/slave /srv/closed/late/own").unwrap();
    let script = "echo up; until [ -e /local/go ]; do sleep 0.05; done; ls /slave/m /own/m";
    let mut task = stand()
        .start(&sh(json!({}), script), |task| {
            let later = mount("/srv/closed/late/slave", "/slave");
            let mode = "host-to-task".to_owned();
            task.mounts.push(Mount { propagation_mode: mode, ..later });
            task.mounts.push(mount("/srv/closed/late/own", "/own"));
        })
        .unwrap()
        .unwrap();
    task.wait_output("up").unwrap();
    rig.sh("for d in slave own; do d=/srv/closed/late/$d/m; mkdir $d; mount -t tmpfs x $d; \
            echo > $d/late; done")
        .unwrap();
    rig.run(&["touch", &format!("{}/t/local/go", task.allocation.dir())]).unwrap();
    assert_eq!(task.finish().unwrap().stdout, "up\n/own/m:\n\n/slave/m:\nlate\n");
    rig.sh("umount /srv/closed/late/slave/m /srv/closed/late/own/m").unwrap();
}

#[test]
fn key_device() {
    let device =
        |more: Value| json!({ "device": [with(json!({ "host_path": "/dev/zero" }), more)] });
    let script = "stat -c '%n %a' /dev/own; head -c 2 /dev/own | od -An -tx1; \
                  (echo x > /dev/own) 2>/dev/null && echo written; true";
    let at = |permissions: Value| {
        device(json!({ "container_path": "/dev/own", "permissions": permissions }))
    };
    effects(&[
        (at(json!("rw")), script, "/dev/own 666\n 00 00\nwritten\n"),
        (at(Value::Null), script, "/dev/own 666\n 00 00\nwritten\n"),
        (at(json!("r")), "stat -c %a /dev/own; head -c 1 /dev/own | wc -c", "444\n1\n"),
        (at(json!("w")), "stat -c %a /dev/own; echo x > /dev/own", "222\n"),
        (at(json!("rwm")), script, "/dev/own 666\n 00 00\nwritten\n"),
        // Unset: where it is on the host.
        (
            json!({ "device": [{ "host_path": "/dev/loop-control" }] }),
            "test -c /dev/loop-control && echo there",
            "there\n",
        ),
    ]);
    // Of Nomad's device plugins, with their environment.
    let seen = says_of(json!({}), "head -c 1 /dev/gpu | wc -c; echo $GPU", |task| {
        task.devices.push(Device {
            task_path: "/dev/gpu".to_owned(),
            host_path: "/dev/zero".to_owned(),
            cgroup_permissions: "rw".to_owned(),
        });
        task.device_env.insert("GPU".to_owned(), "0".to_owned());
    });
    assert_eq!(seen, "1\n0\n");
    refusals(&[
        (at(json!("x")), &["device[0]: permissions = \"x\"", "letters r, w and m"]),
        (json!({ "device": [{ "host_path": "/etc/x" }] }), &["device[0]: host_path", "below /dev"]),
        (json!({ "device": [{}] }), &["device[0].host_path", "is required"]),
    ]);
    strict_refusals(&[(
        json!({ "device": [{ "host_path": "/dev/fuse", "permissions": "r" }] }),
        &["device /dev/fuse", "\"/dev/fuse:r\" added to [devices] allow"],
    )]);
}

#[test]
fn key_credential() {
    let one = |more: Value| json!({ "credential": [with(json!({ "name": "db.key" }), more)] });
    let script = "cat $CREDENTIALS_DIRECTORY/db.key";
    let odd = "s\"e\\c %n $X\nret";
    let prepare = "printf 'of file' > $1/t/secrets/key; cp $1/t/secrets/key $1/t/local/key";
    for (more, seen) in [
        (json!({ "value": odd }), odd),
        (json!({ "source": "secrets/key" }), "of file"),
        (json!({ "source": "local/key" }), "of file"),
        // As ${NOMAD_SECRETS_DIR} has it inside.
        (json!({ "source": "/secrets/key" }), "of file"),
    ] {
        assert_eq!(says_in(prepare, one(more.clone()), script), seen, "{more}");
    }
    let two =
        json!({ "credential": [{ "name": "a", "value": "1" }, { "name": "b", "value": "2" }] });
    assert_eq!(says(two, "cd $CREDENTIALS_DIRECTORY; cat a b; stat -c %a a"), "12400\n");
    let rig = &stand().rig;
    rig.run(&["systemd-creds", "setup"]).unwrap();
    let sealed = rig
        .sh("printf open | systemd-creds encrypt --with-key=host --name=nomad.db.key - -")
        .unwrap();
    let keys = one(json!({ "value": sealed, "encrypted": true }));
    assert_eq!(says(keys, script), "open");
    assert_ne!(says(one(json!({ "value": sealed, "encrypted": false })), script), "open");
    // Init gets them as a command does.
    let keys = with(
        json!({ "image": "init", "ephemeral": true, "console": "pipe" }),
        one(json!({ "value": "for init" })),
    );
    let prepare = "echo 'cat $CREDENTIALS_DIRECTORY/db.key' > $1/t/local/script";
    let outcome = prepared(prepare, &keys).finish().unwrap();
    assert!(outcome.stdout.ends_with("\nfor init"), "{outcome:?}");
    refusals(&[
        (one(json!({})), &["credential[0]", "exactly one of source and value"]),
        (one(json!({ "value": "x", "source": "secrets/x" })), &["exactly one of source and value"]),
        (one(json!({ "source": "/etc/shadow" })), &["credential[0].source", "secrets or local"]),
        (json!({ "credential": [{ "name": "a/b", "value": "x" }] }), &["credential[0].name"]),
        (
            json!({ "credential": [{ "name": "a", "value": "1" }, { "name": "a", "value": "2" }] }),
            &["credential[1]", "its name is there twice"],
        ),
    ]);
}
