//! D44 once more, for a plugin that nobody else uses, so that its descriptors can be counted exactly.

use crate::{script, stand};
use nspawn_tests::wait;
use std::time::Duration;

/// What the plugin's descriptors lead to.
fn descriptors(pid: i32) -> Vec<String> {
    let list =
        stand().rig.sh(&format!("cd /proc/{pid}/fd; for fd in *; do readlink $fd || true; done"));
    list.unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn d44_a_fresh_plugin_opens_no_file_and_grows_by_no_descriptor() {
    let other = stand().another_plugin().unwrap();
    let start = || other.start(&script("true"), |_| {}).unwrap().unwrap();
    let fresh = descriptors(other.pid());
    let kinds = ["/dev/null", "pipe:[", "socket:[", "anon_inode:"];
    let known = |name: &String| kinds.iter().any(|kind| name.starts_with(kind));
    assert!(fresh.len() > 4 && fresh.iter().all(known), "{fresh:#?}");
    // The first task brings what stays: connections to helper and bus.
    start().finish().unwrap();
    // It leaves the bus for a moment now and then, to come back with another connection.
    let looks = (0..6).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        descriptors(other.pid())
    });
    let before = looks.max_by_key(Vec::len).unwrap();
    for _ in 0..8 {
        start().finish().unwrap();
    }
    let mut now = Vec::new();
    let same = wait::true_within("as many descriptors as before", Duration::from_secs(10), || {
        now = descriptors(other.pid());
        Ok(now.len() <= before.len())
    });
    assert!(same.is_ok(), "before {before:#?}, now {now:#?}");
}
