//! CPU: tasks that want more than there is get it by their weights.

use crate::host::{control, field, start};
use nspawn_tests::vm::inside;
use std::time::Duration;

const BURN: &str = "echo burns; while :; do :; done";

#[test]
fn time_is_shared_by_weight() {
    inside(|| {
        let rig = &crate::host::stand().rig;
        // One CPU for both: without a contest there are no shares.
        rig.run(&["systemctl", "set-property", "--runtime", "machine.slice", "AllowedCPUs=0"])
            .unwrap();
        let mut tasks = [start(BURN, 64, 500), start(BURN, 64, 2000)];
        for task in &mut tasks {
            task.wait_output("burns").unwrap();
        }
        let used = |task| field(&control(task, "cpu.stat"), "usage_usec");
        let [light, heavy] = &tasks;
        let weight = |task| control(task, "cpu.weight").parse::<u64>().unwrap();
        let expected = weight(heavy) as f64 / weight(light) as f64;
        assert!(expected > 3.0, "four times the MHz: {expected}");
        let before = (used(light), used(heavy));
        std::thread::sleep(Duration::from_secs(8));
        let (light, heavy) = (used(light) - before.0, used(heavy) - before.1);
        let ratio = heavy as f64 / light as f64;
        assert!((ratio / expected - 1.0).abs() < 0.15, "{heavy} to {light}, not {expected}");
        rig.run(&["systemctl", "set-property", "--runtime", "machine.slice", "AllowedCPUs="])
            .unwrap();
        for task in tasks {
            task.stop("SIGKILL").unwrap();
        }
    });
}
