//! CPU: tasks that want more than there is get it by their weights.

use crate::host::{control, field, group, resources, script, stand, start};
use nomad_proto::drivers::{LinuxResources, TaskConfig};
use nspawn_tests::stand::Running;
use nspawn_tests::vm::inside;
use nspawn_tests::{outer, wait};
use serde_json::json;
use std::time::{Duration, Instant};

const BURN: &str = "echo burns; while :; do :; done";
/// Keeps two CPUs busy.
const BURN_TWO: &str = "(while :; do :; done) & echo burns; while :; do :; done";

/// Starts a script whose resources of Linux are changed.
fn start_with(
    text: &str,
    hard: bool,
    change: impl FnOnce(&mut LinuxResources),
) -> Running<'static> {
    let mut keys = script(text);
    keys["cpu_hard_limit"] = json!(hard);
    let change = |task: &mut TaskConfig| {
        resources(64, 500)(task);
        change(task.resources.as_mut().unwrap().linux_resources.as_mut().unwrap());
    };
    let mut task = stand().start(&keys, change).unwrap().unwrap();
    task.wait_output("burns").unwrap();
    task
}

/// CPUs that the task keeps busy, by the kernel's count, over this time.
fn busy(task: &Running<'_>, time: Duration) -> f64 {
    let file = format!("{}/cpu.stat", group(task));
    let look = || {
        let text = String::from_utf8(task.rig().read_file(&file).unwrap()).unwrap();
        (Instant::now(), field(&text, "usage_usec"))
    };
    let (begin, before) = look();
    std::thread::sleep(time);
    let (end, after) = look();
    (after - before) as f64 / (end - begin).as_micros() as f64
}

#[test]
fn d53_a_quota_holds_within_two_percent() {
    inside(|| {
        // A tenth of four CPUs. Both burn, so that it is the quota that holds them.
        let cores: f64 = stand().rig.run(&["nproc", "--all"]).unwrap().parse().unwrap();
        let task = start_with(BURN_TWO, true, |linux| linux.percent_ticks = 0.1);
        assert_eq!(control(&task, "cpu.max"), format!("{} 100000", 10_000.0 * cores));
        let expected = 0.1 * cores;
        let seen = busy(&task, Duration::from_secs(10));
        println!("quota of {expected:.2} CPUs: {seen:.4}");
        assert!((seen / expected - 1.0).abs() < 0.02, "{seen} instead of {expected}");
        task.stop("SIGKILL").unwrap();
    });
}

#[test]
fn d54_a_task_runs_on_the_cores_that_it_reserves_and_no_others() {
    inside(|| {
        let task = start_with(BURN_TWO, false, |linux| linux.cpuset_cpus = "2".to_owned());
        assert_eq!(control(&task, "cpuset.cpus.effective"), "2");
        let seen = busy(&task, Duration::from_secs(3));
        println!("two processes on one core: {seen:.3} CPUs");
        assert!(seen < 1.02, "{seen}");
        // Where each of them has run last (proc_pid_stat(5)).
        let list = format!("cat {}/payload/cgroup.procs", group(&task));
        let list = task.rig().sh(&list).unwrap();
        assert!(list.lines().count() >= 2, "{list}");
        for pid in list.lines() {
            let stat = task.rig().run(&["cat", &format!("/proc/{pid}/stat")]).unwrap();
            let after_name = stat.rsplit_once(')').unwrap().1;
            assert_eq!(after_name.split_whitespace().nth(36), Some("2"), "{stat}");
        }
        task.stop("SIGKILL").unwrap();
    });
}

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

/// Nomad's cgroup of tasks that reserve no core, as Nomad 1.7 and newer make it.
const SHARE: &str = "/sys/fs/cgroup/nomad.slice/share.slice";

#[test]
fn d54_tasks_without_cores_follow_nomads_share_within_a_second() {
    inside(|| {
        let rig = &stand().rig;
        let mut task = start(BURN, 64, 500);
        task.wait_output("burns").unwrap();
        // The helper looks for a file that it has missed every 30 s, and when it starts.
        let make = "cd /sys/fs/cgroup; mkdir -p nomad.slice/share.slice
            echo +cpuset > cgroup.subtree_control; echo +cpuset > nomad.slice/cgroup.subtree_control
            systemctl restart nomad-nspawn-helper";
        rig.sh(make).unwrap();
        let own = start_with(BURN_TWO, false, |linux| linux.cpuset_cpus = "0".to_owned());
        let file = format!("{}/cpuset.cpus.effective", group(&task));
        for (written, seen) in [("1-3", "1-3"), ("2", "2"), ("1-3", "1-3")] {
            // By this process and not by a shell, whose start takes seconds beside tasks that burn.
            let begun = Instant::now();
            std::fs::write(format!("{SHARE}/cpuset.cpus"), written).unwrap();
            wait::true_within("the task's CPUs to follow", Duration::from_secs(1), || {
                Ok(std::fs::read_to_string(&file)?.trim() == seen)
            })
            .unwrap();
            let elapsed = begun.elapsed();
            outer::tell(&format!("CPUs {written} after {} ms", elapsed.as_millis()));
            // Also where everything else may take longer.
            assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
            assert_eq!(control(&own, "cpuset.cpus.effective"), "0", "with a core of its own");
        }
        rig.sh(&format!("rmdir {SHARE} /sys/fs/cgroup/nomad.slice")).unwrap();
        for task in [task, own] {
            task.stop("SIGKILL").unwrap();
        }
    });
}
