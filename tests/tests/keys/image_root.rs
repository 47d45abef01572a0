//! Which image, and how long what is written to it stays.

use crate::{SOON, STORE, allocation, copy, effects, refusals, says, sh, stand, strict_refusals};
use nspawn_tests::wait;
use serde_json::{Value, json};

const WHICH: &str = "cat /etc/which";

#[test]
fn key_image() {
    copy("named", "echo named > etc/which");
    copy("beside", "echo store > etc/which");
    let rig = &stand().rig;
    rig.sh("set -e; p=/opt/nomad/plugins; mkdir -p $p/images; cd /var/lib/machines; \
            cp -a named $p/images/deep; echo deep > $p/images/deep/etc/which; \
            cp -a named $p/beside; echo beside > $p/beside/etc/which; chmod 755 $p/images")
        .unwrap();
    let image = |image: &str| json!({ "image": image });
    effects(&[
        (image("named"), WHICH, "named\n"),
        (image("/var/lib/machines/named"), WHICH, "named\n"),
        (image("/var//lib/./machines/named/"), WHICH, "named\n"),
        (image("images/deep"), WHICH, "deep\n"),
        (image("./images/deep"), WHICH, "deep\n"),
        // A name is the store's first, a path below the plugin's directory.
        (image("beside"), WHICH, "store\n"),
        (image("./beside"), WHICH, "beside\n"),
    ]);
    refusals(&[
        (json!({ "image": null }), &["image", "is required"]),
        (image(""), &["image", "must not be empty", "e.g. image ="]),
        (image("../named"), &["image = \"../named\"", "must not hold .. components"]),
        (image("images/none"), &["image = \"images/none\"", "no such file or directory below"]),
        (image("https://example.org/x.tar"), &["cannot download images yet"]),
        (image("/dev/null"), &["neither a directory, nor a file, nor a block device"]),
        (image("."), &["the agent's own directory is not an image"]),
        (json!({ "image": "/", "ephemeral": false }), &["the host's own root would be changed"]),
    ]);
    let refused = stand().refusal(&sh(image("nowhere"), "true")).unwrap();
    assert!(refused.text.contains("nowhere") && refused.text.contains(STORE), "{}", refused.text);
    strict_refusals(&[
        (image("/usr"), &["lies below no directory of [images] paths"]),
        (image("/"), &["/", "[images] paths"]),
    ]);
}

/// The agent runs in /, where such directories are no images.
#[test]
fn an_image_name_is_the_stores_and_then_the_plugin_directories() {
    let rig = &stand().rig;
    rig.sh("set -e; mkdir -p /nix; cd /var/lib/machines; for name in nix srv opt; do \
            cp -a busybox $name; echo store > $name/etc/which; done; \
            p=/opt/nomad/plugins; cp -a nix $p/alone; echo plugin > $p/alone/etc/which")
        .unwrap();
    let disk = rig.add_disk("ext4", "named-disk").unwrap();
    rig.sh(&format!("cp {disk} /opt/nomad/plugins/alone.img")).unwrap();
    let image = |image: &str| json!({ "image": image });
    for name in ["nix", "srv", "opt"] {
        effects(&[(image(name), WHICH, "store\n")]);
    }
    effects(&[
        (image("alone"), WHICH, "plugin\n"),
        (image("alone.img"), "head -n 1 /etc/os-release", "ID=busybox\n"),
        // The store's disk image of that name.
        (image("named-disk"), "head -n 1 /etc/os-release", "ID=busybox\n"),
    ]);
    // Nowhere but in the agent's directory: a name does not mean that.
    rig.sh("cp -a /var/lib/machines/nix /agents; rm -r /opt/nomad/plugins/alone").unwrap();
    let refused = stand().refusal(&sh(image("agents"), "true")).unwrap();
    assert!(refused.text.contains("/var/lib/machines/agents"), "{}", refused.text);
}

/// What a task writes, once no other one uses its image: the host's root holds the images of all tests.
fn said_when_free(keys: &Value) -> String {
    wait::until("the image to be free", SOON, || match stand().start(keys, |_| {})? {
        Ok(task) => Ok(Some(task.finish()?.stdout)),
        Err(refused) if refused.recoverable => Ok(None),
        Err(refused) => panic!("{}", refused.text),
    })
    .unwrap()
}

/// The host's own root, as the older driver allowed it. It holds the images of the other tests, so
/// it is busy while one of them is rewritten.
#[test]
fn key_image_the_hosts_root() {
    let keys = sh(
        json!({ "image": "/", "ephemeral": false, "volatile": "yes", "user_namespacing": false }),
        "ls /opt/nomad 2>/dev/null; cat /usr/lib/os-release",
    );
    let seen = said_when_free(&keys);
    let host = stand().rig.sh("cat /usr/lib/os-release").unwrap();
    assert_eq!(seen.trim_end(), host.trim_end());
}

#[test]
fn key_image_disks() {
    let rig = &stand().rig;
    let path = rig.add_disk("ext4", "disk").unwrap();
    rig.sh("mkdir -p /opt/nomad/plugins/images; \
            cp /var/lib/machines/disk.raw /opt/nomad/plugins/images/disk.img")
        .unwrap();
    let look = |image: &str, kind: &str| {
        // What cannot be written is below an overlay, which holds the mount points.
        let plain = kind != "overlay";
        let keys = json!({ "image": image, "ephemeral": false, "read_only": !plain });
        let script = "head -n 1 /etc/os-release; grep ' / ' /proc/mounts | cut -d' ' -f3";
        let said = said_when_free(&sh(keys, script));
        assert_eq!(said, format!("ID=busybox\n{kind}\n"), "{image}");
    };
    look("disk.raw", "ext4");
    look(&path, "ext4");
    look("images/disk.img", "ext4");
    let device = rig.run(&["busybox", "losetup", "-f"]).unwrap();
    rig.run(&["busybox", "losetup", &device, &path]).unwrap();
    look(&device, "ext4");
    rig.run(&["busybox", "losetup", "-d", &device]).unwrap();
    for (kind, seen) in [("squashfs", "overlay"), ("erofs", "overlay"), ("btrfs", "btrfs")] {
        let name = format!("disk-{kind}");
        rig.add_disk(kind, &name).unwrap();
        look(&format!("{name}.raw"), seen);
    }
}

#[test]
fn key_ephemeral() {
    let path = copy("written", "");
    let image = |ephemeral: Value| json!({ "image": "written", "ephemeral": ephemeral });
    let made = || stand().rig.exists(&format!("{path}/etc/made"));
    assert_eq!(says(image(json!(true)), "echo x > /etc/made; cat /etc/made"), "x\n");
    assert!(!made());
    assert_eq!(says(image(json!(false)), "echo y > /etc/made; cat /etc/made"), "y\n");
    assert!(made());
    // Unset: false.
    effects(&[
        (image(Value::Null), "cat /etc/made; echo z > /etc/made", "y\n"),
        (image(json!(true)), "cat /etc/made; rm /etc/made", "z\n"),
        (image(json!(false)), "cat /etc/made", "z\n"),
    ]);
    // The image itself serves one at a time.
    let mut first =
        stand().start(&sh(image(json!(false)), "echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    first.wait_output("up").unwrap();
    let refused = stand().refusal(&sh(image(json!(false)), "true")).unwrap();
    assert!(refused.recoverable && refused.text.contains(&first.allocation.id), "{refused:?}");
    first.stop("SIGKILL").unwrap();
}

#[test]
fn key_ephemeral_mode() {
    let blocks = "stat -f -c %b /; echo x > /x";
    let disk = stand().rig.run(&["stat", "-f", "-c", "%b", "/var/lib/nomad-nspawn"]).unwrap();
    let mode = |mode: &str| says(json!({ "ephemeral_mode": mode }), blocks);
    assert_eq!(mode("auto").trim(), disk);
    assert_eq!(mode("overlay").trim(), disk);
    assert_ne!(mode("tmpfs").trim(), disk);
    refusals(&[
        (json!({ "ephemeral_mode": "disk" }), &["ephemeral_mode", "auto, overlay, tmpfs"]),
        (
            json!({ "ephemeral_mode": "tmpfs", "ephemeral": false }),
            &["ephemeral_mode = \"tmpfs\"", "has no effect without ephemeral"],
        ),
    ]);
}

#[test]
fn key_persist() {
    for (persist, second) in [("none", "none\n"), ("alloc", "first\n")] {
        let keys = |script| sh(json!({ "persist": persist }), script);
        let run = |allocation, number, script| {
            let task = stand().start_in(allocation, number, &keys(script), |_| {}).unwrap();
            task.unwrap().finish_run().unwrap()
        };
        let (_, allocation) = run(allocation("true"), 1, "echo first > /etc/made");
        let script = "cat /etc/made 2>/dev/null || echo none";
        let (outcome, allocation) = run(allocation, 2, script);
        assert_eq!(outcome.stdout, second, "{persist}");
        allocation.remove(&stand().rig).unwrap();
    }
    refusals(&[
        (json!({ "persist": "job" }), &["persist", "none, alloc"]),
        (
            json!({ "persist": "alloc", "ephemeral_mode": "tmpfs" }),
            &["persist = \"alloc\"", "memory keeps nothing"],
        ),
        (json!({ "persist": "alloc", "read_only": true }), &["changes of an ephemeral root"]),
    ]);
}

#[test]
fn key_pivot_root() {
    copy("pivot", "mkdir new; cp -a usr bin sbin lib etc new; echo new > new/here; echo top > top");
    let keys = |pivot: &str| json!({ "image": "pivot", "pivot_root": pivot });
    effects(&[
        (keys("/new"), "cat /here; ls /top /new 2>&1 | grep -c such", "new\n2\n"),
        (keys("/new:/old"), "cat /here /old/top; ls -d /alloc", "new\ntop\n/alloc\n"),
        (json!({ "image": "pivot", "pivot_root": "" }), "cat /top", "top\n"),
    ]);
    refusals(&[
        (keys("new"), &["pivot_root", "absolute"]),
        (keys("/"), &["pivot_root", "/ is the root already"]),
        (keys("/new:/run/host"), &["pivot_root", "/run/host", "nothing is mounted at or below"]),
        (keys("/a:/b:/c"), &["pivot_root", "one or two absolute paths"]),
    ]);
    let refused = stand().refusal(&sh(keys("/missing"), "true")).unwrap();
    assert!(refused.text.contains("/missing"), "{}", refused.text);
    wait::true_within("nothing to be left of it", SOON, || {
        let units = ["systemctl", "list-units", "--failed", "--plain", "--no-legend"];
        Ok(!stand().rig.run(&units)?.contains("nomad-nspawn-0"))
    })
    .unwrap();
}
