//! Device nodes.

use crate::{at, host, path, refused, run};
use proto::task_spec::files::{Device, DeviceAccess, Files};

fn device(node: &str, target: &str, access: &str) -> Device {
    let has = |letter| access.contains(letter);
    let access = DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') };
    Device { host: path(node), target: at(target), access }
}

fn devices(all: impl Into<Vec<Device>>) -> Files {
    Files { devices: all.into(), ..Files::default() }
}

#[test]
fn nodes_are_there_and_work() {
    let rig = host();
    let files = devices([
        device("/dev/zero", "/dev/own-zero", "rw"),
        device("/dev/full", "/dev/sub/own full", "r"),
        device("/dev/zero", "/mnt/zero", "r"),
    ]);
    let script = r#"
        stat -c '%n %F %a %u:%g %t:%T' /dev/own-zero '/dev/sub/own full' /mnt/zero
        head -c 4 /dev/own-zero | od -An -tx1
        head -c 2 '/dev/sub/own full' | od -An -tx1
        head -c 2 /mnt/zero | od -An -tx1
        # Only the nodes that were asked for: none can be made.
        mknod /dev/mine c 1 5 2>/dev/null && exit 1
        mknod /mnt/mine b 7 0 2>/dev/null && exit 2
        exit 0
    "#;
    let kind = "character special file";
    let expected = format!(
        "/dev/own-zero {kind} 666 0:0 1:5\n/dev/sub/own full {kind} 444 0:0 1:7\n\
         /mnt/zero {kind} 444 0:0 1:5\n 00 00 00 00\n 00 00\n 00 00\n"
    );
    assert_eq!(run(rig, files, script), expected);
}

#[test]
fn only_device_nodes_are_taken_and_no_links() {
    let rig = host();
    rig.sh("mkdir -p /dev/test/dir; cd /dev/test; echo x >file; ln -sf ../zero link; mkfifo fifo; ln -sfn /etc abs")
        .unwrap();
    for (name, word) in [
        ("file", "not a device node"),
        ("fifo", "not a device node"),
        ("dir", "not a device node"),
        ("link", "symbolic link"),
        ("abs", "symbolic link"),
        ("none", "does not exist"),
    ] {
        let text = refused(rig, devices([device(&format!("/dev/test/{name}"), "/dev/x", "rw")]));
        assert!(text.contains(word) && text.contains(name), "{text}");
    }
}
