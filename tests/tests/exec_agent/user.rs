//! As whom, where and with which variables a command runs: as the task, also after a restart of the
//! agent.

use crate::{Service, alone, busybox, parts};
use serde_json::json;

#[test]
fn d42_a_command_has_the_tasks_environment_directory_and_user() {
    let host = alone();
    let mut config = busybox();
    config["user"] = json!("app");
    config["working_directory"] = json!("/local");
    config["environment"] = json!([{ "IN": "of the driver" }]);
    let service = Service::start("user", config);
    // No shell in between: `$` is nobody's but the command's own.
    let script = "echo $(id -u):$(id -g) $(pwd) $OWN, $IN, $NOMAD_TASK_NAME ${container} '$OWN'";
    let expected = "1000:1000 /local of the job, of the driver, t systemd-nspawn $OWN\n";
    let look = || parts(&service.sh(script));
    assert_eq!(look(), (expected.to_owned(), String::new(), 0));
    host.agent_restart().unwrap();
    host.wait_driver("nspawn").unwrap();
    assert_eq!(look(), (expected.to_owned(), String::new(), 0));
    // A plugin that knows nothing takes the task over by its handle.
    host.agent_kill9().unwrap();
    host.exec(&["pkill", "-KILL", "-f", "^/opt/nomad/plugins/"]).unwrap();
    host.agent_start().unwrap();
    host.wait_driver("nspawn").unwrap();
    assert_eq!(look(), (expected.to_owned(), String::new(), 0));
    service.purge();
}
