//! Scripts that Nomad runs in a task: the change script of a template, and a task that is ready when its
//! command succeeds. Script checks of Consul are the same request.

use crate::{LIMIT, RIG, Service, busybox, host, wait_for_nothing_left};
use nspawn_tests::wait;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn with_template(name: &str, script: &str, timeout: u64) -> Service {
    let template = json!({
        "EmbeddedTmpl": format!("{{{{ with nomadVar \"nomad/jobs/exec-{name}\" }}}}{{{{ .word }}}}{{{{ end }}}}\n"),
        "DestPath": "local/word",
        "ChangeMode": "script",
        "ChangeScript": {
            "Command": "/bin/sh", "Args": ["-c", script], "Timeout": timeout, "FailOnError": false,
        },
    });
    put(name, "one");
    Service::start_with(name, busybox(), json!({ "Templates": [template] }))
}

fn put(name: &str, word: &str) {
    let path = format!("nomad/jobs/exec-{name}");
    RIG.run(&["nomad", "var", "put", "-force", &path, &format!("word={word}")]).unwrap();
}

fn shared_file(service: &Service, name: &str) -> String {
    let path = format!("/var/lib/nomad/alloc/{}/alloc/data/{name}", service.alloc.id);
    RIG.read_file(&path).map(|it| String::from_utf8_lossy(&it).into_owned()).unwrap_or_default()
}

#[test]
fn a_change_script_runs_in_the_task() {
    let _host = host();
    let script = "echo $OWN: $(cat /local/word) >> /alloc/data/seen";
    let service = with_template("change", script, 5_000_000_000);
    put("change", "two");
    wait::true_within("the script's mark", LIMIT, || {
        Ok(shared_file(&service, "seen") == "of the job: two\n")
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}", service.alloc.task(crate::TASK)));
    service.purge();
}

#[test]
fn a_change_script_that_hangs_ends_at_its_time_out() {
    let _host = crate::alone();
    let script = "echo x >> /alloc/data/begun; sleep 81735 & exec sleep 81735";
    let service = with_template("hangs", script, 2_000_000_000);
    put("hangs", "two");
    wait::true_within("the script to begin", LIMIT, || Ok(shared_file(&service, "begun") == "x\n"))
        .unwrap();
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    wait_for_nothing_left("sleep 81735");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let event =
        |alloc: &Value| Ok(alloc.to_string().contains("had not ended after 2s").then_some(()));
    service.alloc.wait("an event of the script", LIMIT, event).unwrap();
    assert_eq!(service.alloc.task(crate::TASK).unwrap().state(), "running");
    service.purge();
}

#[test]
fn a_task_is_ready_when_its_command_succeeds() {
    let _host = host();
    let mut config = busybox();
    config["command"] = json!(["/bin/sh", "-c", "sleep 3; touch /tmp/up; exec sleep 100000"]);
    config["ready"] = json!({
        "mode": "exec", "command": ["test", "-e", "/tmp/up"], "interval": "1s", "timeout": "30s",
    });
    let service = Service::start("ready", config.clone());
    assert_eq!(service.sh("test -e /tmp/up").code(), 0);
    let events: Vec<_> =
        service.alloc.task(crate::TASK).unwrap().events().into_iter().map(|e| e.message).collect();
    for text in ["Ready: waits until ready.command succeeds, at most 30s", "Ready: ready.command"] {
        assert!(events.iter().any(|event| event.contains(text)), "{text}: {events:?}");
    }
    service.purge();

    config["ready"]["timeout"] = json!("1s");
    let late = Service::register("late", config, json!({}));
    late.alloc.wait_status("failed", LIMIT).unwrap();
    let event = late.alloc.wait_event(crate::TASK, "Driver Failure", LIMIT).unwrap();
    for part in ["ready: ready.command did not succeed within 1s", "exit code 1"] {
        assert!(event.message.contains(part), "{part}: {event:?}");
    }
    late.purge();
}
