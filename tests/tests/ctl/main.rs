//! The operator's tool: what `doctor` says of a healthy and of a broken host, what `policy` says of
//! files and jobs; and the refusals on the same broken hosts.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod network;

use nspawn_tests::{Config, Output, Rig};
use proto::limits::DISK_FIRST;
use serde_json::Value;
use std::time::Duration;

const JOB: &str = r#"
job "explained" {
  type = "batch"
  group "g" {
    task "fine" {
      driver = "nspawn"
      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/true"]
      }
    }
    task "greedy" {
      driver = "nspawn"
      config {
        image = "busybox"
        boot  = false
        bind_read_only = { "/proc" = "/mnt", "/opt/a" = "/mnt/a" }
        bind = { "/srv/x" = "/srv/x" }
        capability = ["bpf"]
        network_veth = false
      }
    }
    task "wrong" {
      driver = "nspawn"
      config {
        image       = "busybox"
        process_two = true
        console     = "loud"
      }
    }
    task "other" {
      driver = "raw_exec"
      config { command = "/bin/true" }
    }
  }
}
"#;

fn ctl(rig: &Rig, words: &[&str]) -> Output {
    let mut all = vec!["nomad-nspawnctl"];
    all.extend(words);
    rig.exec(&all).unwrap()
}

fn doctor(rig: &Rig) -> (i32, Value) {
    let found = ctl(rig, &["doctor", "--json"]);
    (found.code(), serde_json::from_str(&found.text()).unwrap())
}

fn state_of(report: &Value, name: &str) -> (String, String, String) {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {report}"));
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    (text("state"), text("found"), text("mend"))
}

#[test]
fn the_tool_tells_what_is_wrong_and_what_mends_it() {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    rig.install_ctl().unwrap();
    a_healthy_host(&rig);
    policies(&rig);
    jobs(&rig);
    network::checks(&rig);
    network::tasks(&rig);
    a_broken_policy(&rig);
    a_host_without_filters(&rig);
    a_stopped_helper(&rig);
    an_open_data_directory(&rig);
    an_agent_with_a_private_mount_namespace(&rig);
    rig.down().unwrap();
}

fn a_healthy_host(rig: &Rig) {
    let (code, report) = doctor(rig);
    assert_eq!((code, report["healthy"].as_bool()), (0, Some(true)), "{report:#}");
    for name in [
        "systemd",
        "kernel",
        "openat2",
        "account",
        "socket",
        "helper",
        "policy",
        "agent",
        "system call filters",
    ] {
        assert_eq!(state_of(&report, name).0, "ok", "{name}: {report:#}");
    }
    let people = ctl(rig, &["doctor"]);
    assert!(people.success() && people.text().contains("0 to mend"), "{}", people.text());
    assert_eq!(ctl(rig, &["doctor", "--what"]).code(), 2);
    assert_eq!(ctl(rig, &["heal"]).code(), 64);
}

fn policies(rig: &Rig) {
    assert!(ctl(rig, &["policy", "check"]).success());
    for (text, good, words) in [
        ("preset = \"compat\"\n", true, "root-equivalent"),
        ("[binds]\nunprotected = \"unmapped\"\n", true, "valid"),
        ("[binds]\nunprotected = \"maybe\"\n", false, "unprotected"),
        ("[imagse]\n", false, "imagse"),
        ("[userns]\nrequire = \"no\"\n", false, "require"),
        ("[userns\n", false, "not valid"),
    ] {
        rig.write_file("/run/draft.toml", text, 0o600).unwrap();
        let found = ctl(rig, &["policy", "check", "/run/draft.toml"]);
        assert_eq!(found.success(), good, "{text}: {}", found.text());
        assert!(found.text().contains(words), "{text}: {}", found.text());
    }
    assert_eq!(ctl(rig, &["policy", "check", "/run/absent.toml"]).code(), 2);
}

fn jobs(rig: &Rig) {
    rig.write_file("/run/job.hcl", JOB, 0o600).unwrap();
    let hcl = ctl(rig, &["policy", "explain", "/run/job.hcl"]);
    assert_eq!(hcl.code(), 1, "{}", String::from_utf8_lossy(&hcl.stderr));
    let text = hcl.text();
    assert!(text.contains("g.fine: allowed"), "{text}");
    assert!(text.contains("g.greedy: refused"), "{text}");
    assert!(text.contains("g.wrong: refused") && text.contains("process_two"), "{text}");
    assert!(text.contains("console") && !text.contains("g.other"), "{text}");
    // The same as JSON, and with a policy that allows more.
    let json = rig.run(&["nomad", "job", "run", "-output", "/run/job.hcl"]).unwrap();
    rig.write_file("/run/job.json", json, 0o600).unwrap();
    assert_eq!(ctl(rig, &["policy", "explain", "/run/job.json"]).text(), text);
    rig.write_file("/run/draft.toml", "preset = \"compat\"\n", 0o600).unwrap();
    all_broken_rules(rig);
    let more = ["policy", "explain", "--policy", "/run/draft.toml", "/run/job.json"];
    let more = ctl(rig, &more).text();
    assert!(more.contains("g.greedy: allowed") && more.contains("g.wrong: refused"), "{more}");
}

/// Of each task every rule that it breaks, for people and for machines.
fn all_broken_rules(rig: &Rig) {
    let text = ctl(rig, &["policy", "explain", "/run/job.json"]).text();
    let found = ctl(rig, &["policy", "explain", "--json", "/run/job.json"]);
    assert_eq!(found.code(), 1);
    let report: Value = serde_json::from_str(&found.text()).unwrap();
    assert_eq!(report["allowed"], false);
    let task = |name: &str| {
        let tasks = report["tasks"].as_array().unwrap();
        tasks.iter().find(|task| task["task"] == name).unwrap_or_else(|| panic!("{report:#}"))
    };
    assert_eq!(
        (&task("g.fine")["allowed"], &task("g.fine")["complete"]),
        (&true.into(), &true.into())
    );
    assert!(task("g.wrong")["problems"].as_str().unwrap().contains("process_two"), "{report:#}");
    let greedy = task("g.greedy");
    assert_eq!((&greedy["allowed"], &greedy["complete"]), (&false.into(), &true.into()));
    let mut rules = Vec::new();
    for denial in greedy["denials"].as_array().unwrap() {
        let (rule, object) = (denial["rule"].as_str().unwrap(), denial["object"].as_str().unwrap());
        assert!(text.contains(object) && !denial["reason"].as_str().unwrap().is_empty(), "{text}");
        rules.push(format!("{rule} {object}"));
    }
    rules.sort_unstable();
    let expected = [
        "binds.read_only read-only bind of /opt/a",
        "binds.read_write bind of /srv/x",
        "caps.allow capability CAP_BPF",
        "network.allow host network",
        "preset read-only bind of /proc",
    ];
    assert_eq!(rules, expected, "{report:#}");
    assert_eq!(ctl(rig, &["policy", "explain", "--what", "/run/job.json"]).code(), 2);
}

fn a_broken_policy(rig: &Rig) {
    rig.run(&["chmod", "0666", "/etc/nomad-nspawn/policy.toml"]).unwrap();
    let (code, report) = doctor(rig);
    let (state, found, mend) = state_of(&report, "policy");
    assert_eq!((code, state.as_str()), (1, "fail"), "{report:#}");
    assert!(found.contains("must belong to root") && !mend.is_empty(), "{report:#}");
    rig.run(&["chmod", "0644", "/etc/nomad-nspawn/policy.toml"]).unwrap();
}

/// In a mount namespace of its own: nothing else on the host could run without the library.
fn a_host_without_filters(rig: &Rig) {
    let under = |prepare: &str| {
        let script = format!("set -e; {prepare}; exec nomad-nspawnctl doctor --json");
        let found = rig.exec(&["unshare", "-m", "sh", "-c", &script]).unwrap();
        let report: Value = serde_json::from_str(&found.text())
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&found.stderr)));
        assert_eq!((found.code(), report["healthy"].as_bool()), (1, Some(false)), "{report:#}");
        state_of(&report, "system call filters")
    };
    let (state, found, mend) =
        under("mount --bind /dev/null $(ldconfig -p | sed -n '/libseccomp.so.2 /{s/.*=> //p;q}')");
    assert!(state == "fail" && found.contains("libseccomp.so.2"), "{state}: {found}");
    assert_eq!(mend, "apt install libseccomp2");
    rig.write_file(
        "/run/nspawn-without",
        "#!/bin/sh\necho systemd 262; echo +PAM -SECCOMP\n",
        0o755,
    )
    .unwrap();
    let (state, found, _) = under("mount --bind /run/nspawn-without /usr/bin/systemd-nspawn");
    assert!(state == "fail" && found.contains("+SECCOMP"), "{state}: {found}");
    rig.run(&["rm", "/run/nspawn-without"]).unwrap();
}

fn a_stopped_helper(rig: &Rig) {
    let units = ["nomad-nspawn-helper.socket", "nomad-nspawn-helper.service"];
    rig.run(&["systemctl", "stop", units[0], units[1]]).unwrap();
    let (code, report) = doctor(rig);
    assert_eq!(code, 1);
    assert_eq!(state_of(&report, "helper").0, "fail", "{report:#}");
    let (state, _, mend) = state_of(&report, "socket");
    assert_eq!(state, "fail", "{report:#}");
    // The mend is a command that mends it.
    rig.run(&mend.split_whitespace().collect::<Vec<_>>()).unwrap();
    rig.run(&["systemctl", "start", units[1]]).unwrap();
    assert_eq!(doctor(rig).0, 0);
    rig.wait_driver("nspawn").unwrap();
}

/// What tasks lose there, and on a file system that cannot be ID-mapped.
fn an_open_data_directory(rig: &Rig) {
    let found = |rig: &Rig| {
        let (code, report) = doctor(rig);
        let (state, found, mend) = state_of(&report, "allocations");
        assert_eq!((code, state.as_str()), (0, "warning"), "{report:#}");
        assert!(!mend.is_empty(), "{report:#}");
        found
    };
    rig.run(&["chmod", "0755", "/var/lib/nomad"]).unwrap();
    let text = found(rig);
    assert!(text.contains(&DISK_FIRST.to_string()) && text.contains("0600"), "{text}");
    rig.run(&["chmod", "0700", "/var/lib/nomad"]).unwrap();
    rig.run(&["mount", "-t", "ramfs", "ram", "/var/lib/nomad/alloc"]).unwrap();
    let text = found(rig);
    assert!(text.contains("cannot ID-map") && text.contains("sticky"), "{text}");
    rig.run(&["umount", "/var/lib/nomad/alloc"]).unwrap();
}

/// Such an agent's secrets mounts never reach PID 1: no task may see an empty directory instead.
fn an_agent_with_a_private_mount_namespace(rig: &Rig) {
    let drop_in = "/etc/systemd/system/nomad.service.d/private.conf";
    rig.run(&["mkdir", "-p", "/etc/systemd/system/nomad.service.d"]).unwrap();
    rig.write_file(drop_in, "[Service]\nPrivateTmp=yes\n", 0o644).unwrap();
    rig.run(&["systemctl", "daemon-reload"]).unwrap();
    rig.agent_restart().unwrap();
    rig.wait_driver("nspawn").unwrap();
    let (code, report) = doctor(rig);
    let (state, found, _) = state_of(&report, "agent");
    assert_eq!((code, state.as_str()), (1, "fail"), "{report:#}");
    assert!(found.contains("private mount namespace"), "{report:#}");
    let job = JOB.replace("explained", "private");
    let first = job.split("task \"greedy\"").next().unwrap();
    let job = rig.run_job(&format!("{first}}}\n}}\n")).unwrap();
    let event =
        job.alloc().unwrap().wait_event("fine", "Driver Failure", Duration::from_secs(60)).unwrap();
    let told = format!("{} {}", event.message, event.details);
    assert!(told.contains("private mount namespace"), "{told}");
    job.purge().unwrap();
}
