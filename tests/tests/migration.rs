//! Tasks of the older Go driver: handed over by Nomad with their handle of version 1, they are reported
//! with the command that ends them, get no second run beside them, and are ended by that command,
//! which touches nothing else.
//!
//! The container is a real one: systemd-nspawn registers it with machined below a process that has
//! the command line of that driver's executor.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

use nomad_proto::drivers::{RecoverTaskRequest, TaskConfig, TaskHandle};
use nspawn_tests::host::Config;
use nspawn_tests::plugin::{Allocation, Plugin};
use nspawn_tests::{Output, Rig, wait};
use std::time::{Duration, Instant};

/// The older driver's process: waits below its own name for orders that never come.
const EXECUTOR: &str = r#"
my $pid = fork // die;
if (!$pid) { open(STDIN, "<", "/dev/null"); exec @ARGV; die }
waitpid($pid, 0);
sleep 1000 while 1;
"#;

fn up() -> Rig {
    let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
    rig.run(&["mkdir", "/opt/old"]).unwrap();
    rig.write_file("/opt/old/executor", EXECUTOR, 0o644).unwrap();
    rig.install_ctl().unwrap();
    rig
}

fn retire(rig: &Rig, words: &[&str]) -> Output {
    rig.exec(&[&["nomad-nspawnctl", "retire"], words].concat()).unwrap()
}

/// Starts a container as the older driver did; the executor's unit is named after the task.
fn older(rig: &Rig, machine: &str, arguments: &[&str]) -> i32 {
    let unit = format!("--unit=old-{machine}");
    let name = format!("--machine={machine}");
    // As that driver's: the plugin's own name, then the word.
    let shell = "cd /opt/old && exec -a /opt/old/nspawn perl executor \"$@\"";
    let mut words = vec!["systemd-run", "--quiet", &unit, "bash", "-c", shell, "bash"];
    words.extend(["systemd-nspawn", "--quiet", "--private-users=pick", "--console=pipe", &name]);
    words.extend(arguments);
    rig.run(&words).unwrap();
    wait::until("the container's registration", Duration::from_secs(20), || {
        let leader = rig.exec(&["machinectl", "show", "--property=Leader", "--value", machine])?;
        Ok(leader.text().trim().parse().ok())
    })
    .unwrap()
}

fn machines(rig: &Rig) -> String {
    rig.run(&["machinectl", "list", "--no-legend"]).unwrap()
}

/// The recovery waits for the container's end; its systemd-nspawn tells machined after that.
fn wait_unregistered(rig: &Rig, machine: &str) {
    wait::true_within("the end of a registration", Duration::from_secs(5), || {
        Ok(!machines(rig).contains(machine))
    })
    .unwrap();
}

fn unit_is_active(rig: &Rig, machine: &str) -> bool {
    rig.exec(&["systemctl", "is-active", &format!("old-{machine}")]).unwrap().success()
}

/// What RecoverTask says to the handle.
async fn recover(plugin: &Plugin, allocation: &Allocation) -> String {
    let handle = TaskHandle {
        version: 1,
        config: Some(TaskConfig {
            id: allocation.task_id(7),
            name: allocation.task.clone(),
            alloc_id: allocation.id.clone(),
            ..TaskConfig::default()
        }),
        driver_state: b"\x83\xafReattachConfig\xc0\xabMachineName\xa1x\xa9StartedAt\xc0".to_vec(),
        ..TaskHandle::default()
    };
    let request = RecoverTaskRequest { task_id: allocation.task_id(7), handle: Some(handle) };
    plugin.driver().recover_task(request).await.unwrap_err().message().to_owned()
}

#[test]
fn s17_the_older_drivers_containers_are_ended_by_the_operators_tool_and_nothing_else_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = up();
    runtime.block_on(scenario(&rig));
    rig.down().unwrap();
}

async fn scenario(rig: &Rig) {
    let plugin = Plugin::start(rig).await.unwrap();
    let allocation = |number: u8, task: &str| {
        let id = format!("1e8b1c2d-1111-2222-3333-4444555566{number:02x}");
        Allocation::create(rig, &id, task).unwrap()
    };
    let (booted, command, gone) = (allocation(1, "web"), allocation(2, "job"), allocation(3, "x"));
    let name = |allocation: &Allocation| format!("{}-{}", allocation.task, allocation.id);
    let (web, job) = (name(&booted), name(&command));
    let init =
        older(rig, &web, &["--directory=/var/lib/machines/debian", "--volatile=overlay", "--boot"])
            .to_string();
    older(rig, &job, &["--directory=/var/lib/machines/busybox", "--", "/bin/sleep", "1000"]);
    // The same form of name, but no allocation: somebody else's machine.
    let other = "web-2e8b1c2d-1111-2222-3333-444455556666";
    older(rig, other, &["--directory=/var/lib/machines/debian", "--volatile=overlay", "--boot"]);

    // Nomad hands them over: each is named with its command, and runs on.
    for (allocation, machine) in [(&booted, &web), (&command, &job)] {
        let text = recover(&plugin, allocation).await;
        assert!(text.contains("older nspawn driver") && text.contains("still runs"), "{text}");
        assert!(text.contains(&format!("nomad-nspawnctl retire {machine}")), "{text}");
        assert!(machines(rig).contains(machine.as_str()) && unit_is_active(rig, machine));
    }
    let text = recover(&plugin, &gone).await;
    assert!(text.contains("does not run any more"), "{text}");
    // Then it starts the task again: not beside the older run.
    let mut driver = plugin.driver();
    let start = command.request(8, "busybox", &["/bin/true"]);
    let refused = driver.start_task(start.clone()).await.unwrap_err();
    assert!(refused.message().contains(&format!("nomad-nspawnctl retire {job}")), "{refused:?}");

    let listed = retire(rig, &["--list"]);
    let mut names: Vec<&str> = std::str::from_utf8(&listed.stdout).unwrap().lines().collect();
    names.sort_unstable();
    assert_eq!((listed.code(), names), (0, vec![job.as_str(), web.as_str()]));
    let doctor = rig.exec(&["nomad-nspawnctl", "doctor"]).unwrap().text();
    assert!(doctor.contains("older driver: 2 of its containers still run"), "{doctor}");
    let foreign = retire(rig, &[other]);
    assert_eq!(foreign.code(), 2);

    // A system that has not booted yet does not hear that it shall shut down.
    wait::true_within("the container's boot", Duration::from_secs(60), || {
        let enter = ["nsenter", "-t", &init, "-a", "systemctl", "is-system-running"];
        let state = rig.exec(&enter)?;
        Ok(["running", "degraded"].contains(&state.text().trim()))
    })
    .unwrap();
    let begun = Instant::now();
    let ended = retire(rig, &[&web]);
    assert!(ended.success() && ended.text().contains(&format!("{web}: ended")), "{ended:?}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(7), "shut down in order, not killed: {took:?}");
    assert!(unit_is_active(rig, &job), "not named, not ended");
    // PID 1 of the container without a handler: killed in the end.
    assert!(retire(rig, &[]).success());
    for machine in [&web, &job] {
        wait_unregistered(rig, machine);
        wait::true_within("the executor's end", Duration::from_secs(5), || {
            Ok(!unit_is_active(rig, machine))
        })
        .unwrap();
    }
    assert!(machines(rig).contains(other) && unit_is_active(rig, other));
    let none = retire(rig, &[]);
    assert!(none.success() && none.text().contains("no container of the older driver"), "{none:?}");
    let doctor = rig.exec(&["nomad-nspawnctl", "doctor"]).unwrap().text();
    assert!(!doctor.contains("older driver"), "{doctor}");

    // The image that the command wrote to is free again for a task of this driver.
    driver.start_task(start).await.unwrap();
}
