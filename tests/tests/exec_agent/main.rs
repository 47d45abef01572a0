//! `nomad alloc exec` and the scripts that Nomad runs in tasks, as users and checks see them: through a
//! real agent, with and without a real terminal.
//!
//! One test host for the whole file. Tests run in parallel on it; one that kills a part of the product
//! has it alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod bulk;
mod conformance;
mod deaths;
mod errors;
mod events;
mod scripts;
mod terminal;
mod user;

use nspawn_tests::Output;
use nspawn_tests::{Alloc, Config, Job, Rig, wait};
use serde_json::{Value, json};
use std::io::Write as _;
use std::ops::Deref;
use std::process::Child;
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, mpsc};
use std::time::Duration;

/// More than anything here takes, unless it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// How soon nothing is left of a session that was cut.
const SOON: Duration = Duration::from_secs(3);
/// Name of the task in every group.
const TASK: &str = "t";
/// The helper's unit.
const HELPER: &str = "nomad-nspawn-helper.service";

static RIG: LazyLock<Rig> = LazyLock::new(|| {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    rig.set_policy("[userns]\nrequire = false\n").unwrap();
    rig
});
static USE: RwLock<()> = RwLock::new(());

/// The test host, while this value lives.
struct Host<G>(#[allow(dead_code, reason = "held, not read")] G);

/// The host, shared with other tests.
fn host() -> Host<RwLockReadGuard<'static, ()>> {
    Host(USE.read().unwrap_or_else(PoisonError::into_inner))
}

/// The host for one test alone.
fn alone() -> Host<RwLockWriteGuard<'static, ()>> {
    Host(USE.write().unwrap_or_else(PoisonError::into_inner))
}

impl<G> Deref for Host<G> {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &RIG
    }
}

/// A service of one task, which runs until it is stopped.
struct Service {
    job: Job,
    alloc: Alloc,
}

/// The keys of a busybox that does nothing.
fn busybox() -> Value {
    json!({
        "image": "busybox", "boot": false, "ephemeral": true,
        "command": ["/bin/sh", "-c", "exec sleep 100000"],
    })
}

/// The keys of the three kinds of container.
fn kinds() -> [(&'static str, Value); 3] {
    let mut two = busybox();
    two["process_two"] = json!(true);
    let debian = json!({ "image": "debian", "ephemeral": true });
    [("command", busybox()), ("two", two), ("booted", debian)]
}

impl Service {
    fn start(name: &str, config: Value) -> Self {
        Self::start_with(name, config, json!({}))
    }

    /// With further keys of the task.
    fn start_with(name: &str, config: Value, more: Value) -> Self {
        let service = Self::register(name, config, more);
        service.alloc.wait_running().unwrap();
        service
    }

    fn register(name: &str, config: Value, more: Value) -> Self {
        let mut task = json!({
            "Name": TASK, "Driver": "nspawn", "Config": config,
            "KillTimeout": 100_000_000,
            "Env": { "OWN": "of the job" },
            "Resources": { "CPU": 20, "MemoryMB": 64 },
        });
        for (key, value) in more.as_object().unwrap() {
            task[key] = value.clone();
        }
        let id = format!("exec-{name}");
        let job = json!({
            "ID": id, "Name": id, "Type": "service", "Datacenters": ["*"],
            "TaskGroups": [{
                "Name": "g", "Count": 1, "Tasks": [task],
                "RestartPolicy": { "Attempts": 0, "Mode": "fail" },
                "ReschedulePolicy": { "Attempts": 0, "Unlimited": false },
            }],
        });
        let job = RIG.run_job_json(&job).unwrap();
        let alloc = job.alloc().unwrap();
        Self { job, alloc }
    }

    /// The words of `nomad alloc exec` in this task.
    fn words<'a>(&'a self, tty: &'a str, words: &[&'a str]) -> Vec<&'a str> {
        let mut all = vec!["nomad", "alloc", "exec", tty, "-task", TASK, &self.alloc.id];
        all.extend(words);
        all
    }

    /// Starts a command without terminal; its streams are pipes.
    fn spawn(&self, words: &[&str]) -> Child {
        RIG.spawn(&self.words("-t=false", words)).unwrap()
    }

    /// Runs a command without terminal.
    fn exec(&self, words: &[&str], input: &[u8]) -> Output {
        finish(self.spawn(words), input)
    }

    /// Runs a script without terminal and input.
    fn sh(&self, script: &str) -> Output {
        self.exec(&["/bin/sh", "-c", script], b"")
    }

    fn purge(self) {
        self.job.purge().unwrap();
    }
}

/// Feeds a command and waits for its end.
fn finish(mut child: Child, input: &[u8]) -> Output {
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end without having read all of it.
    std::thread::spawn(move || stdin.write_all(&input).ok());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let out = receiver.recv_timeout(LIMIT).unwrap_or_else(|_| {
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
        panic!("`nomad alloc exec` does not end");
    });
    let out = out.unwrap();
    Output { status: out.status, stdout: out.stdout, stderr: out.stderr }
}

/// Standard output, standard error, exit code.
fn parts(out: &Output) -> (String, String, i32) {
    (out.text(), String::from_utf8_lossy(&out.stderr).into_owned(), out.code())
}

/// Processes of the host whose command line holds this word.
fn processes(word: &str) -> String {
    // The pattern does not match itself.
    let pattern = format!("[{}]{}", &word[..1], &word[1..]);
    RIG.exec(&["pgrep", "-af", &pattern]).unwrap().text()
}

/// Cgroups of sessions.
fn leaves() -> String {
    leaves_of("")
}

/// Those in the tasks of an allocation; the empty id is every allocation's.
fn leaves_of(alloc: &str) -> String {
    let path = format!("*nomad-nspawn-{}*/nomad-exec-*", alloc.replace('-', ""));
    RIG.exec(&["find", "/sys/fs/cgroup", "-type", "d", "-path", &path]).unwrap().text()
}

/// Waits until nothing is left of sessions whose commands held this word.
fn wait_for_nothing_left(word: &str) {
    wait::true_within(
        "the end of the sessions' processes",
        SOON,
        || Ok(processes(word).is_empty()),
    )
    .unwrap_or_else(|error| panic!("{error:#}: {}", processes(word)));
    wait::true_within("the end of the sessions' cgroups", SOON, || Ok(leaves().is_empty()))
        .unwrap_or_else(|error| panic!("{error:#}: {}", leaves()));
}
