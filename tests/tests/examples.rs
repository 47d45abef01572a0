//! The jobs of example/jobs that are written as the older driver's documentation writes them, run
//! unchanged through an agent on a node with the compat preset; and that of a zone.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

use nspawn_tests::host::{Config, Rig};
use nspawn_tests::wait;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

fn job(name: &str) -> String {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../example/jobs");
    std::fs::read_to_string(jobs.join(format!("{name}.nomad.hcl"))).unwrap()
}

/// Jobs that end, with each task's standard output.
const BATCH: [(&str, &[(&str, &str)]); 7] = [
    ("shell", &[("shell", "line 1\nline 2\nline 3\n")]),
    ("binds", &[("block", "kept\n"), ("map", "NAMES\n")]),
    ("environment", &[("block", "bar block\n"), ("map", "bar map\n")]),
    ("capability", &[("capability", "1\n")]),
    ("volatile", &[("volatile", "")]),
    ("read-only", &[("read-only", "")]),
    ("relative", &[("relative", "")]),
];

#[test]
fn older_jobs_run_unchanged_with_the_compat_preset() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    rig.set_policy("preset = \"compat\"\n").unwrap();
    // The host's root is an overlay, which no kernel can ID-map.
    rig.sh("set -e; mkdir -p /opt/nomad/srv; \
         mount --bind /opt/nomad/srv /srv; mkdir -m 0700 /srv/binds; mkdir /srv/binds/data; \
         mkdir /opt/nomad/plugins/images; \
         cp -a /var/lib/machines/busybox /opt/nomad/plugins/images/busybox")
        .unwrap();
    let names = rig.sh("grep -c . /etc/os-release").unwrap();
    let debian = rig.run_job(&job("resolv-conf")).unwrap();
    for (name, tasks) in BATCH {
        let run = rig.run_job(&job(name)).unwrap();
        let alloc = run.alloc().unwrap();
        let status = alloc.wait_done(LIMIT).unwrap();
        for (task, expected) in tasks {
            let state = alloc.task(task).unwrap();
            let err =
                alloc.logs(task, "stderr").map(|it| String::from_utf8_lossy(&it).into_owned());
            assert_eq!(state.exit(), Some((0, 0)), "{name}: {:?} {err:?}", state.events());
            let expected = expected.replace("NAMES", names.trim());
            let enough = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&expected);
            alloc.wait_logs(task, "stdout", LIMIT, enough).unwrap();
        }
        assert_eq!(status, "complete", "{name}");
        run.purge().unwrap();
    }
    assert_eq!(rig.sh("cat /srv/binds/data/map").unwrap().trim(), "kept");
    let alloc = debian.alloc().unwrap();
    alloc.wait_running().unwrap();
    let inside = format!(
        "nsenter -t $(machinectl show -P Leader debian-{}) -m cat /etc/resolv.conf",
        alloc.id
    );
    let host = rig.sh("cat /etc/resolv.conf").unwrap();
    wait::until("the host's resolv.conf inside", LIMIT, || {
        Ok(rig.exec(&["sh", "-c", &inside])?.text().contains(host.trim()).then_some(()))
    })
    .unwrap();
    debian.purge().unwrap();
}

/// It has more of the CPU until it has booted, and the usual weight after that.
#[test]
fn the_example_with_a_slow_start_is_ready_and_has_its_own_weight_again() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    let run = rig.run_job(&job("slow-start")).unwrap();
    let alloc = run.alloc().unwrap();
    let unit = "nomad-nspawn-$(echo ALLOC | tr -d -)-*.service".replace("ALLOC", &alloc.id);
    let weight = || rig.sh(&format!("systemctl show -P CPUWeight \"{unit}\""));
    wait::true_within("five times the weight", LIMIT, || Ok(weight()?.trim() == "50")).unwrap();
    alloc.wait_running().unwrap();
    wait::true_within("its own weight", LIMIT, || Ok(weight()?.trim() == "10")).unwrap();
    run.purge().unwrap();
}

/// What the kernel enforces of them is in `limits`: here it may have no controllers, and then the
/// job's second command finds no file.
#[test]
fn the_example_with_limits_starts_where_the_policy_allows_swap() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    rig.set_policy("[limits]\nswap = \"64m\"\n").unwrap();
    let run = rig.run_job(&job("limits")).unwrap();
    let alloc = run.alloc().unwrap();
    alloc.wait_logs("limits", "stdout", LIMIT, |text| text.starts_with(b"200\n")).unwrap();
    run.purge().unwrap();
}

/// Ready by its command, and its template's change runs a script in it.
#[test]
fn the_example_with_commands_is_ready_and_hears_of_its_template() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    let greet = |with| {
        rig.run(&["nomad", "var", "put", "-force", "nomad/jobs/ready-command", with]).unwrap()
    };
    greet("greeting=hello");
    let run = rig.run_job(&job("ready-command")).unwrap();
    let alloc = run.alloc().unwrap();
    alloc.wait_running().unwrap();
    let web = "wget -q -O - http://127.0.0.1:8080/greeting";
    let exec =
        ["nomad", "alloc", "exec", "-t=false", "-task", "web", &alloc.id, "/bin/sh", "-c", web];
    assert_eq!(rig.run(&exec).unwrap(), "hello");
    greet("greeting=welcome");
    let file = format!("/var/lib/nomad/alloc/{}/alloc/data/greetings", alloc.id);
    wait::true_within("the change script", LIMIT, || {
        Ok(rig.read_file(&file).is_ok_and(|text| text == b"welcome\n"))
    })
    .unwrap();
    run.purge().unwrap();
}

/// In one group, and each by the other's task name.
#[test]
fn tasks_of_the_example_zone_find_each_other() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    let run = rig.run_job(&job("zone")).unwrap();
    let alloc = run.alloc().unwrap();
    alloc.wait_running().unwrap();
    alloc.wait_logs("web", "stdout", LIMIT, |text| text.starts_with(b"rows\n")).unwrap();
    run.purge().unwrap();
    assert_eq!(rig.sh("ls /run/nomad-nspawn/hosts").unwrap(), "");
}
