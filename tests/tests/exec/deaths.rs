//! What is left of a session when one of its processes dies: nothing, or a session that goes on.

use super::*;
use proto::wire::Verb;

const TASK: (Kind, Users) = (Kind::Command, Users::Pick);
/// A command whose processes do not end by themselves.
const STUBBORN: [&str; 3] =
    ["sh", "-c", "trap '' HUP TERM; (setsid sleep 1000 &); sleep 1000 & sleep 1000; sleep 1000"];
/// No session takes longer to be gone.
const GONE: Duration = Duration::from_secs(4);

/// Waits until the session's cgroup is gone, which no process can outlive.
fn assert_gone(rig: &Rig, task: &Handmade<'_>, what: &str) {
    let begun = std::time::Instant::now();
    wait_no_leaf(rig, task);
    assert!(begun.elapsed() < GONE, "{what}: {:?}", begun.elapsed());
}

/// The worker's process of the one session of a task.
fn worker(rig: &Rig, task: &Handmade<'_>) -> i32 {
    let leaf = wait::until("one session", SOON, || match leaves(rig, task).as_slice() {
        [leaf] => Ok(Some(leaf.clone())),
        _ => Ok(None),
    });
    let leaf = leaf.unwrap();
    let id = leaf.trim_start_matches("nomad-exec-").trim_end_matches(".scope");
    rig.main_pid(&format!("nomad-nspawn-enter-{id}.service")).unwrap()
}

fn kill(rig: &Rig, pid: i32) {
    rig.run(&["kill", "-9", &pid.to_string()]).unwrap();
}

#[test]
fn a_driver_that_hangs_up_ends_everything_of_the_session() {
    let (_guard, rig, client) = host();
    for kind in [TASK, (Kind::Boot, Users::Pick), (Kind::Command, Users::Host)] {
        let task = start(rig, &client, kind, |_| {});
        drop(open(&client, &command(&task.key, &STUBBORN)));
        assert_gone(rig, &task, "hang-up");
        // Whoever takes SIGHUP has the time to end by itself.
        let mut orderly = command(
            &task.key,
            &[
                "sh",
                "-c",
                "trap 'echo bye >/local/bye; exit' HUP; echo ready; \
                                                           while :; do sleep 0.1; done",
            ],
        );
        orderly.terminal = Some(proto::exec::TerminalSize { rows: 24, columns: 80 });
        let mut session = open(&client, &orderly);
        let mut output = [Vec::new()];
        wait::true_within("its trap", SOON, || {
            session.drain(&mut output)?;
            Ok(output[0].starts_with(b"ready"))
        })
        .unwrap();
        drop(session);
        assert_gone(rig, &task, "SIGHUP");
        assert_eq!(script(&client, &task, "cat /local/bye"), "bye\n", "{kind:?}");
        task.remove(&client).unwrap();
    }
}

#[test]
fn a_killed_worker_ends_everything_of_its_session() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let session = open(&client, &command(&task.key, &STUBBORN));
    kill(rig, worker(rig, &task));
    assert!(session.hangs_up(GONE).unwrap());
    assert_gone(rig, &task, "worker");
    // The task goes on, and so do others' sessions.
    assert_eq!(script(&client, &task, "echo here"), "here\n");
    task.remove(&client).unwrap();
}

#[test]
fn a_killed_helper_ends_no_session() {
    let (_guard, rig, client) = alone();
    let task = start(rig, &client, TASK, |_| {});
    let mut session = open(&client, &command(&task.key, &["cat"]));
    let other = open(&client, &command(&task.key, &STUBBORN));
    let old = rig.main_pid(HELPER).unwrap();
    kill(rig, old);
    let client = wait::until("the helper's next life", SOON, || {
        let now = rig.main_pid(HELPER)?;
        let entered = || Door::of(rig).and_then(|door| door.enter());
        Ok(if now != 0 && now != old { entered().ok() } else { None })
    })
    .unwrap();
    session.write("still here\n").unwrap();
    session.close_input();
    let ran = session.finish().unwrap();
    assert_eq!((ran.stdout.as_str(), ran.code), ("still here\n", 0));
    // The next life follows the other one.
    kill(rig, worker(rig, &task));
    assert!(other.hangs_up(GONE).unwrap());
    assert_gone(rig, &task, "an earlier process's worker");
    // Both at once.
    let last = open(&client, &command(&task.key, &STUBBORN));
    let pids = [rig.main_pid(HELPER).unwrap(), worker(rig, &task)].map(|pid| pid.to_string());
    rig.run(&["kill", "-9", &pids[0], &pids[1]]).unwrap();
    assert!(last.hangs_up(GONE).unwrap());
    assert_gone(rig, &task, "helper and worker");
    let client = Door::of(rig).unwrap().enter().unwrap();
    assert_eq!(script(&client, &task, "echo here"), "here\n");
    task.remove(&client).unwrap();
    // What waited for the next command has ended with its helper, and with the last task.
    wait::true_within("no worker", SOON, || {
        let units = rig.sh("systemctl list-units --plain --no-legend 'nomad-nspawn-enter-*'")?;
        Ok(units.trim().is_empty())
    })
    .unwrap();
}

#[test]
fn processes_that_a_command_leaves_behind_live_on() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let ran = run(&client, &task, &["sh", "-c", "sleep 7 & echo done"]);
    assert_eq!((ran.stdout.as_str(), ran.code), ("done\n", 0));
    assert_eq!(leaves(rig, &task).len(), 1);
    assert!(script(&client, &task, "pidof sleep | wc -w").starts_with('2'));
    // Later sessions take the cgroup away once its last process has ended.
    wait::true_within("its cgroup's end", SOON, || {
        script(&client, &task, "true");
        Ok(leaves(rig, &task).is_empty())
    })
    .unwrap();
    task.remove(&client).unwrap();
}

#[test]
fn a_task_that_ends_ends_its_sessions() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    let session = open(&client, &command(&task.key, &STUBBORN));
    client.ask(Verb::Kill(task.key.clone())).unwrap().unwrap();
    assert_eq!(session.finish().unwrap().code, 128 + 9);
    task.remove(&client).unwrap();
}

/// Its processes cannot run, and so cannot those that enter it.
#[test]
fn a_frozen_task_holds_up_nobody() {
    let (_guard, rig, client) = host();
    let task = start(rig, &client, TASK, |_| {});
    script(&client, &task, "true");
    let freeze = |value: &str| {
        rig.sh(&format!("echo {value} >{}/cgroup.freeze", payload(&task))).unwrap();
    };
    freeze("1");
    let mut session = client.exec(&command(&task.key, &["true"])).unwrap().unwrap();
    let refusal = session.started().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("did not begin within 5 s"), "{refusal}");
    wait_no_leaf(rig, &task);
    freeze("0");
    script(&client, &task, "true");
    task.remove(&client).unwrap();
}

/// As an operator counts them without an endpoint.
#[test]
fn the_tool_counts_sessions_that_last() {
    let (_guard, rig, client) = alone();
    rig.install_ctl().unwrap();
    let task = start(rig, &client, TASK, |_| {});
    let wait_for = |number: u32| {
        let line = format!("nomad_nspawn_exec_sessions {number}");
        wait::true_within("the number of sessions", SOON, || {
            Ok(rig.run(&["nomad-nspawnctl", "metrics"])?.lines().any(|found| found == line))
        })
        .unwrap();
    };
    // What a command has left behind is none.
    run(&client, &task, &["sh", "-c", "sleep 1000 & echo done"]);
    assert_eq!(leaves(rig, &task).len(), 1);
    wait_for(0);
    let sessions = [(); 2].map(|()| open(&client, &command(&task.key, &["cat"])));
    wait_for(2);
    drop(sessions);
    wait_for(0);
    task.remove(&client).unwrap();
}
