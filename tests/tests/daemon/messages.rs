//! What systemd-nspawn says while a task runs: in the journal while the helper lives, and never in
//! the task's output.

use crate::{alone, ended, next_life, started};
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Handmade};

/// What systemd-nspawn says in the journal when its container's first process is killed: an error,
/// since nobody asked for that. A task whose helper dies runs on.
fn said(rig: &Rig, mut client: Client, helper_dies: bool) -> (String, Client) {
    let task = Handmade::new(rig, "messages").unwrap();
    let running = started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    if helper_dies {
        client = next_life(rig);
    }
    rig.run(&["kill", "-KILL", &running.leader.unwrap().to_string()]).unwrap();
    ended(&client, &task.key);
    let words = ["journalctl", "-q", "-o", "cat", "-u", &running.unit, "-t", "systemd-nspawn"];
    let said = rig.run(&words).unwrap();
    let written = [task.written(0).unwrap(), task.written(1).unwrap()].concat();
    assert_eq!(String::from_utf8_lossy(&written), "", "helper dies: {helper_dies}");
    task.remove(&client).unwrap();
    (said, client)
}

#[test]
fn nothing_that_systemd_nspawn_says_is_output_though_the_helper_died() {
    let (_life, host, client) = alone();
    let (in_journal, client) = said(&host.rig, client, false);
    assert!(in_journal.contains("terminated by signal KILL"), "{in_journal}");
    let (in_journal, _client) = said(&host.rig, client, true);
    assert_eq!(in_journal, "", "the text alone goes with the helper");
}
