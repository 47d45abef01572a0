//! One loop device a layer, however many tasks; and what a removal means for those that run.

use crate::*;
use std::thread;

#[test]
fn twenty_tasks_share_one_device_which_goes_with_the_last() {
    let _alone = alone();
    let id = import("shared", &format!("{BUSYBOX} echo shared > own"));
    // At once: none finds a device that is there already.
    let tasks: Vec<_> = thread::scope(|scope| {
        let one = || {
            let (task, client) = (Handmade::new(rig(), "images").unwrap(), client());
            let mode = named("shared", Root::Ephemeral(Layer::Memory));
            start(&task, &client, mode, "cat /own; exec sleep 600").unwrap();
            (task, client)
        };
        let all: Vec<_> = (0..20).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(loops(id), 1);
    let flags = "for d in /sys/block/loop*; do \
                   case $(cat $d/loop/backing_file 2>/dev/null) in \
                   *$0*) cat $d/ro $d/loop/autoclear $d/loop/dio $d/loop/offset;; esac; done";
    assert_eq!(rig().run(&["sh", "-c", flags, &id.to_string()]).unwrap(), "1\n1\n0\n0");
    // Gone by name; the tasks that run read on.
    assert!(ctl(&["rm", "shared"]).success());
    assert!(!rig().exists(&layer_path(id)));
    for (task, client) in tasks {
        assert_eq!(loops(id), 1);
        assert_eq!(task.written(0).unwrap(), b"shared\n");
        let process = rig().containers_of(&task.key.alloc.to_string(), 1).pop().unwrap();
        let read = std::fs::read(format!("/proc/{}/root/own", process.pid)).unwrap();
        assert_eq!(read, b"shared\n");
        end(task, &client);
    }
    wait_no_loops(id);
    assert!(refusal("shared", Root::ReadOnly).to_string().contains("does not exist"));
}

/// A device of the same file that another program made, writable or of a part of it, is not shared.
#[test]
fn a_device_of_another_kind_is_left_alone() {
    let _alone = alone();
    let id = import("alone", &format!("{BUSYBOX} echo alone > own"));
    let path = layer_path(id);
    for options in ["", "-r -o 4096"] {
        let made = format!("losetup -f --show {options} {path}");
        let device = rig().sh(&made).unwrap();
        assert_eq!(run(named("alone", Root::ReadOnly), "cat /own"), "alone", "{options}");
        rig().run(&["losetup", "-d", device.trim()]).unwrap();
    }
    wait_no_loops(id);
}
