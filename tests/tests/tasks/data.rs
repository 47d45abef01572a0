//! What Nomad keeps for a task on disk: secrets after a reboot of the host.

use crate::gone::{HELPER, nobody_watches, watched_again};
use crate::work::{Host, LIMIT, TASK, Work};
use nspawn_tests::wait;
use serde_json::json;

/// Where the agent keeps its data.
const DATA: &str = "/var/lib/nomad";

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
