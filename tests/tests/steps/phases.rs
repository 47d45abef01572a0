//! A start that takes long shows in `nomad alloc status` what it waits for, one event for each phase: a
//! process of the start is stopped at a step, and goes on when the event has been seen.

use crate::rig;
use crate::task::Hook;
use nspawn_tests::shell::ShellJob;
use nspawn_tests::{Alloc, Job, Rig, wait};
use proto::step::Step;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn job(rig: &Rig, name: &str, more: &str) -> (Job, Alloc) {
    let job = ShellJob {
        name,
        kind: "batch",
        count: 1,
        restarts: 0,
        process_two: false,
        port: false,
        kill_timeout: "1s",
        script: "echo up; sleep 1000",
    };
    let job = rig.run_job(&job.hcl().replace("ephemeral ", &format!("{more}\n        ephemeral ")));
    let job = job.unwrap();
    let alloc = job.alloc().unwrap();
    (job, alloc)
}

/// Waits until a person sees this.
fn wait_seen(rig: &Rig, alloc: &Alloc, text: &str) {
    let status = || rig.run(&["nomad", "alloc", "status", &alloc.id]);
    wait::true_within("the event", LIMIT, || Ok(status()?.contains(text)))
        .unwrap_or_else(|error| panic!("{text}: {error:#}: {}", status().unwrap_or_default()));
}

/// The process that meets the step stops there until the event is seen.
fn stop_until_seen(rig: &Rig, alloc: &Alloc, hook: Hook, text: &str) {
    wait::true_within("the step", LIMIT, || Ok(!hook.is_armed(rig)))
        .unwrap_or_else(|error| panic!("{hook}: {error:#}"));
    wait_seen(rig, alloc, text);
    rig.run(&["pkill", "-CONT", "-x", "nomad-nspawn-ta"]).unwrap();
}

#[test]
fn each_phase_of_a_slow_start_is_an_event() {
    let (rig, before, _turn) = rig();
    let stop = |step| {
        let hook = Hook { step, moment: "before" };
        hook.arm(rig, "self 19");
        hook
    };
    let (root, payload) = (stop(Step::RootFs), stop(Step::Exec));
    let (first, alloc) = job(rig, "phases", "");
    stop_until_seen(rig, &alloc, root, "Root: mounts image busybox, ephemeral root on disk");
    let text = "Starting: waits until systemd-nspawn executes the payload";
    stop_until_seen(rig, &alloc, payload, text);
    wait_seen(rig, &alloc, "Started container ");
    first.purge().unwrap();

    // A network of the container's own is made when systemd-nspawn runs.
    let connect = stop(Step::Connect);
    let keys = "capability = [\"net_admin\"]\n        network_zone = \"phases\"\n        \
                ready {\n          mode    = \"notify\"\n          timeout = \"10s\"\n        }";
    let (second, alloc) = job(rig, "phases-network", keys);
    stop_until_seen(rig, &alloc, connect, "Network: makes the task's network");
    wait_seen(rig, &alloc, "Ready: waits until the task sends READY=1, at most 10 s");
    alloc.wait_status("failed", LIMIT).unwrap();
    second.purge().unwrap();
    before.assert_same(rig).unwrap();
}
