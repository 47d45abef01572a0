//! Values of a job's environment reach the payload byte for byte, and steer nothing outside of it.

use crate::{bare, host};
use nspawn_tests::hostile::{Door, Handmade};
use nspawn_tests::{Alloc, Job, Rig};
use proto::wire::Answer;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// Prints what its PID 1 was given by execve and waits.
const JOB: &str = r#"
job "@name@" {
  type = "batch"
  group "g" {
    restart { attempts = 0 }
    reschedule {
      attempts  = 0
      unlimited = false
    }
    task "t" {
      driver       = "nspawn"
      kill_timeout = "1s"
      kill_signal  = "SIGKILL"
      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "/bin/cat /proc/1/environ; exec /bin/sleep 600"]
      }
      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
"#;

/// Values that a quoting rule of some file format would change.
const ODD: [(&str, &str); 22] = [
    ("QUOTES", r#"a"b'c"d"#),
    ("QUOTE_FIRST", "\"x"),
    ("QUOTE_LAST", "x\""),
    ("QUOTES_ALONE", "\"\""),
    ("SINGLE", "it's"),
    ("BACKSLASH", "\\"),
    ("BACKSLASH_LAST", r"c:\dir\"),
    ("BACKSLASH_QUOTE", r#"\""#),
    ("BACKSLASHES", r"\\ \n \x41 \101 \u00e9 \s\"),
    ("DOLLARS", "$HOME ${NO_SUCH} $$ $(id) `id` $"),
    ("PERCENT", "%n %% %h %i %"),
    ("BLANKS", "  at both ends  "),
    ("TABS", "\tat\tboth\tends\t"),
    ("EMPTY", ""),
    ("COMMENT", "# no ; comment"),
    ("EQUALS", "=a=b="),
    ("SECTION", "[Files] Bind=/:/host"),
    ("GLOBS", "* ? ~ [a-z] {a,b}"),
    ("LETTERS", "é 漢 🦀 \u{a0}"),
    ("PATH", "/opt/own/bin:/usr/bin"),
    ("TERM", "own term"),
    ("HOME", "/own home"),
];

/// Names that systemd-nspawn, the C library or a library of theirs acts upon.
const STEERING: [(&str, &str); 9] = [
    ("SYSTEMD_SECCOMP", "0"),
    ("SYSTEMD_LOG_LEVEL", "debug"),
    ("SYSTEMD_LOG_TARGET", "console"),
    ("SYSTEMD_NSPAWN_LOCK", "0"),
    ("LD_PRELOAD", "/nonexistent/steered.so"),
    ("LD_DEBUG", "all"),
    ("LD_LIBRARY_PATH", "/nonexistent"),
    ("NOTIFY_SOCKET", "/run/steered"),
    ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
];

/// Runs the job with these variables.
fn run(rig: &Rig, name: &str, env: &BTreeMap<String, String>) -> (Job, Alloc) {
    let body = json!({ "JobHCL": JOB.replace("@name@", name), "Canonicalize": true });
    let mut job: Value = rig.api().put("/v1/jobs/parse", &body).unwrap();
    job["TaskGroups"][0]["Tasks"][0]["Env"] = json!(env);
    let job = rig.run_job_json(&job).unwrap();
    let alloc = job.alloc().unwrap();
    (job, alloc)
}

fn own(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Waits for all of PID 1's variables and compares every one of ours.
fn assert_arrives(alloc: &Alloc, env: &BTreeMap<String, String>) {
    // Nomad adds its own; each of ours must be there once, and complete.
    let enough: usize = env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let seen = alloc
        .wait_logs("t", "stdout", LIMIT, |bytes| bytes.len() > enough && bytes.ends_with(&[0]));
    let seen = seen.unwrap();
    let mut found: BTreeMap<&[u8], Vec<&[u8]>> = BTreeMap::new();
    for variable in seen.split(|byte| *byte == 0).filter(|variable| !variable.is_empty()) {
        let equals = variable.iter().position(|byte| *byte == b'=').unwrap();
        found.entry(&variable[..equals]).or_default().push(&variable[equals + 1..]);
    }
    for (name, value) in env {
        let got = found.get(name.as_bytes());
        assert!(got.is_some_and(|got| got == &[value.as_bytes()]), "{name}: {got:?} not {value:?}");
    }
    assert_eq!(alloc.logs("t", "stderr").unwrap_or_default(), b"");
}

/// The task's unit and its container's PID 1.
fn unit_of(rig: &Rig, alloc: &Alloc) -> (String, String) {
    let pattern = format!("nomad-nspawn-{}-*", alloc.id.replace('-', ""));
    let unit =
        rig.sh(&format!("systemctl list-units --plain --no-legend '{pattern}' | cut -d' ' -f1"));
    let unit = unit.unwrap();
    let main = rig.main_pid(&unit).unwrap();
    let children = rig.read_file(&format!("/proc/{main}/task/{main}/children")).unwrap();
    (unit, String::from_utf8(children).unwrap().trim().to_owned())
}

fn status_line(rig: &Rig, pid: &str, name: &str) -> String {
    let status = String::from_utf8(rig.read_file(&format!("/proc/{pid}/status")).unwrap()).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().to_owned()
}

#[test]
fn p12_odd_values_arrive_and_steer_nothing_outside() {
    let rig = host();
    let mut env: BTreeMap<_, _> = own(&ODD).into_iter().chain(own(&STEERING)).collect();
    // Each quote takes five bytes of the settings file.
    env.extend((0..12).map(|n| (format!("LARGE_QUOTES_{n}"), "\"".repeat(100 * 1024))));
    let (job, alloc) = run(rig, "odd", &env);
    alloc.wait_running().unwrap();
    assert_arrives(&alloc, &env);

    let (unit, leader) = unit_of(rig, &alloc);
    // The host of the test is a container too: its own filters count as well.
    let [filtered, unfiltered] = control_arm(rig);
    assert_ne!(filtered, unfiltered, "SYSTEMD_SECCOMP steers nothing, so this test cannot fail");
    assert_eq!(status_line(rig, &leader, "Seccomp_filters:"), filtered);
    assert_eq!(status_line(rig, &leader, "Seccomp:"), "2");
    let journal = rig.journal(&unit).unwrap();
    for trace in ["nonexistent", "steered", "calling init", "cannot be preloaded", "SYSTEMD_"] {
        assert!(!journal.contains(trace), "{trace} in the journal of {unit}:\n{journal}");
    }
    let debug = rig.run(&["journalctl", "-q", "-p", "debug..debug", "-o", "cat", "-u", &unit]);
    assert_eq!(debug.unwrap(), "", "systemd-nspawn was told to log more");
    job.purge().unwrap();
}

/// The same variable in systemd-nspawn's own environment does steer it. Returns how many system
/// call filters a container has, and how many when it was told to go without.
fn control_arm(rig: &Rig) -> [String; 2] {
    let options = [
        "systemd-nspawn",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--machine=steered",
        "--directory=/var/lib/machines/busybox",
        "--read-only",
        "--timezone=off",
        "--resolv-conf=off",
        "--console=pipe",
        "/bin/grep",
        "^Seccomp_filters:",
        "/proc/self/status",
    ];
    ["--setenv=X=0", "--setenv=SYSTEMD_SECCOMP=0"].map(|setenv| {
        let run = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", setenv];
        let line = rig.run(&[&run[..], &options[..]].concat()).unwrap();
        line.trim_start_matches("Seccomp_filters:").trim().to_owned()
    })
}

/// Settings files of the machine's name, wherever systemd-nspawn looks for one.
#[test]
fn p13_no_other_settings_file_is_read() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let task = Handmade::new(rig, "settled").unwrap();
    let machine = format!("settled-{}", task.key.alloc);
    let mut files = Vec::new();
    for directory in ["/etc/systemd/nspawn", "/run/systemd/nspawn", "/var/lib/machines"] {
        rig.run(&["mkdir", "-p", directory]).unwrap();
        for name in [machine.as_str(), "busybox", "root"] {
            let file = format!("{directory}/{name}.nspawn");
            rig.write_file(&file, "[Exec]\nEnvironment=STEERED=1\nHostname=steered\n", 0o644)
                .unwrap();
            files.push(file);
        }
    }
    let words = ["/bin/sh", "-c", "cp /proc/1/environ /local/environ; hostname >/local/hostname"];
    let answer = client.start(&task.spec(&words).unwrap()).unwrap();
    assert!(matches!(answer, Ok(Answer::Started(_))), "{answer:?}");
    let exit = task.wait_ended(&client).unwrap();
    assert_eq!((exit.code, exit.error.as_str()), (0, ""));
    let read = |name: &str| {
        let bytes = rig.read_file(&format!("{}/settled/local/{name}", task.dir())).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert!(read("environ").contains("container=systemd-nspawn"), "{}", read("environ"));
    assert!(!read("environ").contains("STEERED"));
    assert_ne!(read("hostname").trim_end(), "steered");
    files.iter().for_each(|file| rig.run(&["rm", file]).map(drop).unwrap());
    task.remove(&client).unwrap();
}

#[test]
fn line_breaks_and_large_values_arrive() {
    let rig = host();
    let mut env: BTreeMap<_, _> = own(&ODD).into_iter().chain(own(&STEERING)).collect();
    env.extend(own(&[
        ("BREAK", "two\nlines"),
        ("BREAKS", "\n\na\r\nb\n"),
        ("CONTROL", "\u{1}\u{1b}[31m\u{7f}\u{85}"),
        ("ESCAPES", r#"\n \u0041 \" \/ \b"#),
        ("EXEC", "x\n[Exec]\nCapability=all"),
    ]));
    for n in 0..13 {
        // Every printable character, in another order each time.
        let value =
            (0..100 * 1024).map(|i| char::from(b' ' + u8::try_from((i * 7 + n) % 95).unwrap()));
        env.insert(format!("LARGE_{n}"), value.collect());
    }
    let (job, alloc) = run(rig, "large", &env);
    alloc.wait_running().unwrap();
    assert_arrives(&alloc, &env);
    job.purge().unwrap();
}
