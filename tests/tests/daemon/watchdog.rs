//! A helper that hangs: PID 1 ends it and starts the next, and no task notices.

use crate::{HELPER, SOON, alone, started, status};
use nspawn_tests::hostile::{Door, Handmade};
use nspawn_tests::wait;
use proto::wire::State;

const DROP_IN: &str = "/run/systemd/system/nomad-nspawn-helper.service.d";

#[test]
fn a_helper_that_hangs_is_replaced_and_tasks_live_on() {
    let (_alone, host, _) = alone();
    let rig = &host.rig;
    rig.run(&["mkdir", "-p", DROP_IN]).unwrap();
    // Five times as fast as on a node.
    let fast = "[Service]\nWatchdogSec=6s\n";
    rig.write_file(&format!("{DROP_IN}/fast.conf"), fast, 0o644).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let task = Handmade::new(rig, "watched").unwrap();
    let before = started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());

    let old = rig.main_pid(HELPER).unwrap();
    rig.run(&["systemctl", "kill", "--kill-whom=main", "--signal=STOP", HELPER]).unwrap();
    wait::true_within("the helper's next life", SOON, || {
        Ok(![0, old].contains(&rig.main_pid(HELPER)?) && Door::of(rig)?.enter().is_ok())
    })
    .unwrap();
    let journal = rig.journal(HELPER).unwrap();
    assert!(journal.contains("Watchdog timeout (limit 6s)!"), "{journal}");
    let client = Door::of(rig).unwrap().enter().unwrap();
    let now = status(&client, &task.key);
    assert_eq!((now.state, now.leader), (State::Running, before.leader));
    let second = Handmade::new(rig, "second").unwrap();
    started(&client, &second.spec(&["/bin/true"]).unwrap());
    second.remove(&client).unwrap();

    task.remove(&client).unwrap();
    rig.run(&["rm", "-r", DROP_IN]).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    host.world.assert_same(rig).unwrap();
}
