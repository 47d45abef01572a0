//! Images: shared by ephemeral tasks, changed by one plain task at a time, only where policy allows.

use crate::work::{Host, Work};
use nspawn_tests::Rig;

const STORE: &str = "/var/lib/machines";

/// A copy of the busybox image for one test.
struct Copy<'a> {
    rig: &'a Rig,
    path: String,
}

impl<'a> Copy<'a> {
    fn at(rig: &'a Rig, path: &str) -> Self {
        rig.run(&["cp", "-a", &format!("{STORE}/busybox"), path]).unwrap();
        Self { rig, path: path.to_owned() }
    }

    /// Content, owner, mode, time and link target of everything in it.
    fn hash(&self) -> String {
        let all = format!(
            "cd {} && {{ find . -printf '%p %U %G %m %T@ %C@ %s %l\\n' | sort; \
             find . -type f | sort | xargs -d '\\n' sha256sum; }} | sha256sum",
            self.path
        );
        self.rig.run(&["sh", "-c", &all]).unwrap()
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        self.rig.exec(&["rm", "-rf", &self.path]).ok();
    }
}

#[test]
fn ephemeral_tasks_share_an_image_and_leave_it_alone() {
    let host = Host::shared();
    let image = Copy::at(&host, &format!("{STORE}/tasks-shared"));
    let before = image.hash();
    let start = |name: &str| {
        let script = format!(
            "trap 'exit 0' TERM; echo {name} >/etc/{name}; rm /etc/hosts; chown 1000 /root; \
             chmod 777 /usr/bin; echo changed; \
             while [ ! -e /alloc/data/look ]; do sleep 0.05; done; \
             echo $(cd /etc; ls one two 2>/dev/null); while :; do sleep 0.05; done"
        );
        Work::sh(&script).config("image", "tasks-shared").service().run(&host, name)
    };
    let tasks = [("one", start("one")), ("two", start("two"))];
    for (_, task) in &tasks {
        task.wait_says("changed\n");
    }
    for (name, task) in &tasks {
        let look = format!("/var/lib/nomad/alloc/{}/alloc/data/look", task.alloc.id);
        host.write_file(&look, "", 0o644).unwrap();
        // It sees its own change and not the other's.
        task.wait_says(&format!("changed\n{name}\n"));
    }
    assert_eq!(image.hash(), before, "the image changed while tasks ran on it");
    for (_, task) in &tasks {
        task.job.purge().unwrap();
    }
    assert_eq!(image.hash(), before, "the image changed");
}

fn plain(image: &str, script: &str) -> Work {
    Work::sh(script).config("image", image).config("ephemeral", false)
}

#[test]
fn a_plain_image_has_one_writer_and_keeps_its_changes() {
    let host = Host::shared();
    let image = Copy::at(&host, &format!("{STORE}/tasks-plain"));
    let script = "trap 'exit 0' TERM; echo kept >/etc/mark; chown 1000:1000 /etc/mark; \
        echo written; while :; do sleep 0.05; done";
    let writer = plain("tasks-plain", script).service().run(&host, "writer");
    writer.wait_says("written\n");

    let second = plain("tasks-plain", "true").without_logs().run(&host, "second");
    let text = second.refusal();
    assert!(text.contains(&writer.alloc.id), "the holder is not named: {text}");
    assert!(text.contains("tasks-plain"), "{text}");
    second.job.purge().unwrap();

    writer.job.purge().unwrap();
    let mark = host.run(&["stat", "-c", "%u:%g", &format!("{}/etc/mark", image.path)]).unwrap();
    assert_eq!(mark, "1000:1000", "owner on disk");
    let reader = plain("tasks-plain", "cat /etc/mark").run(&host, "reader");
    assert_eq!(reader.end(), ("complete".to_owned(), 0, 0));
    reader.assert_stream("stdout", b"kept\n");
    reader.job.purge().unwrap();

    // A writer that is killed, systemd-nspawn included, does not lock the image for the next.
    let deaf = plain("tasks-plain", "echo written; sleep 600").service();
    let deaf = deaf.task("KillTimeout", 100_000_000).run(&host, "deaf-writer");
    deaf.wait_says("written\n");
    deaf.job.stop().unwrap();
    assert_eq!(deaf.end().2, 9);
    deaf.job.purge().unwrap();
    let next = plain("tasks-plain", "cat /etc/mark").run(&host, "next");
    assert_eq!(next.end(), ("complete".to_owned(), 0, 0));
    next.job.purge().unwrap();
}

#[test]
fn an_image_outside_the_policy_is_refused_with_the_rule() {
    let host = Host::shared();
    let image = Copy::at(&host, "/srv/outside");
    let link = format!("{STORE}/tasks-link");
    host.run(&["ln", "-s", &image.path, &link]).unwrap();
    let text = |path: &str, id: &str| {
        let task = Work::sh("true").config("image", path).without_logs().run(&host, id);
        let text = task.refusal();
        task.job.purge().unwrap();
        text
    };
    let outside = text("/srv/outside", "outside");
    assert!(outside.contains("[images] paths"), "{outside}");
    assert!(outside.contains("/srv/outside"), "{outside}");
    // A link inside the store leads nowhere else either.
    let through = text(&link, "through");
    host.run(&["rm", &link]).unwrap();
    assert!(through.contains("tasks-link"), "{through}");
    let missing = text("no-such-image", "missing");
    assert!(missing.contains("no-such-image"), "{missing}");
}
