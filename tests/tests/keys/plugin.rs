//! The operator's keys: further plugin processes on the same helper, with a configuration each.

use crate::*;
use nomad_proto::drivers::Mount;
use nomad_proto::drivers::fingerprint_response::HealthState;
use nspawn_tests::stand::{Other, Refused};
use std::time::Instant;

fn plugin(config: Value) -> Other<'static> {
    let other = stand().another_plugin_with(&config).unwrap();
    other.health(HealthState::Healthy).unwrap();
    other
}

/// Why the plugin does not take a configuration.
fn not_taken(config: Value) -> String {
    let error = stand().another_plugin_with(&config).map(drop).unwrap_err();
    format!("{error:#}")
}

fn run(plugin: &Other<'_>, more: Value, script: &str) -> String {
    let task = plugin.start(&sh(more, script), |_| {}).unwrap();
    let task = task.unwrap_or_else(|refused| panic!("{}", refused.text));
    good(script, task.finish().unwrap())
}

fn refused(plugin: &Other<'_>, more: Value) -> Refused {
    plugin.start(&sh(more.clone(), "true"), |_| {}).unwrap().map(|_| panic!("{more}")).unwrap_err()
}

#[test]
fn plugin_key_enabled() {
    let off = stand().another_plugin_with(&json!({ "enabled": false })).unwrap();
    let said = off.health(HealthState::Undetected).unwrap();
    assert_eq!(said, "disabled");
    assert_eq!(run(&plugin(json!({ "enabled": true })), json!({}), "echo runs"), "runs\n");
    assert!(not_taken(json!({ "enabled": "maybe" })).contains("must be true or false"));
    assert!(not_taken(json!({ "enable": true })).contains("enable"));
}

#[test]
fn plugin_key_volumes() {
    stand().rig.sh("mkdir -p /srv/closed/volume; echo volume > /srv/closed/volume/file").unwrap();
    let volume = |task: &mut TaskConfig| {
        let (host_path, task_path) = ("/srv/closed/volume".to_owned(), "/v".to_owned());
        task.mounts.push(Mount { host_path, task_path, ..Mount::default() });
    };
    let keys = sh(json!({}), "cat /v/file");
    let on = plugin(json!({ "volumes": true }));
    let task = on.start(&keys, volume).unwrap().unwrap();
    assert_eq!(task.finish().unwrap().stdout, "volume\n");
    let off = plugin(json!({ "volumes": false }));
    let text = off.start(&keys, volume).unwrap().map(drop).unwrap_err().text;
    assert!(text.contains("volume_mount") && text.contains("volumes = true"), "{text}");
    assert_eq!(run(&off, json!({}), "echo without"), "without\n");
}

#[test]
fn plugin_key_helper_socket() {
    let same = plugin(json!({ "helper_socket": "/run/nomad-nspawn/helper.sock" }));
    assert_eq!(run(&same, json!({}), "echo runs"), "runs\n");
    let none = stand().another_plugin_with(&json!({ "helper_socket": "/run/none.sock" })).unwrap();
    let said = none.health(HealthState::Unhealthy).unwrap();
    assert!(said.contains("/run/none.sock"), "{said}");
    assert!(not_taken(json!({ "helper_socket": "helper.sock" })).contains("absolute path"));
}

#[test]
fn plugin_key_dns_servers() {
    let mut all = Vec::new();
    for config in [json!({ "dns_servers": ["192.0.2.5", "2001:db8::5"] }), json!({})] {
        let strict = STRICT_LIFE.write().unwrap_or_else(PoisonError::into_inner);
        let host = strict_stand();
        host.rig
            .sh("mkdir -p /run/systemd/resolve; \
                 echo 'nameserver 192.0.2.6' > /run/systemd/resolve/resolv.conf; \
                 echo 'nameserver 127.0.0.53' > /etc/resolv.conf")
            .unwrap();
        let other = host.another_plugin_with(&config).unwrap();
        other.health(HealthState::Healthy).unwrap();
        let mut id = String::new();
        let task = other.start(&sh(json!({}), "cat /etc/resolv.conf"), |task| {
            id.clone_from(&task.alloc_id);
            host.rig.run(&["ip", "netns", "add", &id]).unwrap();
            task.network_isolation_spec = Some(crate::network_names::group(&id, None));
        });
        all.push(task.unwrap().unwrap().finish().unwrap().stdout);
        host.rig.run(&["ip", "netns", "delete", &id]).unwrap();
        drop(strict);
    }
    assert_eq!(all[0], "nameserver 192.0.2.5\nnameserver 2001:db8::5\n");
    assert_eq!(all[1].trim(), "nameserver 192.0.2.6");
    assert!(not_taken(json!({ "dns_servers": ["x"] })).contains("must be IP addresses"));
}

#[test]
fn plugin_key_logging() {
    let script = "echo says out; echo says err >&2";
    for (driver, collected) in
        [("nomad", true), ("journald", false), ("both", true), ("none", false)]
    {
        let other = plugin(json!({ "logging": { "driver": driver } }));
        let mut task = other.start(&sh(json!({}), script), |_| {}).unwrap().unwrap();
        let unit = task.unit();
        if collected {
            task.wait_output("says out\n").unwrap();
        }
        let outcome = task.finish().unwrap();
        assert_eq!(outcome.stdout == "says out\n", collected, "{driver}: {outcome:?}");
        if ["journald", "both"].contains(&driver) {
            crate::logs::fields(stand(), &unit);
        }
        // The job's own word wins.
        let own = json!({ "logging": { "driver": "nomad" } });
        assert_eq!(run(&other, own, "echo says out"), "says out\n", "{driver}");
    }
    let wrong = not_taken(json!({ "logging": { "driver": "syslog" } }));
    assert!(wrong.contains("nomad, journald, both, none"), "{wrong}");
}

#[test]
fn plugin_key_disable_log_collection() {
    let config = json!({ "disable_log_collection": true, "logging": { "driver": "journald" } });
    let off = plugin(config);
    assert!(off.capabilities().unwrap().disable_log_collection);
    let text = refused(&off, json!({ "logging": { "driver": "nomad" } })).text;
    assert!(text.contains("Nomad collects no logs on this node"), "{text}");
    let task = off
        .start(&sh(json!({}), "echo says out"), |task| {
            task.stdout_path = String::new();
            task.stderr_path = String::new();
        })
        .unwrap()
        .unwrap();
    let unit = task.unit();
    task.finish().unwrap();
    crate::logs::fields(stand(), &unit);
    assert!(!plugin(json!({})).capabilities().unwrap().disable_log_collection);
    let wrong = not_taken(json!({ "disable_log_collection": true }));
    assert!(wrong.contains("leaves nobody to read"), "{wrong}");
}

/// Nomad from 1.8 on would run tasks as users that no passwd knows; the default host's asks nobody.
#[test]
fn users_that_newer_nomads_make_up_are_declined() {
    assert!(!plugin(json!({})).capabilities().unwrap().dynamic_workload_users);
}

#[test]
fn plugin_key_extra_labels() {
    let fields = |labels: Value| {
        let other = plugin(json!({ "extra_labels": labels, "logging": { "driver": "journald" } }));
        let task = other.start(&sh(json!({}), "echo says out"), |task| {
            task.job_name = "a job".to_owned();
            task.job_id = "job-1".to_owned();
            task.task_group_name = "web".to_owned();
            task.namespace = "default".to_owned();
            task.node_name = "node".to_owned();
            task.node_id = "0123".to_owned();
        });
        let task = task.unwrap().unwrap();
        let unit = task.unit();
        task.finish().unwrap();
        crate::logs::fields(stand(), &unit)
    };
    let all = fields(json!(["*"]));
    for (field, value) in [
        ("JOB_NAME", "a job"),
        ("JOB_ID", "job-1"),
        ("TASK_GROUP_NAME", "web"),
        ("TASK_NAME", "t"),
        ("NAMESPACE", "default"),
        ("NODE_NAME", "node"),
        ("NODE_ID", "0123"),
    ] {
        assert_eq!(all[field], value, "{field}");
    }
    let some = fields(json!(["job_*", "task_name"]));
    assert_eq!((&some["JOB_ID"], &some["TASK_NAME"]), (&json!("job-1"), &json!("t")));
    assert!(some["NODE_ID"].is_null() && some["NAMESPACE"].is_null(), "{some}");
    let other = plugin(json!({ "extra_labels": ["task_name"] }));
    let text = refused(&other, json!({ "labels": [{ "TASK_NAME": "x" }] })).text;
    assert!(text.contains("labels.TASK_NAME") && text.contains("extra_labels"), "{text}");
    assert!(not_taken(json!({ "extra_labels": ["job"] })).contains("fits no label"));
}

#[test]
fn plugin_key_user_namespaces() {
    let map = "echo $(cat /proc/self/uid_map)";
    let identity = plugin(json!({ "user_namespaces": "identity" }));
    assert_eq!(run(&identity, json!({}), map), "0 0 65536\n");
    let own = run(&identity, json!({ "private_users": "pick" }), map);
    assert!(own.starts_with("0 ") && own != "0 0 65536\n", "{own}");
    let pick = run(&plugin(json!({ "user_namespaces": "pick" })), json!({}), map);
    assert!(pick.starts_with("0 ") && pick != "0 0 65536\n", "{pick}");
    let managed = plugin(json!({ "user_namespaces": "managed" }));
    let text = refused(&managed, json!({})).text;
    assert!(text.contains("user_namespaces") && text.contains("write pick"), "{text}");
    assert!(not_taken(json!({ "user_namespaces": "no" })).contains("must be one of"));
}

/// A helper that is there and does not answer.
#[test]
fn plugin_key_helper_timeout() {
    let _alone = STRICT_LIFE.write().unwrap_or_else(PoisonError::into_inner);
    let host = strict_stand();
    let unit = "nomad-nspawn-helper.service";
    let other = host.another_plugin_with(&json!({ "helper_timeout": "1s" })).unwrap();
    other.health(HealthState::Healthy).unwrap();
    let stop = |signal: &str| {
        let signal = format!("--signal={signal}");
        host.rig.run(&["systemctl", "kill", "--kill-whom=main", &signal, unit]).unwrap()
    };
    let mut task = host.start(&sh(json!({}), "echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    task.wait_output("up").unwrap();
    task.recover_by(&other).unwrap();
    stop("STOP");
    let begun = Instant::now();
    let signal = task.signal("SIGUSR1").unwrap();
    let took = begun.elapsed();
    stop("CONT");
    let refused = signal.unwrap_err();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(10), "{took:?}");
    assert!(refused.text.contains("helper"), "{}", refused.text);
    task.stop("SIGKILL").unwrap();
    for wrong in ["0", "20m", "soon"] {
        let text = not_taken(json!({ "helper_timeout": wrong }));
        assert!(text.contains("helper_timeout"), "{text}");
    }
}

/// Tasks are taken over while the helper is away, in a bounded time.
#[test]
fn plugin_key_recover_timeout() {
    let _alone = STRICT_LIFE.write().unwrap_or_else(PoisonError::into_inner);
    let host = strict_stand();
    let mut task = host.start(&sh(json!({}), "echo up; sleep 1000"), |_| {}).unwrap().unwrap();
    task.wait_output("up").unwrap();
    let units = "nomad-nspawn-helper.socket nomad-nspawn-helper.service";
    host.rig.sh(&format!("systemctl stop {units}")).unwrap();
    let begun = Instant::now();
    let other = host.another_plugin_with(&json!({ "recover_timeout": "2s" })).unwrap();
    task.recover_by(&other).unwrap();
    let took = begun.elapsed();
    host.rig.sh("systemctl start nomad-nspawn-helper.socket").unwrap();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    // It counted as running, and it runs.
    other.health(HealthState::Healthy).unwrap();
    let outcome = task.stop("SIGKILL").unwrap();
    assert_eq!(outcome.stdout, "up\n");
    assert!(not_taken(json!({ "recover_timeout": "1h" })).contains("must be 1s to 10m"));
}

/// The answer to one request of HTTP from inside the host: status and body, or how curl failed.
fn http(method: &str, url: &str) -> (String, String) {
    let words = ["curl", "-sS", "-m", "10", "-X", method, "-w", "\n%{http_code}", url];
    let out = stand().rig.exec(&words).unwrap();
    let text = out.text();
    match text.rsplit_once('\n') {
        Some((body, status)) if out.success() => (status.to_owned(), format!("{body}\n")),
        _ => (format!("curl: {}", out.code()), String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// What curl reports where nobody listens.
const REFUSED: &str = "curl: 7";

/// The value of a sample on a page of figures.
fn sample(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

#[test]
fn plugin_key_metrics() {
    const URL: &str = "http://127.0.0.1:9631/metrics";
    let config = json!({ "metrics": { "address": "127.0.0.1:9631" } });
    let first = plugin(config.clone());
    assert_eq!(run(&first, json!({}), "echo runs"), "runs\n");
    refused(&first, json!({ "capability": ["no_such"] }));
    let (status, page) = http("GET", URL);
    assert_eq!(status, "200", "{page}");
    for (name, value) in [
        ("nomad_nspawn_starts_total{result=\"started\"}", 1.0),
        ("nomad_nspawn_starts_total{result=\"refused\"}", 1.0),
        ("nomad_nspawn_start_seconds_count{step=\"helper\"}", 1.0),
        ("nomad_nspawn_helper_request_seconds_count{verb=\"start\"}", 1.0),
        ("nomad_nspawn_helper_reconnects_total", 0.0),
        ("nomad_nspawn_tasks{state=\"running\"}", 0.0),
        ("nomad_nspawn_exec_sessions", 0.0),
        ("nomad_nspawn_exec_seconds_count{phase=\"setup\"}", 0.0),
    ] {
        assert_eq!(sample(&page, name), value, "{name} in\n{page}");
    }
    assert!(sample(&page, "nomad_nspawn_start_seconds_sum{step=\"helper\"}") > 0.0);
    assert!(page.contains("# TYPE nomad_nspawn_start_seconds histogram\n"), "{page}");
    // The cache may not have had them yet.
    let sources = ["cache", "missing", "off", "rules", "untested", "confined"].map(|result| {
        sample(&page, &format!("nomad_nspawn_seccomp_cache_total{{result=\"{result}\"}}"))
    });
    assert_eq!(sources[0] + sources[1], 1.0, "{page}");
    assert_eq!(sources.iter().sum::<f64>(), 1.0, "{page}");
    assert!(!page.contains("alloc"), "nothing names a task:\n{page}");
    assert_eq!(http("POST", URL).0, "405");
    assert_eq!(http("GET", "http://127.0.0.1:9631/").0, "404");
    // Nothing but loopback, whatever address is bound.
    let address = &stand().rig.ready().address;
    assert_eq!(http("GET", &format!("http://{address}:9631/metrics")).0, REFUSED);

    // Another instance serves as well as ever, and takes the port when the first has gone.
    let second = plugin(config);
    assert_eq!(run(&second, json!({}), "echo runs"), "runs\n");
    assert_eq!(run(&second, json!({}), "echo runs"), "runs\n");
    let started = |page: &str| sample(page, "nomad_nspawn_starts_total{result=\"started\"}");
    assert_eq!(started(&http("GET", URL).1), 1.0, "the first one's");
    drop(first);
    wait::true_within("the second one's figures", Duration::from_secs(10), || {
        let (status, page) = http("GET", URL);
        Ok(status == "200" && started(&page) == 2.0)
    })
    .unwrap();
    drop(second);
    // Without the block nobody listens.
    let without = plugin(json!({}));
    assert_eq!(http("GET", URL).0, REFUSED);
    drop(without);
    let default = plugin(json!({ "metrics": {} }));
    assert_eq!(http("GET", URL).0, "200");
    drop(default);
    for address in ["0.0.0.0:9631", "127.0.0.1:80", "localhost:9631"] {
        let text = not_taken(json!({ "metrics": { "address": address } }));
        assert!(text.contains("metrics.address") && text.contains(address), "{text}");
    }
}
