//! What Nomad keeps for a task on disk: data that the next allocation takes over, and secrets after a
//! reboot of the host.

use crate::gone::{HELPER, nobody_watches, watched_again};
use crate::work::{Alone, Host, LIMIT, Running, TASK, Work};
use nspawn_tests::{Rig, wait};
use proto::limits::DISK_FIRST;
use serde_json::json;

/// Where the agent keeps its data; 0700 is Nomad's own choice.
const DATA: &str = "/var/lib/nomad";

/// Changes the mode of the data directory. Tests that have the host to themselves put it back.
fn mode_of_data(host: &Rig, mode: &str) {
    host.run(&["chmod", mode, DATA]).unwrap();
}

/// The first allocation leaves files that are its own alone; the next one, whose uid range is another,
/// reads and changes them. Says the first uid of its range.
const SCRIPT: &str = "umask 077; cd /alloc/data; base=$(tr -s ' ' </proc/self/uid_map | cut -d' ' -f3); \
    if [ -e own ]; then \
        cat own deep/f /local/own && stat -c %u:%g own user && echo more >>own && echo next $base; \
    else \
        mkdir deep; echo own >own; echo deep >deep/f; echo local >/local/own; \
        touch user; chown 1000:1000 user; echo first $base; \
    fi; echo template: $(cat /local/rendered); exec sleep 600";

/// A service with a disk that its next allocation takes over.
fn keeper(generation: &str) -> Work {
    let template = json!([{
        "EmbeddedTmpl": "open", "DestPath": "local/rendered", "Perms": "0644",
        "ChangeMode": "noop",
    }]);
    Work::sh(SCRIPT)
        .service()
        .task("Templates", template)
        .task("Meta", json!({ "generation": generation }))
        .task("KillTimeout", 100_000_000)
        .group("EphemeralDisk", json!({ "Sticky": true, "Migrate": true, "SizeMB": 200 }))
}

/// The allocation that an update has placed.
fn updated(host: &Alone, id: &str) -> Running {
    let job = keeper("second").run(host, id).job;
    let alloc = job.wait_allocs(2).unwrap().swap_remove(0);
    Running { job, alloc }
}

fn base(line: &str) -> u32 {
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_sticky_disk_survives_an_update_in_an_open_data_directory() {
    let host = Host::alone();
    mode_of_data(&host, "0755");
    let first = keeper("first").run(&host, "sticky");
    let said = first.wait_says("template: open\n");
    let first_base = base(said.lines().next().unwrap());
    first.alloc.wait_running().unwrap();
    let next = updated(&host, "sticky");
    assert_ne!(next.alloc.id, first.alloc.id);
    let said = next.wait_says("template: open\n");
    let (kept, next_base) = said.split_once("next ").unwrap_or_else(|| panic!("{said}"));
    assert_eq!(kept, "own\ndeep\nlocal\n0:0\n1000:1000\n");
    assert_ne!(base(next_base.lines().next().unwrap()), first_base);
    let path = |name: &str| format!("{DATA}/alloc/{}/alloc/data/{name}", next.alloc.id);
    let owners = host.run(&["stat", "-c", "%u:%a", &path("own"), &path("user")]).unwrap();
    assert_eq!(owners, format!("{DISK_FIRST}:600\n{}:600", DISK_FIRST + 1000));
    // What of Nomad's own files the task cannot read.
    let event = || Ok(next.events("Driver").contains("mode 0600 cannot be read"));
    wait::true_within("the event about the data directory", LIMIT, event)
        .unwrap_or_else(|e| panic!("{e}: {:?}", next.state().events()));
    next.job.purge().unwrap();
    mode_of_data(&host, "0700");
}

/// As in [`crate::gone`], the host is rebooted in the eyes of agent, driver and helper. What a reboot
/// does to secrets is done by hand: their tmpfs is gone, and Nomad does not mount it again
/// (hashicorp/nomad#28274).
#[test]
fn secrets_on_disk_after_a_reboot_do_not_keep_a_task_from_running() {
    let host = Host::alone();
    let template = json!([{
        "EmbeddedTmpl": "rendered", "DestPath": "secrets/token", "Perms": "0600",
        "ChangeMode": "noop",
    }]);
    let script = "trap 'exit 0' TERM; echo token $(cat /secrets/token); sleep 600 & wait";
    let work = Work::sh(script).service().task("Templates", template);
    let task = work.run(&host, "secrets-on-disk");
    task.wait_says("token rendered\n");
    task.alloc.wait_running().unwrap();
    let unit = task.unit(&host);
    let secrets = format!("{DATA}/alloc/{}/{TASK}/secrets", task.alloc.id);
    nobody_watches(&host);
    for part in HELPER {
        host.run(&["systemctl", "stop", part]).unwrap();
    }
    host.run(&["systemctl", "stop", &unit]).unwrap();
    host.exec(&["systemctl", "reset-failed", &unit]).unwrap();
    host.run(&["umount", &secrets]).unwrap();
    for part in HELPER {
        host.run(&["systemctl", "start", part]).unwrap();
    }
    watched_again(&host);
    let says_twice = || {
        let said = task.alloc.logs(TASK, "stdout").unwrap_or_default();
        Ok(said == b"token rendered\ntoken rendered\n")
    };
    wait::true_within("the task's second run", LIMIT, says_twice)
        .unwrap_or_else(|e| panic!("{e}: {:?}", task.state().events()));
    let event = || Ok(task.events("Driver").contains("secrets lie on disk"));
    wait::true_within("the event about secrets", LIMIT, event)
        .unwrap_or_else(|e| panic!("{e}: {:?}", task.state().events()));
    assert_eq!(host.run(&["cat", &format!("{secrets}/token")]).unwrap(), "rendered");
    task.job.purge().unwrap();
}
