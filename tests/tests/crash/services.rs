//! The host's own services are restarted, and the helper is killed again and again.

use crate::ends::Ends;
use crate::fleet::{Fleet, LIMIT, SHIPS};
use crate::{Host, rig};
use nix::sys::signal::Signal;
use nspawn_tests::processes::Part;
use nspawn_tests::{Rig, World, wait};
use std::collections::BTreeSet;
use std::time::Instant;

#[test]
fn no_task_notices_that_pid_1_the_bus_or_machined_are_restarted() {
    undisturbed(|rig, fleet| {
        for (number, command) in [
            &["systemctl", "daemon-reexec"][..],
            &["systemctl", "restart", "dbus.service"],
            &["systemctl", "restart", "systemd-machined.service"],
            &["systemctl", "daemon-reload"],
        ]
        .into_iter()
        .enumerate()
        {
            let ends = Ends::start(rig, &format!("service-{number}"));
            ends.exit();
            rig.run(command).unwrap();
            ends.kill();
            ends.assert_told();
            fleet.assert_untouched();
            fleet.assert_reached(0);
            let listed = rig.run(&["machinectl", "list", "--no-legend"]).unwrap();
            assert_eq!(listed.lines().count(), SHIPS, "after {command:?}:\n{listed}");
        }
    });
}

/// So many different processes.
const KILLS: usize = 20;

#[test]
fn no_task_notices_that_the_helper_is_killed_twenty_times() {
    undisturbed(|rig, fleet| {
        let ends = Ends::start(rig, "helper");
        let (mut killed, start) = (BTreeSet::new(), Instant::now());
        while killed.len() < KILLS {
            let helper = wait::until("a helper that has not been killed yet", LIMIT, || {
                let all = rig.processes_of(Part::Helper);
                Ok(all.into_iter().find(|process| !killed.contains(process)))
            });
            let helper = helper.unwrap();
            helper.signal(Signal::SIGKILL).unwrap();
            killed.insert(helper);
            match killed.len() {
                5 => ends.exit(),
                15 => ends.kill(),
                _ => {}
            }
        }
        eprintln!("{KILLS} helpers killed in {:.1} s", start.elapsed().as_secs_f64());
        ends.assert_told();
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
