//! What a task may use: each key as the property of its unit that PID 1 has, and what is seen inside.
//! Whether the kernel enforces it needs controllers, which the test host of kind `container` may lack:
//! `tests/tests/limits` tries that.

use crate::{refusals, says, sh, stand, strict_refusals};
use nomad_proto::drivers::{AllocatedCpuResources, LinuxResources, TaskConfig};
use nspawn_tests::plugin::Allocation;
use nspawn_tests::stand::Running;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Starts a task that stays, of which Nomad says more.
fn started_with(keys: Value, change: impl FnOnce(&mut TaskConfig)) -> Running<'static> {
    let started = stand().start(&sh(keys.clone(), "echo up; sleep 1000"), change).unwrap();
    started.unwrap_or_else(|refused| panic!("{keys}: {}", refused.text))
}

fn started(keys: Value) -> Running<'static> {
    started_with(keys, |_| {})
}

/// Properties of the task's unit, as PID 1 prints them.
fn check(task: Running<'_>, expected: &[(&str, &str)]) {
    for (property, value) in expected {
        let shown = stand().rig.run(&["systemctl", "show", "-P", property, &task.unit()]).unwrap();
        // PID 1 prints lists in an order of its own.
        let words = |text: &str| {
            let mut words: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            words.sort_unstable();
            words
        };
        assert_eq!(words(&shown), words(value), "{property}");
    }
    task.stop("SIGKILL").unwrap();
}

/// What Nomad sends with the job's share of the node's CPU.
fn linux(task: &mut TaskConfig, cpuset_cpus: &str, percent_ticks: f64) {
    let cpuset_cpus = cpuset_cpus.to_owned();
    let linux = LinuxResources { cpuset_cpus, percent_ticks, ..LinuxResources::default() };
    task.resources.as_mut().unwrap().linux_resources = Some(linux);
}

#[test]
fn key_cpu_hard_limit() {
    let share = |task: &mut TaskConfig| linux(task, "", 1.0);
    check(started_with(json!({}), share), &[("CPUQuotaPerSecUSec", "infinity")]);
    // All of the node: as many seconds a second as it has cores.
    let cores: usize = stand().rig.run(&["nproc", "--all"]).unwrap().parse().unwrap();
    let task = started_with(json!({ "cpu_hard_limit": true }), share);
    check(task, &[("CPUQuotaPerSecUSec", &format!("{cores}s"))]);
}

/// Until the task is ready its weight is a multiple; then it is its own.
#[test]
fn key_cpu_boost() {
    let keys = sh(
        json!({
            "image": "debian", "cpu_boost": 5, "ready": { "mode": "notify", "timeout": "1m" },
        }),
        "until [ -e /local/go ]; do sleep 0.05; done; \
         exec perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Type => SOCK_DGRAM, \
         Peer => $ENV{NOTIFY_SOCKET})->send(\"READY=1\"); sleep 1000'",
    );
    let allocation = crate::allocation("true");
    let unit = unit_of(&allocation);
    let go = format!("{}/t/local/go", allocation.dir());
    let task = std::thread::scope(|scope| {
        let start = scope.spawn(|| stand().start_in(allocation, 1, &keys, weight_20));
        wait_for_weight(&unit, "100", crate::SOON);
        stand().rig.run(&["touch", &go]).unwrap();
        start.join().unwrap().unwrap().unwrap()
    });
    assert_eq!(task.unit(), unit);
    check(task, &[("CPUWeight", "20")]);
    refusals(&[
        (json!({ "cpu_boost": 3 }), &["cpu_boost = 3", "ends when the task is ready", "notify"]),
        (
            json!({ "cpu_boost": 3, "ready": { "mode": "exec", "command": ["true"] } }),
            &["cpu_boost = 3", "does not wait for ready.command"],
        ),
        (json!({ "cpu_boost": 101 }), &["cpu_boost = 101", "must be 2 to 100"]),
    ]);
}

/// Whatever becomes of the start.
#[test]
fn a_cpu_boost_ends_after_a_minute() {
    let ready = json!({ "mode": "notify", "timeout": "90s" });
    let keys = sh(json!({ "image": "debian", "cpu_boost": 5, "ready": ready }), "sleep 1000");
    let allocation = crate::allocation("true");
    let unit = unit_of(&allocation);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let start = scope.spawn(|| stand().start_in(allocation, 1, &keys, weight_20));
        wait_for_weight(&unit, "100", crate::SOON);
        wait_for_weight(&unit, "20", Duration::from_secs(75));
        assert!(begun.elapsed() > Duration::from_secs(55), "{:?}", begun.elapsed());
        // Never ready.
        assert!(!matches!(start.join().unwrap(), Ok(Ok(_))));
    });
}

fn weight_20(task: &mut TaskConfig) {
    let resources = task.resources.as_mut().unwrap();
    let allocated = resources.allocated_resources.as_mut().unwrap();
    allocated.cpu = Some(AllocatedCpuResources { cpu_shares: 200 });
}

fn unit_of(allocation: &Allocation) -> String {
    format!("nomad-nspawn-{}-00000001.service", allocation.id.replace('-', ""))
}

fn wait_for_weight(unit: &str, weight: &str, limit: Duration) {
    let show = ["systemctl", "show", "-P", "CPUWeight", unit];
    let is_there = || Ok(stand().rig.run(&show)? == weight);
    nspawn_tests::wait::true_within(&format!("weight {weight}"), limit, is_there).unwrap();
}

#[test]
fn key_memory_swap() {
    for (value, shown) in [
        (Value::Null, "0"),
        (json!("0"), "0"),
        (json!("64m"), "67108864"),
        (json!("unlimited"), "infinity"),
    ] {
        check(started(json!({ "memory_swap": value })), &[("MemorySwapMax", shown)]);
    }
    refusals(&[(json!({ "memory_swap": "much" }), &["memory_swap = \"much\"", "or unlimited"])]);
    strict_refusals(&[(
        json!({ "memory_swap": "1m" }),
        &["swap 1048576", "[limits] swap = 0 in the policy file is the most"],
    )]);
}

#[test]
fn key_oom_score_adj() {
    // Of the command and its child.
    let script = "cat /proc/self/oom_score_adj; sh -c 'cat /proc/self/oom_score_adj; true'";
    let of_unit = |score: &str| {
        let property = format!("OOMScoreAdjust={score}");
        let read = ["systemd-run", "--pipe", "--wait", "-q", "-p", &property];
        let read = [&read[..], &["cat", "/proc/self/oom_score_adj"]].concat();
        stand().rig.run(&read).unwrap()
    };
    // PID 1 of a host that is a container may not go below 0 itself, and says so of any unit.
    let lowest = of_unit("-500");
    println!("-500 is {lowest} on this host");
    for (score, seen) in [(0, "0"), (300, "300"), (-500, lowest.as_str())] {
        let keys = json!({ "oom_score_adj": score });
        assert_eq!(says(keys, script), format!("{seen}\n{seen}\n"), "{score}");
    }
    check(started(json!({ "oom_score_adj": -500 })), &[("OOMScoreAdjust", "-500")]);
    refusals(&[
        (json!({ "oom_score_adj": 1001 }), &["oom_score_adj = 1001", "must be -1000 to 1000"]),
        (
            json!({ "oom_score_adj": -501 }),
            &["oom_score_adj -501", "[limits] oom_score_adj = -500 in the policy file"],
        ),
    ]);
    strict_refusals(&[(json!({ "oom_score_adj": -1 }), &["oom_score_adj -1", "is the lowest"])]);
}

#[test]
fn key_oom() {
    for (value, shown) in
        [(Value::Null, "continue"), (json!("process"), "continue"), (json!("task"), "stop")]
    {
        check(started(json!({ "oom": value })), &[("OOMPolicy", shown)]);
    }
    refusals(&[(json!({ "oom": "kill" }), &["oom = \"kill\"", "one of process, task"])]);
}

#[test]
fn key_io_weight() {
    check(started(json!({ "io_weight": 77 })), &[("IOWeight", "77")]);
    refusals(&[(json!({ "io_weight": 0 }), &["io_weight = 0", "must be 1 to 10000"])]);
}

#[test]
fn key_properties() {
    let properties = json!([{
        "MemoryHigh": "32m", "IOReadBandwidthMax": "/dev/null 1m, /dev/zero 2m",
        "IOWriteIOPSMax": "/dev/null 9",
    }]);
    check(
        started(json!({ "properties": properties })),
        &[
            ("MemoryHigh", "33554432"),
            ("IOReadBandwidthMax", "/dev/null 1048576\n/dev/zero 2097152"),
            ("IOWriteIOPSMax", "/dev/null 9"),
        ],
    );
    refusals(&[
        (
            json!({ "properties": [{ "ExecStartPre": "/bin/sh" }] }),
            &["properties.ExecStartPre", "is not one of MemoryHigh"],
        ),
        (json!({ "properties": [{ "TasksMax": "5" }] }), &["properties.TasksMax", "pids_limit"]),
        (
            json!({ "properties": [{ "IOReadIOPSMax": "/etc/passwd 5" }] }),
            &["properties.IOReadIOPSMax", "must be DEVICE MOST"],
        ),
    ]);
}

/// Without one the task shares the CPUs that no other reserves; with CPUs of its own it does not.
#[test]
fn key_slice() {
    let slice = json!({ "slice": "machine-nspawn-batch.slice" });
    let batch = "machine-nspawn-batch.slice";
    check(started(slice), &[("Slice", batch), ("AllowedCPUs", "")]);
    let share = "machine-nspawn-share.slice";
    check(started(json!({})), &[("Slice", share), ("AllowedCPUs", "")]);
    let cores = |task: &mut TaskConfig| linux(task, "0", 0.5);
    let own = started_with(json!({}), cores);
    check(own, &[("Slice", "machine-nspawn.slice"), ("AllowedCPUs", "0")]);
    refusals(&[
        (json!({ "slice": "batch" }), &["slice = \"batch\"", ".slice"]),
        (json!({ "slice": "system.slice" }), &["slice system.slice", "added to [systemd] slices"]),
    ]);
    strict_refusals(&[(
        json!({ "slice": "machine-nspawn-batch.slice" }),
        &["\"machine-nspawn-batch.slice\" added to [systemd] slices"],
    )]);
}

#[test]
fn key_egress() {
    refusals(&[
        (json!({ "egress": ["10.0.0.0/8"] }), &["egress = \"10.0.0.0/8\"", "begin with deny"]),
        (json!({ "egress": ["deny", "10.0.0.1/8"] }), &["egress = \"10.0.0.1/8\""]),
    ]);
    // The kernel's own programs of cgroups are not to be had in every test host: PID 1's own units
    // show it too. Of a closed port the answer is that it is closed.
    let own = [
        "systemd-run",
        "--pipe",
        "--wait",
        "-q",
        "-p",
        "IPAddressDeny=any",
        "sh",
        "-c",
        "/var/lib/machines/busybox/bin/busybox nc -w 2 127.0.0.1 9 < /dev/null 2>&1; true",
    ];
    let enforced = !stand().rig.run(&own).unwrap().contains("refused");
    println!("this host enforces egress: {enforced}");
    if !enforced {
        let refused = stand().refusal(&sh(json!({ "egress": ["deny"] }), "true")).unwrap();
        for part in ["egress: nothing would enforce these addresses", "CONFIG_CGROUP_BPF"] {
            assert!(refused.text.contains(part), "{part}: {refused:?}");
        }
        return;
    }
    let task = started(json!({ "egress": ["deny", "10.0.0.0/8", "fd00::1"] }));
    // In the order of a hash.
    for (property, expected) in [
        ("IPAddressAllow", &["10.0.0.0/8", "127.0.0.0/8", "::1/128", "fd00::1/128"][..]),
        ("IPAddressDeny", &["0.0.0.0/0", "::/0"]),
    ] {
        let shown = stand().rig.run(&["systemctl", "show", "-P", property, &task.unit()]).unwrap();
        let mut shown: Vec<_> = shown.split(' ').collect();
        shown.sort_unstable();
        assert_eq!(shown, expected, "{property}");
    }
    task.stop("SIGKILL").unwrap();
    // What the payload itself reaches, in a network of its own; its loopback is never part of it.
    // Of a closed port the answer is that it is closed.
    let script = "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); \
                  for it in 127.0.0.1 $gateway; do nc -w 2 $it 9 < /dev/null 2>&1 | \
                  grep -q refused && echo $it; done; true";
    let seen = |egress: Value| says(json!({ "egress": egress }), script);
    let all = seen(Value::Null);
    let [loopback, gateway] = all.lines().collect::<Vec<_>>()[..] else { panic!("{all}") };
    assert_eq!(loopback, "127.0.0.1");
    assert_eq!(seen(json!(["deny", gateway])), all);
    assert_eq!(seen(json!(["deny"])), "127.0.0.1\n");
}
