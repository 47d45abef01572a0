//! Mount points that the image lacks are provided in every mode, never demanded.

use crate::*;
use nspawn_tests::Suite;
use proto::path::{Component, Relative};
use proto::target::Target;
use proto::task_spec::files::{Bind, Mapping, Source};

/// A bind of a file or directory below the task's /local.
fn bind(source: &str, target: &str) -> Bind {
    let names = ["local", source].map(|name| Component::new(name).unwrap());
    Bind {
        source: Source::Task(Relative::new(names.to_vec()).unwrap()),
        target: Target::parse(target).unwrap(),
        read_only: true,
        recursive: true,
        mapping: Mapping::Automatic,
        propagated: false,
    }
}

#[test]
fn an_image_of_nothing_but_usr_gets_every_mount_point() {
    let bare = "rm -rf etc proc sys dev run var root home tmp mnt srv opt";
    for mode in HARMLESS.into_iter().chain([Root::Plain]) {
        let path = image("bare", bare);
        let task = Handmade::new(rig(), "points").unwrap();
        let local = format!("{}/points/local", task.dir());
        rig()
            .sh(&format!("cd {local}; mkdir directory; echo in > directory/f; echo it > file"))
            .unwrap();
        let change = |spec: &mut TaskSpec| {
            tree("bare", mode)(spec);
            spec.files.binds = vec![
                bind("directory", "/deep/er/directory"),
                bind("file", "/conf/d/file"),
                bind("file", "/run/a/file"),
                bind("file", "/usr/lib/new"),
                bind("directory", "/lib/linked"),
            ];
        };
        // In a root of its own, version 252 makes the directories above them nobody's.
        let nobodys = mode == Root::Volatile(Volatile::Yes) && rig().suite() == Suite::Bookworm;
        let above = if nobodys { "65534:65534" } else { "0:0" };
        let script = "cat /deep/er/directory/f /conf/d/file /run/a/file /usr/lib/new \
                      /lib/linked/f; stat -c %u:%g /deep /conf/d /alloc /var; ls -d /proc/1 /dev/null /sys/kernel";
        let said = run_of(&task, change, script).unwrap();
        let expected = [
            "in",
            "it",
            "it",
            "it",
            "in",
            above,
            above,
            "0:0",
            "0:0",
            "/dev/null",
            "/proc/1",
            "/sys/kernel",
        ];
        let expected = lines(&expected);
        assert_eq!(said, expected, "{mode:?}\n{}", rig().journal_tail(20));
        task.remove(&client()).unwrap();
        rig().run(&["rm", "-r", &path]).unwrap();
    }
}

/// The image's links name places that exist on the host.
#[test]
fn a_mount_point_is_never_made_on_the_host() {
    rig().sh("mkdir -p /srv/outside").unwrap();
    for mode in HARMLESS.into_iter().chain([Root::Plain]) {
        let path = image("links", "ln -s /srv/outside out; ln -s ../../../../srv/outside up");
        let task = Handmade::new(rig(), "points").unwrap();
        let local = format!("{}/points/local", task.dir());
        rig().sh(&format!("echo it > {local}/file")).unwrap();
        for target in ["/out/file", "/up/file"] {
            let change = |spec: &mut TaskSpec| {
                tree("links", mode)(spec);
                spec.files.binds = vec![bind("file", target)];
            };
            // Whether it is made inside or refused.
            drop(run_of(&task, change, "true"));
            let made = rig().run(&["ls", "-A", "/srv/outside"]).unwrap();
            assert_eq!(made, "", "{mode:?} {target}");
        }
        task.remove(&client()).unwrap();
        rig().run(&["rm", "-r", &path]).unwrap();
    }
}
