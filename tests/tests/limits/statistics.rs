//! Statistics: what the driver reports of a task is what the kernel has counted.

use crate::host::{field, group, resources, script, stand};
use nomad_proto::drivers::TaskStats;
use nspawn_tests::vm::inside;
use serde_json::json;
use std::time::{Duration, Instant, SystemTime};

/// Holds 100 MB and keeps one CPU busy.
const BURNER: &str = r#"$| = 1; my $x = "x" x 100_000_000; print "holds\n"; 1 while 1;"#;
const INTERVAL: Duration = Duration::from_secs(1);
/// Samples after the first.
const SAMPLES: u32 = 10;

fn at(stats: &TaskStats) -> SystemTime {
    stats.timestamp.unwrap().try_into().unwrap()
}

fn near(what: &str, reported: f64, kernels: f64) {
    println!("{what}: {reported} reported, {kernels} counted");
    assert!((reported / kernels - 1.0).abs() < 0.02, "{what}: {reported}, not {kernels}");
}

#[test]
fn d41_cpu_and_memory_are_within_two_percent_of_the_kernels_figures() {
    inside(|| {
        let mut keys = script("");
        keys["image"] = json!("debian");
        keys["command"] = json!(["/usr/bin/perl", "-e", BURNER]);
        let mut task = stand().start(&keys, resources(256, 500)).unwrap().unwrap();
        task.wait_output("holds").unwrap();
        let directory = group(&task);
        let read = |file: &str| {
            let bytes = task.rig().read_file(&format!("{directory}/{file}")).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        let usage = || field(&read("cpu.stat"), "usage_usec");
        // CPU time by the reported shares, and by the kernel. Both as a share of the time between their
        // own first and last look: on a busy machine the looks are not at the same moment.
        let (mut seconds, mut first, mut last) = (0.0, None, None);
        let mut count = 0;
        task.watch_statistics(INTERVAL, |stats| {
            let kernels = (Instant::now(), usage());
            let used = stats.agg_resource_usage.as_ref().unwrap();
            if let Some((then, _)) = last {
                let time = at(&stats).duration_since(then).unwrap().as_secs_f64();
                seconds += used.cpu.as_ref().unwrap().percent / 100.0 * time;
            }
            first.get_or_insert((at(&stats), kernels));
            last = Some((at(&stats), kernels));
            count += 1;
            if count <= SAMPLES {
                return true;
            }
            let memory = used.memory.as_ref().unwrap();
            let anonymous = field(&read("memory.stat"), "anon");
            assert!(memory.rss >= 100_000_000, "{memory:?}");
            near("memory, bytes", memory.rss as f64, anonymous as f64);
            let current: f64 = read("memory.current").trim().parse().unwrap();
            near("memory with cache, bytes", memory.usage as f64, current);
            false
        })
        .unwrap();
        let ((begin, before), (end, after)) = (first.unwrap(), last.unwrap());
        let reported = seconds / end.duration_since(begin).unwrap().as_secs_f64();
        let kernels = (after.1 - before.1) as f64 / (after.0 - before.0).as_micros() as f64;
        near("share of a CPU", reported, kernels);
        task.stop("SIGKILL").unwrap();
    });
}
