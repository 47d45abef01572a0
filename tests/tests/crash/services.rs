//! The host's own services are restarted, and the helper is killed again and again.

use crate::fleet::{Fleet, LIMIT, SHIPS};
use crate::{Host, rig};
use nspawn_tests::processes::Part;
use nspawn_tests::{Rig, World, wait};

#[test]
fn no_task_notices_that_pid_1_the_bus_or_machined_are_restarted() {
    undisturbed(|rig, fleet| {
        for command in [
            &["systemctl", "daemon-reexec"][..],
            &["systemctl", "restart", "dbus.service"],
            &["systemctl", "restart", "systemd-machined.service"],
            &["systemctl", "daemon-reload"],
        ] {
            rig.run(command).unwrap();
            fleet.assert_untouched();
            fleet.assert_reached(0);
            let listed = rig.run(&["machinectl", "list", "--no-legend"]).unwrap();
            assert_eq!(listed.lines().count(), SHIPS, "after {command:?}:\n{listed}");
        }
    });
}

#[test]
fn no_task_notices_that_the_helper_is_killed_twenty_times() {
    undisturbed(|rig, fleet| {
        for _ in 0..20 {
            wait::true_within("a helper to kill", LIMIT, || Ok(rig.kill_part(Part::Helper)? > 0))
                .unwrap();
        }
        fleet.assert_untouched();
    });
}

/// Ten tasks before and after, and the same host.
fn undisturbed(body: impl FnOnce(&Rig, &Fleet<'_>)) {
    let (rig, _turn) = rig(Host::Rest);
    let before = World::snapshot(rig).unwrap();
    let fleet = Fleet::start(rig);
    body(rig, &fleet);
    (0..SHIPS).for_each(|ship| fleet.assert_reached(ship));
    fleet.assert_shown_running();
    fleet.assert_logs_complete();
    fleet.end();
    before.assert_same(rig).unwrap();
}
