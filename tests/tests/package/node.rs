//! A node that gets the driver by its package.

use nspawn_tests::host::agent::UNIT;
use nspawn_tests::{Config, Job, Rig, Suite, product, wait};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// The helper's unit.
pub(crate) const HELPER: &str = "nomad-nspawn-helper.service";
/// Its socket.
pub(crate) const SOCKET: &str = "nomad-nspawn-helper.socket";
/// Name of the package.
pub(crate) const NAME: &str = "nomad-driver-nspawn";
/// More than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A host without the driver.
pub(crate) fn bare(suite: Suite, agent: bool) -> Rig {
    Rig::up(&Config { product: None, agent, ..Config::new(suite) }).unwrap()
}

/// Puts a package into the host; returns its path there.
pub(crate) fn bring(rig: &Rig, package: &Path) -> String {
    let to = format!("/root/{}", package.file_name().unwrap().to_str().unwrap());
    rig.copy_in(package, &to, 0o644).unwrap();
    to
}

/// What a shell script printed on both streams; it must succeed.
pub(crate) fn sh(rig: &Rig, script: &str) -> String {
    let out = rig.exec_within(&["sh", "-c", &format!("exec 2>&1; {script}")], LIMIT).unwrap();
    assert!(out.success(), "{script}: {}", out.text());
    out.text()
}

/// Installs by dpkg; returns what it printed.
pub(crate) fn install(rig: &Rig, package: &str) -> String {
    sh(rig, &format!("dpkg --install {package}"))
}

/// The four lines of the package's example instead of the rig's own, and a restart of the agent.
pub(crate) fn configure_agent(rig: &Rig) {
    sh(rig, "sed -i '/^plugin_dir/d' /etc/nomad.d/client.hcl");
    let lines = "/usr/share/doc/nomad-driver-nspawn/examples/agent-package.hcl";
    sh(rig, &format!("cat {lines} >> /etc/nomad.d/client.hcl"));
    rig.agent_restart().unwrap();
    rig.wait_driver("nspawn").unwrap();
}

/// Runs the repository's first example to its end.
pub(crate) fn run_example(rig: &Rig) {
    let file = product::workspace().join("example/jobs/hello.nomad.hcl");
    let job = rig.run_job(&std::fs::read_to_string(file).unwrap()).unwrap();
    let alloc = job.alloc().unwrap();
    assert_eq!(alloc.wait_done(LIMIT).unwrap(), "complete", "{:?}", alloc.task("hello"));
    alloc.wait_logs("hello", "stdout", LIMIT, |text| text.starts_with(b"hello from")).unwrap();
    job.purge().unwrap();
}

/// A job of `count` busyboxes that run a script.
pub(crate) fn job(rig: &Rig, name: &str, kind: &str, count: usize, script: &str) -> Job {
    let task = json!({
        "Name": "t", "Driver": "nspawn", "KillTimeout": 100_000_000,
        "Config": {
            "image": "busybox", "boot": false, "ephemeral": true,
            "command": ["/bin/sh", "-c", script],
        },
        "Resources": { "CPU": 20, "MemoryMB": 32 },
    });
    rig.run_job_json(&json!({
        "ID": name, "Name": name, "Type": kind, "Datacenters": ["*"],
        "TaskGroups": [{
            "Name": "g", "Count": count, "Tasks": [task],
            "RestartPolicy": { "Attempts": 0, "Mode": "fail" },
            "ReschedulePolicy": { "Attempts": 0, "Unlimited": false },
            "EphemeralDisk": { "SizeMB": 150 },
        }],
    }))
    .unwrap()
}

/// What `nomad-nspawnctl doctor` finds wrong.
pub(crate) fn failures(rig: &Rig) -> Vec<Value> {
    let found = rig.exec(&["nomad-nspawnctl", "doctor", "--json"]).unwrap();
    let report: Value = serde_json::from_str(&found.text()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    checks.iter().filter(|check| check["state"] == "fail").cloned().collect()
}

/// A property of a unit.
pub(crate) fn property(rig: &Rig, unit: &str, name: &str) -> String {
    rig.run(&["systemctl", "show", "-P", name, unit]).unwrap()
}

/// Units of tasks that run.
pub(crate) fn running(rig: &Rig) -> Vec<String> {
    let list = "systemctl list-units --plain --no-legend --state=active 'nomad-nspawn-*.service'";
    let list = rig.sh(list).unwrap();
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let others = ["helper", "log-", "clean-", "enter-", "filters"];
    let task =
        |name: &&str| !others.iter().any(|it| name.starts_with(&format!("nomad-nspawn-{it}")));
    names.filter(task).map(str::to_owned).collect()
}

/// Waits until the helper answers.
pub(crate) fn wait_helper(rig: &Rig) {
    wait::true_within("the helper to run", LIMIT, || {
        Ok(rig.exec(&["systemctl", "is-active", HELPER])?.success())
    })
    .unwrap();
}

/// Paths of the host's own file system that outlive a package, without what changes by itself.
pub(crate) fn files(rig: &Rig) -> Vec<String> {
    const OTHERS: [&str; 13] = [
        "/root",
        "/tmp",
        "/var/log",
        "/var/cache",
        "/var/lib/dpkg",
        "/var/lib/apt",
        "/var/lib/nomad",
        "/var/lib/nomad-server",
        "/opt/nomad/data",
        "/var/tmp",
        "/var/backups",
        "/run",
        "/etc/nomad.d",
    ];
    let skip: Vec<String> = OTHERS.iter().map(|dir| format!("-path {dir}")).collect();
    let script = format!("find / -xdev \\( {} \\) -prune -o -print | sort", skip.join(" -o "));
    // Copies that tools of accounts make, and man-db's index.
    let by_themselves = ["/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-"];
    let list = rig.sh(&script).unwrap();
    list.lines().filter(|path| !by_themselves.contains(path)).map(str::to_owned).collect()
}

/// What is in one list and not in the other.
pub(crate) fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let new = after.iter().filter(|path| !before.contains(path)).map(|path| format!("+{path}"));
    let gone = before.iter().filter(|path| !after.contains(path)).map(|path| format!("-{path}"));
    new.chain(gone).collect()
}

/// The agent starts again and its node is ready, whatever became of the driver.
pub(crate) fn assert_agent_starts(rig: &Rig) {
    rig.agent_restart().unwrap_or_else(|error| panic!("{error:#}\n{}", rig.unit_tail(UNIT, 20)));
}
