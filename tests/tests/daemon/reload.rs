//! PID 1 reads its units again, as each installation of a package makes it do: nothing of a task
//! may depend on what it had in memory alone.

use crate::{alone, ended, host, removed, run_of, started, status};
use nspawn_tests::Rig;
use nspawn_tests::hostile::Handmade;
use proto::cpu_set::CpuSet;
use proto::path::Absolute;
use proto::task_spec::Resources;
use proto::task_spec::resources::{AddressRange, IoLimit, OomScope, Property, SliceName, Swap};
use proto::wire::State;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a unit is made of. Counters, times and what the kernel reports are left out.
const SETTINGS: [&str; 36] = [
    "After",
    "AllowedCPUs",
    "CPUQuotaPerSecUSec",
    "CPUWeight",
    "CollectMode",
    "Delegate",
    "Description",
    "DeviceAllow",
    "DevicePolicy",
    "ExecStopPost",
    "IOReadBandwidthMax",
    "IOReadIOPSMax",
    "IOWeight",
    "IOWriteBandwidthMax",
    "IOWriteIOPSMax",
    "IPAddressAllow",
    "IPAddressDeny",
    "KillMode",
    "KillSignal",
    "LimitCORE",
    "LogExtraFields",
    "MemoryHigh",
    "MemoryLow",
    "MemoryMax",
    "MemorySwapMax",
    "NotifyAccess",
    "OOMPolicy",
    "OOMScoreAdjust",
    "RemainAfterExit",
    "Slice",
    "StandardError",
    "StandardOutput",
    "SyslogIdentifier",
    "TasksMax",
    "TimeoutStopUSec",
    "Type",
];

/// The settings as PID 1 has them, and the command line of ExecStart=.
fn settings(rig: &Rig, unit: &str) -> String {
    let names = SETTINGS.join(",");
    let text = rig.run(&["systemctl", "show", "-p", &names, "-p", "ExecStart", unit]).unwrap();
    let lines = text.lines().map(|line| {
        if ["After=", "IPAddressAllow=", "IPAddressDeny="].iter().any(|it| line.starts_with(it)) {
            // In the order of a table of PID 1.
            let mut words: Vec<_> = line.split([' ', '=']).collect();
            words.sort_unstable();
            words.join(" ")
        } else {
            // Behind the words of a command are times of its last run.
            line.split(" ; start_time=").next().unwrap().to_owned()
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything that a job can ask of its unit.
fn every_limit() -> Resources {
    let io = |limit| Property::Io {
        limit,
        device: Absolute::parse("/dev/null").unwrap(),
        most: 1 << 20,
    };
    let range = |address: &str, bits| AddressRange { address: address.parse().unwrap(), bits };
    let high = Property::MemoryHigh(32 << 20);
    Resources {
        memory_max: Some(64 << 20),
        memory_low: Some(16 << 20),
        swap: Swap::Bytes(1 << 20),
        cpu_weight: Some(50),
        cpu_boost: None,
        cpu_quota_us: Some(1_500_000),
        cores: CpuSet::parse("0"),
        tasks_max: Some(100),
        io_weight: Some(77),
        oom_score: -7,
        oom: OomScope::Task,
        slice: Some(SliceName::new("machine-nspawn-batch.slice").unwrap()),
        properties: IoLimit::ALL.map(io).into_iter().chain([high]).collect(),
        egress: Some(vec![range("10.0.0.0", 8), range("fd00::1", 128)]),
    }
}

#[test]
fn a_unit_that_runs_is_the_same_afterwards() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "reloaded").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    spec.resources = every_limit();
    let unit = started(&client, &spec).unit;
    let before = settings(rig, &unit);
    for command in ["ExecStart", "ExecStopPost"] {
        let line = before.lines().find(|line| line.starts_with(&format!("{command}={{")));
        assert!(line.is_some_and(|line| line.contains("/nomad-nspawn-task ")), "{before}");
    }
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    assert_eq!(settings(rig, &unit), before);
    assert_eq!(status(&client, &spec.key).state, State::Running);
    let journal = rig.journal(&unit).unwrap();
    assert!(!journal.contains("Unknown key"), "{journal}");
    task.remove(&client).unwrap();
    // As any slice it stays, for the next task.
    rig.run(&["systemctl", "stop", "machine-nspawn-batch.slice"]).unwrap();
}

/// Ends the reloads, also when a start has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_moment_of_a_start_is_a_bad_one() {
    const STARTS: u32 = 20;
    // PID 1 has no time for others.
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let task = Handmade::new(rig, "reloads").unwrap();
    let over = AtomicBool::new(false);
    let reloads = std::thread::scope(|scope| {
        let reload = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                rig.run(&["systemctl", "daemon-reload"]).unwrap();
                count += 1;
            }
            count
        });
        let end = Over(&over);
        for instance in 1..=STARTS {
            let spec = run_of(&task, &["/bin/sh", "-c", "exit 7"], instance);
            started(&client, &spec);
            ended(&client, &spec.key);
            let State::Ended(exit) = status(&client, &spec.key).state else {
                panic!("run {instance}")
            };
            assert_eq!((exit.code, exit.error.as_str()), (7, ""), "run {instance}");
            removed(&client, &spec.key);
        }
        drop(end);
        reload.join().unwrap()
    });
    assert!(reloads >= 10, "{reloads} reloads beside {STARTS} starts");
    task.remove(&client).unwrap();
}
