//! Out of memory: which processes end, and what is kept of it.

use crate::host::{control, field, resources, script, stand, start};
use nspawn_tests::{vm::inside, wait};
use serde_json::json;
use std::time::Duration;

/// A child that grows until it is killed; the shell goes on.
const CHILD: &str = "(x=0123456789abcdef; while :; do x=$x$x; done); echo child $?; ";

#[test]
fn d35_a_child_that_is_killed_does_not_end_the_task() {
    inside(|| {
        let mut task = start(&format!("{CHILD} sleep 1000"), 64, 100);
        task.wait_output("child 137").unwrap();
        wait::true_within("the kernel's count", Duration::from_secs(5), || {
            Ok(field(&control(&task, "memory.events"), "oom_kill") == 1)
        })
        .unwrap();
        assert!(task.leader().is_ok());
        task.stop("SIGKILL").unwrap();
        // It ends well afterwards: no end for want of memory.
        let end = start(&format!("{CHILD} exit 0"), 64, 100).finish().unwrap();
        assert!(!end.oom_killed && end.code == 0, "{end:?}");
        let end = start(&format!("{CHILD} exit 5"), 64, 100).finish().unwrap();
        assert!(end.oom_killed && end.code == 5, "{end:?}");
    });
}

#[test]
fn d35_with_oom_task_the_whole_task_ends() {
    inside(|| {
        let mut keys = script(&format!("{CHILD} sleep 1000"));
        keys["oom"] = json!("task");
        let end = stand().start(&keys, resources(64, 100)).unwrap().unwrap().finish().unwrap();
        assert!(end.oom_killed && end.code != 0, "{end:?}");
    });
}
