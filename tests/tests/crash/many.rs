//! Many tasks: twenty at once, two hundred one after another.

use crate::rig;
use nspawn_tests::{Rig, World};
use std::time::{Duration, Instant};

/// Time for twenty tasks.
const LIMIT: Duration = Duration::from_secs(60);

/// Tasks that run until they are stopped, or end at once.
fn hcl(name: &str, kind: &str, count: usize, command: &str) -> String {
    format!(
        r#"
job "{name}" {{
  type = "{kind}"
  group "g" {{
    count = {count}
    restart {{
      attempts = 0
      mode     = "fail"
    }}
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    task "t" {{
      driver = "nspawn"
      config {{
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "{command}"]
      }}
      resources {{
        cpu    = 20
        memory = 16
      }}
    }}
  }}
}}
"#
    )
}

#[test]
fn twenty_tasks_started_at_once_all_run() {
    let (rig, _turn) = rig();
    let before = World::snapshot(rig).unwrap();
    let start = Instant::now();
    let run = "trap 'exit 0' TERM; echo up; while :; do sleep 60 & wait; done";
    let job = rig.run_job(&hcl("twenty", "service", 20, run)).unwrap();
    let allocs = job.wait_allocs(20).unwrap();
    for alloc in &allocs {
        alloc.wait_running().unwrap();
        alloc.wait_logs("t", "stdout", LIMIT, |text| text == b"up\n").unwrap();
    }
    eprintln!("20 tasks run after {:.1} s", start.elapsed().as_secs_f64());
    assert_eq!(rig.containers().len(), 20);
    job.purge().unwrap();
    before.assert_same(rig).unwrap();
}

#[test]
fn two_hundred_starts_and_stops_leave_nothing() {
    let (rig, _turn) = rig();
    let before = World::snapshot(rig).unwrap();
    let start = Instant::now();
    (1..=10).for_each(|number| batch(rig, number));
    eprintln!("200 starts and ends in {:.1} s", start.elapsed().as_secs_f64());
    before.assert_same(rig).unwrap();
}

/// Twenty tasks: half of them end by themselves, half are stopped.
pub(crate) fn batch(rig: &Rig, number: usize) {
    let ends = format!("ends-{number}");
    let ends = rig.run_job(&hcl(&ends, "batch", 10, "exit 5")).unwrap();
    let run = "trap 'exit 0' TERM; sleep 60 & wait";
    let stops = format!("stops-{number}");
    let stops = rig.run_job(&hcl(&stops, "service", 10, run)).unwrap();
    for alloc in stops.wait_allocs(10).unwrap() {
        alloc.wait_running().unwrap();
    }
    for alloc in ends.wait_allocs(10).unwrap() {
        alloc.wait_done(LIMIT).unwrap();
        assert_eq!(alloc.task("t").unwrap().exit(), Some((5, 0)));
    }
    stops.purge().unwrap();
    ends.purge().unwrap();
}
