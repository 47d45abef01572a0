//! What a task sees of its limits inside, from its first instruction on (systemd 254).

use crate::host::{MIB, control, resources, script, stand};
use nomad_proto::drivers::TaskConfig;
use nspawn_tests::vm::inside;
use serde_json::json;

/// The first thing that the payload does.
const READ: &str = "cd /sys/fs/cgroup; cat memory.max memory.swap.max cpu.max pids.max; nproc; \
                    echo 999999999999 > memory.max; cat memory.max";

fn has_supervisor() -> bool {
    let text = stand().rig.run(&["systemctl", "--version"]).unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap() >= 254
}

#[test]
fn d53_d56_limits_are_inside_before_the_first_instruction_and_stay() {
    inside(|| {
        let mut keys = script(READ);
        keys["cpu_hard_limit"] = json!(true);
        keys["pids_limit"] = json!(50);
        let change = |task: &mut TaskConfig| {
            resources(128, 500)(task);
            let linux = task.resources.as_mut().unwrap().linux_resources.as_mut().unwrap();
            (linux.percent_ticks, linux.cpuset_cpus) = (0.375, "0-1".to_owned());
        };
        let end = stand().run_with(&keys, change).unwrap();
        let cores: u64 = stand().rig.run(&["nproc", "--all"]).unwrap().parse().unwrap();
        let max = (128 * MIB).to_string();
        let expected = if has_supervisor() {
            format!("{max}\n0\n{} 100000\n50\n2\n{max}\n", 37_500 * cores)
        } else {
            // Only the unit's hold; nobody can change the file either.
            "max\nmax\nmax 100000\nmax\n2\nmax\n".to_owned()
        };
        assert_eq!(end.stdout, expected, "{end:?}");
    });
}

#[test]
fn d55_memory_max_of_minus_one_is_no_limit_and_swap_stays_off() {
    inside(|| {
        let change = |task: &mut TaskConfig| {
            resources(64, 100)(task);
            let given = task.resources.as_mut().unwrap();
            given.allocated_resources.as_mut().unwrap().memory.as_mut().unwrap().memory_max_mb = -1;
        };
        let task = stand().start(&script("sleep 1000"), change).unwrap().unwrap();
        assert_eq!(control(&task, "memory.max"), "max");
        assert_eq!(control(&task, "memory.low"), (64 * MIB).to_string());
        assert_eq!(control(&task, "memory.swap.max"), "0");
        task.stop("SIGKILL").unwrap();
    });
}
