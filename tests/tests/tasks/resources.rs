//! What a task may use and what it uses: limits of its unit, and the figures that the agent shows.

use crate::work::{Host, LIMIT, Running, TASK, Work};
use nspawn_tests::nomad::Version;
use nspawn_tests::{Rig, wait};
use serde_json::{Value, json};

const MIB: u64 = 1024 * 1024;
/// These tasks have nothing to tidy up: a tenth of a second, in nanoseconds.
const KILL_TIMEOUT: u64 = 100_000_000;

/// A file of the task's control group; `None` where the host has no such controller.
fn control(rig: &Rig, unit: &str, file: &str) -> Option<String> {
    let group = rig.run(&["systemctl", "show", "-P", "ControlGroup", unit]).unwrap();
    let path = format!("/sys/fs/cgroup{group}/{file}");
    rig.exists(&path).then(|| rig.run(&["cat", &path]).unwrap())
}

/// The figures of the task, once they satisfy `enough`.
fn figures(task: &Running, what: &str, enough: impl Fn(&Value) -> bool) -> Value {
    let path = format!("/v1/client/allocation/{}/stats", task.alloc.id);
    let mut last = Value::Null;
    let found = wait::true_within(what, LIMIT, || {
        last = task.alloc.api.get(&path)?["Tasks"][TASK]["ResourceUsage"].take();
        Ok(enough(&last))
    });
    found.unwrap_or_else(|error| panic!("{error:#}: {last}"));
    last
}

fn measured(figures: &Value, field: &str) -> bool {
    figures["Measured"].as_array().is_some_and(|list| list.iter().any(|name| name == field))
}

/// Without the memory controller there are no figures of memory, not even zeros.
#[test]
fn the_agent_shows_the_cpu_and_the_memory_that_a_task_uses() {
    let host = Host::shared();
    let script = "x=0123456789abcdef; for i in $(seq 20); do x=$x$x; done; echo holds 16 MiB; \
                  while :; do i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done; sleep 0.1; done";
    let work = Work::sh(script).task("Resources", json!({ "CPU": 100, "MemoryMB": 128 }));
    let task = work.task("KillTimeout", KILL_TIMEOUT).run(&host, "figures");
    task.wait_says("holds 16 MiB\n");
    let shown = figures(&task, "CPU above zero", |shown| {
        let cpu = &shown["CpuStats"];
        cpu["Percent"].as_f64() > Some(0.0) && cpu["TotalTicks"].as_f64() > Some(0.0)
    });
    for field in ["Percent", "User Mode", "System Mode"] {
        assert!(measured(&shown["CpuStats"], field), "{field}: {shown}");
    }
    let has_memory = control(&host, &task.unit(&host), "memory.current").is_some();
    println!("memory controller on this host: {has_memory}");
    if has_memory {
        figures(&task, "the memory that it holds", |shown| {
            let memory = &shown["MemoryStats"];
            ["RSS", "Usage"]
                .iter()
                .all(|field| memory[field].as_u64() >= Some(16 * MIB) && measured(memory, field))
        });
    } else {
        let memory = &shown["MemoryStats"];
        assert!(memory["Measured"].as_array().is_none_or(Vec::is_empty), "{shown}");
    }
    task.job.purge().unwrap();
}

/// A unit's properties are what PID 1 was told; its files are what the kernel was.
///
/// Tied to Nomad's version: 1.11.3 takes `memory_max = -1` for no limit, 1.6.3 refuses such a job
/// itself, and of another version either is taken. What the driver makes of -1 is in its own tests.
#[test]
fn memory_and_cpu_of_the_job_are_limits_of_the_unit() {
    let host = Host::shared();
    // Else the server takes memory_max for 0.
    host.run(&["nomad", "operator", "scheduler", "set-config", "-memory-oversubscription=true"])
        .unwrap();
    // MemoryMaxMB, MemoryMax=, MemoryLow=
    let rows = [(0, "67108864", "0"), (256, "268435456", "67108864"), (-1, "infinity", "67108864")];
    let mut tasks = Vec::new();
    for row in rows {
        let resources = json!({ "CPU": 2000, "MemoryMB": 64, "MemoryMaxMB": row.0 });
        let work = Work::command(&["/bin/sleep", "600"]).task("KillTimeout", KILL_TIMEOUT);
        let id = format!("limits-{}", row.0);
        match work.task("Resources", resources).try_run(&host, &id) {
            Ok(task) => tasks.push((row, task)),
            Err(error) => {
                let version = host.nomad_version().unwrap();
                let text = format!("{error:#}");
                println!("memory_max = {} is refused by {version:?}", row.0);
                assert!(row.0 == -1 && version != Version([1, 11, 3]), "{version:?}: {text}");
                assert!(text.contains("MemoryMaxMB value (-1) should be larger"), "{text}");
            }
        }
    }
    if host.nomad_version().unwrap() == Version([1, 6, 3]) {
        assert_eq!(tasks.len(), 2, "1.6.3 takes memory_max = -1: correct this test's head");
    }
    for ((_, most, low), task) in &tasks {
        task.alloc.wait_running().unwrap();
        let unit = task.unit(&host);
        for (property, file, expected) in [
            ("MemoryMax", "memory.max", *most),
            ("MemoryLow", "memory.low", *low),
            ("MemorySwapMax", "memory.swap.max", "0"),
            ("CPUWeight", "cpu.weight", "200"),
            ("TasksMax", "pids.max", "16387"),
        ] {
            let shown = host.run(&["systemctl", "show", "-P", property, &unit]).unwrap();
            assert_eq!(shown, expected, "{property} of {unit}");
            match control(&host, &unit, file) {
                Some(kernels) => assert_eq!(kernels, expected.replace("infinity", "max"), "{file}"),
                None => println!("{file}: no such controller on this host"),
            }
        }
    }
    for (_, task) in tasks {
        task.job.purge().unwrap();
    }
}
