//! Another directory of the image as root.

use crate::*;
use proto::path::Absolute;
use proto::target::Target;
use proto::task_spec::Pivot;

fn pivot(name: &str, mode: Root, new: &str, old: Option<&str>) -> impl FnOnce(&mut TaskSpec) {
    let change = tree(name, mode);
    let path = |text: &str| Absolute::parse(text).unwrap();
    let old = old.map(|text| Target::parse(text).unwrap());
    let pivot = Pivot { new: path(new), old };
    move |spec| {
        change(spec);
        spec.root.pivot = Some(pivot);
    }
}

/// An image with a whole system in a directory of its own, without mount points.
fn deployed(name: &str) -> String {
    let path =
        image(name, "mkdir -p deploy/a:b; cp -a usr bin sbin lib deploy/a:b; echo whole > top");
    rig().sh(&format!("echo new > {path}/deploy/a:b/here; mkdir {path}/deploy/a:b/etc")).unwrap();
    path
}

#[test]
fn a_directory_of_the_image_becomes_the_root_and_the_whole_is_shown_below_it() {
    let path = deployed("deployed");
    let before = fingerprint(&path);
    let script = "cat /here; cat /old/root/top; ls -d /alloc /local; cat \
                  /old/root/deploy/a:b/here; stat -c %u:%g /here /old/root/top; echo x > /old/root/x";
    let expected = ["new", "whole", "/alloc", "/local", "new", "0:0", "0:0"];
    for mode in HARMLESS.into_iter().chain([Root::Plain]) {
        if mode == Root::Volatile(Volatile::Yes) {
            continue;
        }
        let said = run(pivot("deployed", mode, "/deploy/a:b", Some("/old/root")), script);
        let mut expected = lines(&expected);
        if matches!(mode, Root::ReadOnly | Root::Volatile(Volatile::State)) {
            let error = "\nsh: can't create /old/root/x: Read-only file system";
            expected.push_str(error);
        }
        assert_eq!(said, expected, "{mode:?}");
        if mode != Root::Plain {
            assert_eq!(fingerprint(&path), before, "{mode:?}");
        }
    }
    // Made in the new root, by plain mode alone.
    assert!(rig().exists(&format!("{path}/deploy/a:b/old/root")));
    assert!(rig().exists(&format!("{path}/x")) && !rig().exists(&format!("{path}/old")));
}

#[test]
fn the_new_root_gets_the_machine_id_and_the_old_one_goes() {
    deployed("deployed-alone");
    let task = Handmade::new(rig(), "pivot").unwrap();
    let change = pivot("deployed-alone", Root::Ephemeral(Layer::Disk), "/deploy/a:b", None);
    let said = run_of(&task, change, "cat /etc/machine-id; ls /deploy /top 2>&1 | wc -l").unwrap();
    assert_eq!(said, format!("{}\n2", task.key.alloc.simple()));
    task.remove(&client()).unwrap();
}

#[test]
fn volatile_yes_takes_usr_of_the_new_root() {
    deployed("deployed-volatile");
    let change = pivot("deployed-volatile", Root::Volatile(Volatile::Yes), "/deploy/a:b", None);
    assert_eq!(run(change, "ls /here /top 2>&1 | grep -c such; stat -f -c %T /"), "2\ntmpfs");
}

/// Links of the image that name places of the host.
#[test]
fn a_new_root_is_never_the_hosts() {
    rig().sh("mkdir -p /srv/host/usr; echo host > /srv/host/marker").unwrap();
    image("pivot-links", "ln -s /srv/host out; ln -s ../../../../srv/host up; echo x > file");
    for (new, why) in [
        ("/out", "No such file"),
        ("/up", "No such file"),
        ("/up/usr", "No such file"),
        ("/missing", "No such file"),
        ("/file", "is no directory"),
    ] {
        let said = refused(pivot("pivot-links", Root::Ephemeral(Layer::Disk), new, None));
        assert!(said.contains(why), "{new}: {said}");
    }
}
