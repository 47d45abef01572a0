//! Mounts that the host makes while a task runs.

use crate::{Task, bind, binds, host};
use proto::task_spec::files::Bind;

/// Later mounts show up where they were asked for, and nowhere else; none goes the other way.
#[test]
fn later_mounts_of_the_host_arrive_only_where_asked_for() {
    let rig = host();
    rig.sh("mkdir -p /srv/closed/late/a /srv/closed/late/b").unwrap();
    let files = binds([
        Bind { propagated: true, ..bind("/srv/closed/late/a", "/mnt/a") },
        bind("/srv/closed/late/b", "/mnt/b"),
    ]);
    let script = "
        mkdir -p /mnt/a/own /mnt/b/own && mount -t tmpfs inner /mnt/a/own || exit 1
        touch /mnt/a/own/inner; echo ready
        until [ -e /local/go ]; do sleep 0.05; done
        cat /mnt/a/late/f; ls /mnt/b/late
    ";
    let task = Task::start(rig, files, script);
    let written = || String::from_utf8(task.made.written(0).unwrap()).unwrap();
    nspawn_tests::wait::true_within("the task", std::time::Duration::from_secs(10), || {
        Ok(written().contains("ready"))
    })
    .unwrap();
    assert!(!rig.exists("/srv/closed/late/a/own/inner"), "a mount of the payload left it");
    for name in ["a", "b"] {
        let at = format!("/srv/closed/late/{name}/late");
        rig.sh(&format!("mkdir {at}; mount -t tmpfs late {at}; echo {name} >{at}/f")).unwrap();
    }
    rig.run(&["touch", &format!("{}/t/local/go", task.made.dir())]).unwrap();
    assert_eq!(task.finish(), "a\n");
    rig.sh("umount /srv/closed/late/a/late /srv/closed/late/b/late").unwrap();
}
