//! The test host itself: boots, runs jobs, goes down in every way it can be made to.

#![allow(clippy::unwrap_used, reason = "tests")]

use nspawn_tests::host::instance::Ready;
use nspawn_tests::{Config, Rig, wait};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

const RAW: &str = r#"
job "raw" {
  type = "batch"
  group "g" {
    restart {
      attempts = 0
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver = "raw_exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "printf 'out\\0\n'; printf err >&2; exit 7"]
      }
    }
  }
}
"#;

fn bare() -> Config {
    Config { product: None, agent: false, ..Config::from_env().unwrap() }
}

#[test]
fn a_job_runs_and_its_exit_code_and_bytes_arrive() {
    let rig = Rig::up(&Config { product: None, ..Config::from_env().unwrap() }).unwrap();
    let job = rig.run_job(RAW).unwrap();
    let alloc = job.alloc().unwrap();
    alloc.wait_status("failed", Duration::from_secs(20)).unwrap();
    let task = alloc.task("t").unwrap();
    assert_eq!(task.exit(), Some((7, 0)));
    assert!(task.failed());
    for (stream, expected) in [("stdout", &b"out\0\n"[..]), ("stderr", b"err")] {
        let enough = |text: &[u8]| text.len() >= expected.len();
        let seen = alloc.wait_logs("t", stream, Duration::from_secs(20), enough).unwrap();
        assert_eq!(seen, expected, "{stream}");
    }
    job.purge().unwrap();
    assert!(!rig.exists(&format!("/var/lib/nomad/alloc/{}", alloc.id)));
    rig.agent_restart().unwrap();
    rig.agent_kill9().unwrap();
    rig.agent_start().unwrap();
}

#[test]
fn exec_passes_status_output_and_account_and_has_a_limit() {
    let rig = Rig::up(&bare()).unwrap();
    let out = rig.exec(&["sh", "-c", "echo out; echo err >&2; exit 3"]).unwrap();
    assert_eq!((out.code(), out.text().as_str()), (3, "out\n"));
    assert_eq!(out.stderr, b"err\n");
    let out = rig.exec_as(1000, &["sh", "-c", "id -u; id -G; grep CapEff /proc/self/status"]);
    assert_eq!(out.unwrap().text(), "1000\n1000\nCapEff:\t0000000000000000\n");
    let error = rig.exec_within(&["sleep", "60"], Duration::from_millis(200)).unwrap_err();
    assert!(format!("{error:#}").contains("timed out"), "{error:#}");
    // The link leads to a file of the instance, not of the outer machine.
    rig.run(&["ln", "-s", "/etc/hostname", "/root/link"]).unwrap();
    let name = rig.read_file("/root/link").unwrap();
    assert_eq!(name, format!("{}\n", rig.ready().machine).as_bytes());
    rig.write_file("/root/file", b"bytes", 0o600).unwrap();
    assert_eq!(rig.run(&["stat", "-c", "%a %s", "/root/file"]).unwrap(), "600 5");
}

/// Inode of the cgroup that bears the instance's name now.
fn cgroup(rig: &Ready) -> Option<u64> {
    Some(std::fs::metadata(&rig.cgroup).ok()?.ino())
}

/// Index of the link that bears the instance's name now.
fn link(rig: &Ready) -> Option<String> {
    let file = format!("/sys/class/net/ve-{}/ifindex", rig.machine);
    std::fs::read_to_string(file).ok()
}

/// An instance by its own numbers: its names belong to the slot's next owner as soon as it is gone.
/// No cgroup can be removed while one of its processes lives.
struct Instance {
    ready: Ready,
    cgroup: u64,
    link: String,
}

impl Instance {
    fn of(ready: &Ready) -> Self {
        let ready = ready.clone();
        let (cgroup, link) = (cgroup(&ready).unwrap(), link(&ready).unwrap());
        Self { ready, cgroup, link }
    }

    fn has_cgroup(&self) -> bool {
        cgroup(&self.ready) == Some(self.cgroup)
    }

    /// Everything of it that the outer machine could see is gone.
    fn assert_gone(&self) {
        wait::true_within("the instance to be gone", Duration::from_secs(20), || {
            let linked = link(&self.ready).as_ref() == Some(&self.link);
            Ok(!self.ready.dir.exists() && !self.has_cgroup() && !linked)
        })
        .unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.ready.dir.to_str().unwrap()), "{mounts}");
    }
}

#[test]
fn two_instances_do_not_clash_and_leave_nothing() {
    let one = Rig::up(&bare()).unwrap();
    let two = Rig::up(&bare()).unwrap();
    assert_ne!(one.ready().address, two.ready().address);
    one.run(&["systemd-run", "--wait", "--unit=same", "true"]).unwrap();
    two.run(&["systemd-run", "--wait", "--unit=same", "true"]).unwrap();
    let (first, second) = (Instance::of(one.ready()), Instance::of(two.ready()));
    drop(one);
    two.down().unwrap();
    first.assert_gone();
    second.assert_gone();
}

#[test]
fn a_panicking_owner_leaves_nothing() {
    let instance = std::sync::Mutex::new(None);
    let caught = std::panic::catch_unwind(|| {
        let rig = Rig::up(&bare()).unwrap();
        *instance.lock().unwrap() = Some(Instance::of(rig.ready()));
        panic!("on purpose");
    });
    assert!(caught.is_err());
    let instance = instance.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    instance.unwrap().assert_gone();
}

/// A process that owns an instance and waits for its end.
fn owner() -> (std::process::Child, Instance) {
    use std::io::BufRead as _;
    let mut child = Command::new(env!("CARGO_BIN_EXE_rig"))
        .arg("hold")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, Instance::of(&serde_json::from_str(&line).unwrap()))
}

#[test]
fn a_killed_owner_leaves_nothing() {
    for signal in ["KILL", "TERM", "INT"] {
        let (mut child, instance) = owner();
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        child.wait().unwrap();
        instance.assert_gone();
    }
}

#[test]
fn a_killed_supervisor_takes_the_instance_along_and_the_next_start_sweeps() {
    let rig = Rig::up(&bare()).unwrap();
    let instance = Instance::of(rig.ready());
    let ready = &instance.ready;
    let pid = ready.supervisor.to_string();
    assert!(Command::new("kill").args(["-s", "KILL", &pid]).status().unwrap().success());
    wait::true_within("the instance to die", Duration::from_secs(10), || {
        let events = std::fs::read_to_string(ready.cgroup.join("cgroup.events"));
        // Another test may have got the slot since, and made the cgroup anew.
        Ok(events.is_ok_and(|text| text.contains("populated 0")) || !instance.has_cgroup())
    })
    .unwrap();
    drop(rig);
    let next = Rig::up(&bare()).unwrap();
    assert!(!ready.dir.exists());
    drop(next);
    // The slot's next owner removes its cgroup; until then the empty one may stay.
}
