//! The `rig` command as a person uses it: a host that stays from one command to the next, and is
//! gone after the last.
//!
//! In a cache directory of its own, so that a host that the developer has up is another one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use nspawn_tests::host::instance::Ready;
use nspawn_tests::{Suite, images, outer, rootfs, wait};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const RIG: &str = env!("CARGO_BIN_EXE_rig");
/// Shows the cached images ($2 and on) in the cache directory $1, to one command and what it
/// starts; making them anew takes minutes.
const UP: &str = r#"
set -e; cache=$1; shift
for image; do mkdir -p "$cache/${image##*/}"; mount --bind "$image" "$cache/${image##*/}"; done
exec "$RIG" up --no-agent $FLAGS
"#;

/// A cache directory that goes with the test, and the host in it.
struct Own {
    directory: PathBuf,
}

impl Own {
    fn new(name: &str) -> Self {
        let own = Self { directory: Path::new(env!("CARGO_TARGET_TMPDIR")).join(name) };
        // What a killed run has left.
        own.remove();
        own
    }

    fn remove(&self) {
        drop(self.rig(&["down"]));
        drop(std::fs::remove_dir_all(&self.directory));
    }

    fn cache(&self) -> PathBuf {
        self.directory.join("nomad-driver-nspawn")
    }

    fn command(&self, program: &str, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(words).env("XDG_CACHE_HOME", &self.directory).env("RIG", RIG);
        command
    }

    fn rig(&self, words: &[&str]) -> Output {
        self.rig_with(words, b"")
    }

    fn rig_with(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(RIG, words);
        let streams = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Brings a host up, with the helper alone or bare (`--no-product`).
    fn up(&self, flags: &str) -> String {
        let suite = Suite::from_env().unwrap();
        outer::ensure_tools().unwrap();
        let made = [rootfs::host(suite), images::busybox(suite), images::debian(suite)];
        let images = made.map(|image| image.unwrap().to_str().unwrap().to_owned());
        let mut words = vec!["--mount", "--propagation=private", "sh", "-c", UP, "sh"];
        let cache = self.cache();
        words.push(cache.to_str().unwrap());
        words.extend(images.iter().map(String::as_str));
        let mut command = self.command("unshare", &words);
        let out = command.env("FLAGS", flags).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Whatever went wrong, no host stays behind.
        self.remove();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_host_stays_from_up_to_down_and_leaves_nothing() {
    let own = Own::new("cli");
    no_host(&own);
    let said = own.up("--no-product");
    assert!(said.contains(" is up at ") && said.contains("cargo rig sh"), "{said}");
    let state = own.cache().join(format!("up-{}.json", Suite::from_env().unwrap().name()));
    let ready: Ready = serde_json::from_str(&std::fs::read_to_string(&state).unwrap()).unwrap();
    let again = own.rig(&["up"]);
    let word = text(&again.stderr);
    assert!(again.status.success() && word.contains(&ready.machine), "{word}");
    assert!(word.contains("is up already"), "{word}");
    exec_passes_everything_through(&own, &ready);
    logs_are_those_of_agent_and_helper(&own);
    assert!(own.rig(&["down"]).status.success());
    no_host(&own);
    assert_gone(&ready);
    assert!(!state.exists());
    // What is there twice is no error.
    assert!(own.rig(&["down"]).status.success());
}

/// As docs/OPERATIONS.md says it, on the host that `rig up` leaves.
#[test]
fn the_operators_tool_is_installed_where_rig_up_leaves_a_host() {
    let own = Own::new("cli-tool");
    own.up("");
    let tool = |words: &[&str]| own.rig(&[&["exec", "--", "nomad-nspawnctl"], words].concat());
    let doctor = tool(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&doctor.stderr)));
    let checks = report["checks"].as_array().unwrap();
    let helper = checks.iter().find(|check| check["check"] == "helper").unwrap();
    assert_eq!(helper["state"], "ok", "{report:#}");
    let job = r#"{ "TaskGroups": [{ "Name": "g", "Tasks": [{ "Name": "t", "Driver": "nspawn",
        "Config": { "image": "busybox", "boot": false, "ephemeral": true } }] }] }"#;
    let write = ["exec", "--", "sh", "-c", "cat > /root/job.json"];
    assert!(own.rig_with(&write, job.as_bytes()).status.success());
    let explained = tool(&["policy", "explain", "/root/job.json"]);
    assert!(text(&explained.stdout).contains("g.t: allowed"), "{}", text(&explained.stderr));
    assert!(own.rig(&["down"]).status.success());
}

/// Without a host every command says how to get one.
fn no_host(own: &Own) {
    for words in [&["exec", "--", "true"][..], &["logs"], &["sh"]] {
        let out = own.rig(words);
        assert_eq!(out.status.code(), Some(1), "{words:?}");
        let said = text(&out.stderr);
        assert!(said.contains("no host is up") && said.contains("cargo rig up"), "{said}");
        assert_eq!(text(&out.stdout), "");
    }
}

fn exec_passes_everything_through(own: &Own, ready: &Ready) {
    let input = b"in\0\r\n\xff no line break";
    let script = "cat; hostname >&2; id -u >&2; exit 7";
    let out = own.rig_with(&["exec", "--", "sh", "-c", script], input);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(out.stdout, input);
    assert_eq!(text(&out.stderr), format!("{}\n0\n", ready.machine));
    let killed = own.rig(&["exec", "--", "sh", "-c", "kill -KILL $$"]);
    assert_eq!(killed.status.code(), Some(137));
    // What belongs to the command is none of ours.
    let own_words = own.rig(&["exec", "--", "echo", "--suite", "-f", "--"]);
    assert_eq!(text(&own_words.stdout), "--suite -f --\n");
    let none = own.rig(&["exec"]);
    assert!(!none.status.success() && text(&none.stderr).contains("exec -- CMD"));
}

fn logs_are_those_of_agent_and_helper(own: &Own) {
    for unit in ["nomad", "nomad-nspawn-helper", "elsewhere"] {
        let unit_word = format!("--unit={unit}");
        let run = ["systemd-run", "--wait", "--collect", "--quiet", &unit_word];
        let out = own.rig(&[&["exec", "--"], &run[..], &["echo", "line of", unit]].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
    }
    let mut said = String::new();
    wait::true_within("both lines", Duration::from_secs(10), || {
        said = text(&own.rig(&["logs"]).stdout);
        Ok(said.contains("line of nomad\n") && said.contains("line of nomad-nspawn-helper\n"))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {said}"));
    assert!(!said.contains("line of elsewhere"), "{said}");
}

/// Nothing of it is left that the machine could see.
fn assert_gone(ready: &Ready) {
    let link = Path::new("/sys/class/net").join(format!("ve-{}", ready.machine));
    wait::true_within("the host to be gone", Duration::from_secs(20), || {
        Ok([&ready.dir, &ready.cgroup, &link].iter().all(|path| !path.exists()))
    })
    .unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(ready.dir.to_str().unwrap()), "{mounts}");
}
