//! No value of a job's environment shows itself to another user of the host, at any moment.

use crate::host;
use crate::scanner::Scanner;
use nspawn_tests::{Rig, wait};
use sha2::{Digest as _, Sha256};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Ten tasks: five whose environment goes through the settings file, five with a line break.
const JOB: &str = r#"
job "canary" {
  type = "batch"
  group "plain" {
    count = 5
    restart { attempts = 0 }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "plain" {
      driver = "nspawn"
      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "printf %s \"$CANARY\" | sha256sum | grep -q @plain-sum@ && sleep 3"]
      }
      env { CANARY = "@plain@" }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
  group "broken" {
    count = 5
    restart { attempts = 0 }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "broken" {
      driver = "nspawn"
      config {
        image       = "busybox"
        boot        = false
        ephemeral   = true
        process_two = true
        command     = ["/bin/sh", "-c", "printf %s \"$CANARY\" | sha256sum | grep -q @broken-sum@ && sleep 3"]
      }
      env { CANARY = "two\nlines @broken@" }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"#;

fn canary(kind: &str) -> String {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    format!("{kind}canary{}", uuid.trim().replace('-', ""))
}

fn sum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn p33_no_value_of_ten_tasks_is_seen_by_another_user() {
    let rig = host();
    let [plain, broken, by_hand] = ["plain", "broken", "byhand"].map(canary);
    let scanner = Scanner::start(rig, &[&plain, &broken, &by_hand]);

    // The payload knows its value by its checksum: a job file shows in Nomad's own log.
    let hcl = JOB
        .replace("@plain@", &plain)
        .replace("@broken@", &broken)
        .replace("@plain-sum@", &sum(&plain))
        .replace("@broken-sum@", &sum(&format!("two\nlines {broken}")));
    let job = rig.run_job(&hcl).unwrap();
    for alloc in job.wait_allocs(10).unwrap() {
        alloc.wait_status("complete", LIMIT).unwrap();
    }
    job.purge().unwrap();
    started_by_hand(rig, &by_hand);
    let report = scanner.stop();
    println!(
        "scanner: {} rounds, {} containers, {} looks at unit properties",
        report.rounds, report.containers, report.units
    );

    let of = |word: &str| -> Vec<&String> {
        report.found.iter().filter(|line| line.contains(word)).collect()
    };
    assert_eq!(of(&plain), Vec::<&String>::new());
    assert_eq!(of(&broken), Vec::<&String>::new());
    // The same scanner, in the same run, does find what is passed carelessly.
    for kind in [" cmdline ", " unit ", " environ ", " file "] {
        assert!(of(&by_hand).iter().any(|line| line.contains(kind)), "{kind}: {report:?}");
    }
    assert_eq!(report.containers, 11, "{report:?}");
    assert!(report.rounds > 20 && report.units > 2, "{report:?}");
    nothing_for_root_either(rig, &[&plain, &broken], &by_hand);
}

/// The control arm: systemd-nspawn as people start it, a file and a process that anybody may read.
fn started_by_hand(rig: &Rig, value: &str) {
    let setenv = format!("--setenv=CANARY={value}");
    rig.run(&[
        "systemd-run",
        "--unit=nomad-nspawn-by-hand",
        "--collect",
        "--property=PrivateMounts=yes",
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--machine=by-hand",
        "--directory=/var/lib/machines/busybox",
        "--read-only",
        "--timezone=off",
        "--resolv-conf=off",
        "--as-pid2",
        &setenv,
        "/bin/sleep",
        "8",
    ])
    .unwrap();
    rig.write_file("/run/by-hand", value, 0o644).unwrap();
    let own = "CANARY=$(cat /run/by-hand) exec sleep 6";
    assert!(rig.exec_as(1000, &["sh", "-c", own]).unwrap().success());
    rig.run(&["rm", "/run/by-hand"]).unwrap();
    wait::true_within("the container started by hand to end", LIMIT, || {
        let unit = ["systemctl", "show", "-P", "ActiveState", "nomad-nspawn-by-hand"];
        Ok(rig.run(&unit)? == "inactive")
    })
    .unwrap();
}

/// The journal holds the agent's log (level debug), the helper's and the units' own.
fn nothing_for_root_either(rig: &Rig, canaries: &[&str], by_hand: &str) {
    let journal = rig.run(&["journalctl", "--no-pager", "--all", "-o", "export"]).unwrap();
    assert!(journal.contains("nomad-nspawn-helper") && journal.contains("client.driver_mgr"));
    assert!(journal.contains(by_hand), "the journal does not even hold a command line");
    let units = rig.run(&["systemctl", "show", "--all", "nomad-nspawn-*"]).unwrap();
    for canary in canaries {
        let line = journal.lines().find(|line| line.contains(canary));
        assert_eq!(line, None, "{canary} is in the journal");
        assert!(!units.contains(canary), "{canary} is in a unit's properties");
    }
}
