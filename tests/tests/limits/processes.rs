//! Processes: a task cannot have more than its limit, and the host does not notice.

use crate::host::{control, field, group, script, stand};
use nspawn_tests::{vm::inside, wait};
use std::time::Duration;

/// The shell that forks ends at its first failure; those that it has made stay, and so does PID 1.
const BOMB: &str = "until [ -e /local/go ]; do sleep 0.1; done; echo begins; \
                    (while :; do (sleep 1000 &); done) 2> /dev/null & exec sleep 2000";

#[test]
fn a_fork_bomb_stops_at_the_units_limit() {
    inside(|| {
        let stand = stand();
        let mut bomb = stand.start(&script(BOMB), |_| {}).unwrap().unwrap();
        assert_eq!(control(&bomb, "pids.max"), "16387", "what every task has, and systemd-nspawn");
        // A smaller one, which emulated forks reach in time: the payload is below the unit's.
        let unit = bomb.unit();
        stand.rig.run(&["systemctl", "set-property", "--runtime", &unit, "TasksMax=64"]).unwrap();
        let go = format!("{}/t/local/go", bomb.allocation.dir());
        stand.rig.run(&["touch", &go]).unwrap();
        bomb.wait_output("begins").unwrap();
        wait::true_within("a fork that is refused", Duration::from_secs(20), || {
            // Up to Linux 6.10 it counts in the cgroup of who forks, not in that of the limit.
            let counts = format!("cat {0}/pids.events {0}/payload/pids.events", group(&bomb));
            Ok(stand.rig.sh(&counts)?.lines().any(|line| field(line, "max") > 0))
        })
        .unwrap();
        // Attempts count until they fail, a few at once.
        let now: u64 = control(&bomb, "pids.current").parse().unwrap();
        assert!((32..100).contains(&now), "{now}");
        // Others start, and fork.
        let other = stand.run(&script("(exit 3); echo $?")).unwrap();
        assert_eq!((other.stdout.as_str(), other.code), ("3\n", 0));
        bomb.stop("SIGKILL").unwrap();
    });
}
