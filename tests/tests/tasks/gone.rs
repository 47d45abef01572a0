//! Tasks that are gone together with their exit status: erased by hand, or by a reboot of the host.
//! None of them is ever told as a success.

use crate::work::{Alone, Host, LIMIT, Running, Work};
use nspawn_tests::host::agent::UNIT;
use nspawn_tests::processes::Part;
use nspawn_tests::wait;

pub(crate) const HELPER: [&str; 2] = ["nomad-nspawn-helper.socket", "nomad-nspawn-helper.service"];

/// A batch task that ends when its directory holds a file `end`, with the exit code in it; if it is
/// started once more, it ends with 9.
fn ends_on_word(host: &Alone, id: &str) -> Running {
    let script = "echo run >>/alloc/data/runs; [ $(wc -l </alloc/data/runs) = 1 ] || exit 9; \
                  echo up; until [ -s /alloc/data/end ]; do sleep 0.05; done; \
                  exit $(cat /alloc/data/end)";
    let task = Work::sh(script).run(host, id);
    task.wait_says("up\n");
    task.alloc.wait_running().unwrap();
    task
}

fn data(task: &Running, name: &str) -> String {
    format!("/var/lib/nomad/alloc/{}/alloc/data/{name}", task.alloc.id)
}

/// Makes a task end with this code and erases what PID 1 has kept of its end.
fn end_and_erase(host: &Alone, task: &Running, unit: &str, code: &str) {
    host.write_file(&data(task, "end"), code, 0o644).unwrap();
    let show = |property| host.run(&["systemctl", "show", "-P", property, unit]);
    wait::true_within("the end of the payload", LIMIT, || Ok(show("MainPID")? == "0")).unwrap();
    // One that ended well is kept as active, the others as failed.
    host.run(&["systemctl", "stop", unit]).unwrap();
    host.exec(&["systemctl", "reset-failed", unit]).unwrap();
    wait::true_within("the record to be gone", LIMIT, || Ok(show("LoadState")? == "not-found"))
        .unwrap();
}

fn helper(host: &Alone, verb: &str) {
    host.run(&["systemctl", verb, HELPER[0], HELPER[1]]).unwrap();
}

/// Stops the agent and kills the plugin, so that nobody watches.
pub(crate) fn nobody_watches(host: &Alone) {
    host.agent_stop().unwrap();
    host.kill_part(Part::Plugin).unwrap();
    wait::true_within("the plugin's end", LIMIT, || Ok(host.processes_of(Part::Plugin).is_empty()))
        .unwrap();
}

pub(crate) fn watched_again(host: &Alone) {
    host.agent_start().unwrap();
    host.wait_driver("nspawn").unwrap();
}

#[test]
fn an_end_whose_record_was_erased_is_never_told_as_a_success() {
    let host = Host::alone();
    let [kept, lost, forgotten] =
        ["kept", "lost", "forgotten"].map(|id| ends_on_word(&host, &format!("erased-{id}")));
    let [kept_unit, lost_unit, forgotten_unit] =
        [&kept, &lost, &forgotten].map(|task| task.unit(&host));
    nobody_watches(&host);
    helper(&host, "stop");
    end_and_erase(&host, &forgotten, &forgotten_unit, "0");
    helper(&host, "start");
    // Now the helper holds the payload: the kernel still knows.
    end_and_erase(&host, &kept, &kept_unit, "7");
    watched_again(&host);
    assert_eq!(kept.end(), ("failed".to_owned(), 7, 0));
    // Nobody knows how it ended, so Nomad runs it again.
    assert_eq!(forgotten.end(), ("failed".to_owned(), 9, 0));

    // Now the driver watches, but the helper does not.
    helper(&host, "stop");
    end_and_erase(&host, &lost, &lost_unit, "0");
    helper(&host, "start");
    let (status, code, _) = lost.end();
    assert_eq!((status.as_str(), code), ("failed", 1));
    let told = lost.events("Terminated");
    assert!(told.contains("gone together with its exit status"), "{told}");
    for task in [kept, lost, forgotten] {
        task.job.purge().unwrap();
    }
}

/// The boot id is what tells the driver; the container and the helper's memory go as at a reboot.
#[test]
fn after_a_reboot_of_the_host_a_task_runs_anew() {
    let host = Host::alone();
    let random = "/proc/sys/kernel/random";
    let script = "echo run >>/alloc/data/runs; trap 'exit 0' TERM; echo up; sleep 600 & wait";
    let task = Work::sh(script).service().run(&host, "reboot");
    task.wait_says("up\n");
    task.alloc.wait_running().unwrap();
    let unit = task.unit(&host);
    nobody_watches(&host);
    helper(&host, "stop");
    host.run(&["systemctl", "stop", &unit]).unwrap();
    host.exec(&["systemctl", "reset-failed", &unit]).unwrap();
    // By way of the directory: the file itself is a mount of systemd-nspawn's, on which none can
    // lie.
    host.sh(&format!("mkdir /run/next && cp {random}/uuid /run/next/boot_id")).unwrap();
    host.run(&["mount", "--bind", "/run/next", random]).unwrap();
    helper(&host, "start");
    watched_again(&host);
    task.wait_says("up\nup\n");
    let runs = host.run(&["cat", &data(&task, "runs")]).unwrap();
    assert_eq!(runs, "run\nrun");
    let log = host.journal(UNIT).unwrap();
    let why = log.lines().filter(|line| line.contains(&task.alloc.id));
    assert!(
        why.clone().any(|line| line.contains("the host was rebooted after task")),
        "{}",
        why.collect::<Vec<_>>().join("\n")
    );
    task.job.purge().unwrap();
    // The boot id of before, for whom comes next.
    nobody_watches(&host);
    host.sh(&format!("umount {random} && rm -r /run/next")).unwrap();
    watched_again(&host);
}
