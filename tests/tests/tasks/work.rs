//! The shared test host, and jobs built as the JSON of Nomad's HTTP interface.
//!
//! JSON, because payloads here are full of quotes and backslashes.

use nspawn_tests::job::Task;
use nspawn_tests::{Alloc, Config, Job, Rig, World, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// More than anything here takes, unless it hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);
/// Name of the task in every group.
pub(crate) const TASK: &str = "t";

struct Shared {
    rig: Rig,
    before: World,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let rig = Rig::up(&Config::from_env().unwrap()).unwrap();
    // What comes with the first task and stays (slice, machined, Nomad's bridge) is there now.
    let first = Work::sh("true").group("Networks", json!([{ "Mode": "bridge" }]));
    let first = first.run(&rig, "first");
    first.alloc.wait_status("complete", LIMIT).unwrap();
    first.job.purge().unwrap();
    // Nomad 1.6.3 removes the network of a group that has ended late, or not at all.
    wait::true_within("the end of the first network", LIMIT, || {
        rig.gc()?;
        rig.unmount_what_nomad_could_not()?;
        Ok(rig.run(&["ls", "/run/netns"])?.is_empty())
    })
    .unwrap();
    // The pool of addresses is chosen beside Nomad's bridge, and stays.
    let first = Work::sh("true").run(&rig, "first-own");
    first.alloc.wait_status("complete", LIMIT).unwrap();
    first.job.purge().unwrap();
    let before = World::snapshot(&rig).unwrap();
    Shared { rig, before }
});
static USE: RwLock<()> = RwLock::new(());

/// The test host, shared with other tests while this value lives.
pub(crate) struct Host(#[allow(dead_code, reason = "held, not read")] RwLockReadGuard<'static, ()>);
/// The test host for one test alone.
pub(crate) struct Alone(
    #[allow(dead_code, reason = "held, not read")] RwLockWriteGuard<'static, ()>,
);

impl Host {
    pub(crate) fn shared() -> Self {
        Self(USE.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn alone() -> Alone {
        Alone(USE.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deref for Host {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &SHARED.rig
    }
}

impl Deref for Alone {
    type Target = Rig;
    fn deref(&self) -> &Rig {
        &SHARED.rig
    }
}

impl Alone {
    /// What the host held before the first test.
    pub(crate) fn before(&self) -> &'static World {
        &SHARED.before
    }
}

/// One group with one task, before it is registered. Nothing restarts by itself.
#[derive(Clone)]
pub(crate) struct Work {
    kind: &'static str,
    group: Value,
}

impl Work {
    /// A batch task with this driver configuration.
    pub(crate) fn new(config: Value) -> Self {
        let task = json!({
            "Name": TASK, "Driver": "nspawn", "Config": config,
            "Resources": { "CPU": 20, "MemoryMB": 32 },
            "LogConfig": { "MaxFiles": 10, "MaxFileSizeMB": 10 },
        });
        let group = json!({
            "Name": "g",
            "RestartPolicy": { "Attempts": 0, "Mode": "fail" },
            "ReschedulePolicy": { "Attempts": 0, "Unlimited": false },
            "Tasks": [task],
        });
        Self { kind: "batch", group }
    }

    /// A batch task that runs a script as PID 1 of an ephemeral busybox.
    pub(crate) fn sh(script: &str) -> Self {
        Self::command(&["/bin/sh", "-c", script])
    }

    /// A batch task that runs a command as PID 1 of an ephemeral busybox.
    pub(crate) fn command(words: &[&str]) -> Self {
        Self::new(json!({
            "image": "busybox", "boot": false, "ephemeral": true, "command": words,
        }))
    }

    /// A service instead of a batch job.
    pub(crate) fn service(mut self) -> Self {
        self.kind = "service";
        self
    }

    /// Sets a key of the driver's configuration.
    pub(crate) fn config(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.group["Tasks"][0]["Config"][key] = value.into();
        self
    }

    /// Sets a key of the task.
    pub(crate) fn task(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.group["Tasks"][0][key] = value.into();
        self
    }

    /// Sets a key of the group.
    pub(crate) fn group(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.group[key] = value.into();
        self
    }

    /// No log collector. For tasks that shall not start: the collector waits two seconds a stream
    /// for a writer that never comes, and Nomad tells nothing until then.
    pub(crate) fn without_logs(self) -> Self {
        self.task("LogConfig", json!({ "Disabled": true }))
    }

    /// The command is PID 2 below the stub init, if `yes`.
    pub(crate) fn process_two(self, yes: bool) -> Self {
        self.config("process_two", yes)
    }

    /// The group as it would be sent, for groups of more than one task.
    pub(crate) fn body(self) -> Value {
        self.group
    }

    /// Registers it as a job of its own and waits for its allocation.
    pub(crate) fn run(self, rig: &Rig, id: &str) -> Running {
        self.try_run(rig, id).unwrap()
    }

    /// The same where Nomad itself may refuse the job.
    pub(crate) fn try_run(self, rig: &Rig, id: &str) -> anyhow::Result<Running> {
        let job = rig.run_job_json(&json!({
            "ID": id, "Name": id, "Type": self.kind, "TaskGroups": [self.group],
        }))?;
        let alloc = job.alloc()?;
        Ok(Running { job, alloc })
    }
}

/// Registers one batch job with a group for each piece of work, and waits for the allocations.
pub(crate) fn run_all(
    rig: &Rig,
    id: &str,
    all: Vec<(String, Work)>,
) -> (Job, BTreeMap<String, Alloc>) {
    let groups: Vec<Value> =
        all.into_iter().map(|(name, work)| work.group("Name", name).group).collect();
    let count = groups.len();
    let job = json!({ "ID": id, "Name": id, "Type": "batch", "TaskGroups": groups });
    let job = rig.run_job_json(&job).unwrap();
    let allocs = job.wait_allocs(count).unwrap().into_iter();
    let named = allocs.map(|alloc| {
        let group = alloc.get().unwrap()["TaskGroup"].as_str().unwrap().to_owned();
        (group, alloc)
    });
    let named: BTreeMap<_, _> = named.collect();
    assert_eq!(named.len(), count, "one allocation a group");
    (job, named)
}

/// The same work in both start modes, as PID 1 and below the stub init, as two jobs at once.
pub(crate) fn both_modes(rig: &Rig, id: &str, work: &Work) -> [Running; 2] {
    [("one", false), ("two", true)]
        .map(|(mode, two)| work.clone().process_two(two).run(rig, &format!("{id}-{mode}")))
}

/// A registered job with its allocation.
pub(crate) struct Running {
    pub(crate) job: Job,
    pub(crate) alloc: Alloc,
}

impl Running {
    /// Waits until the task's standard output holds `text`.
    pub(crate) fn wait_says(&self, text: &str) -> String {
        says(&self.alloc, "stdout", text)
    }

    /// Exact bytes of a stream as text, once it is as long as `expected`.
    pub(crate) fn assert_stream(&self, stream: &str, expected: &[u8]) {
        assert_stream(&self.alloc, stream, expected);
    }

    /// Waits for the end; gives the allocation's status, the task's exit code and its signal.
    pub(crate) fn end(&self) -> (String, i64, i64) {
        end(&self.alloc)
    }

    /// The event that says why the driver did not start the task.
    pub(crate) fn refusal(&self) -> String {
        assert_eq!(self.alloc.wait_done(LIMIT).unwrap(), "failed");
        self.alloc.wait_event(TASK, "Driver Failure", LIMIT).unwrap().message
    }

    /// The task as Nomad reports it.
    pub(crate) fn state(&self) -> Task {
        self.alloc.task(TASK).unwrap()
    }

    /// The events of one kind, as people read them.
    pub(crate) fn events(&self, kind: &str) -> String {
        let events = self.state().events().into_iter().filter(|event| event.kind == kind);
        events.map(|event| event.message).collect::<Vec<_>>().join("\n")
    }

    /// The task's unit that runs now.
    pub(crate) fn unit(&self, rig: &Rig) -> String {
        let pattern = format!("nomad-nspawn-{}-*.service", self.alloc.id.replace('-', ""));
        let list = ["systemctl", "list-units", "--plain", "--no-legend", "--state=running"];
        let list = rig.run(&[list.as_slice(), &[&pattern]].concat()).unwrap();
        let names: Vec<&str> = list.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(names.len(), 1, "{list}");
        names[0].to_owned()
    }

    /// Process id on the host of the container's PID 1.
    pub(crate) fn leader(&self, rig: &Rig) -> i32 {
        let main = rig.main_pid(&self.unit(rig)).unwrap();
        child(rig, main)
    }
}

/// The only child of a process of the host.
pub(crate) fn child(rig: &Rig, pid: i32) -> i32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    wait::until("the only child to show", LIMIT, || {
        let list = rig.run(&["cat", &path])?;
        Ok(list.trim().parse().ok())
    })
    .unwrap()
}

/// Waits until a stream holds `text`.
pub(crate) fn says(alloc: &Alloc, stream: &str, text: &str) -> String {
    let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let bytes = alloc.wait_logs(TASK, stream, LIMIT, holds).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A stream holds exactly these bytes, once there are as many.
pub(crate) fn assert_stream(alloc: &Alloc, stream: &str, expected: &[u8]) {
    let found = if expected.is_empty() {
        alloc.logs(TASK, stream).unwrap_or_default()
    } else {
        let enough = |bytes: &[u8]| bytes.len() >= expected.len();
        alloc.wait_logs(TASK, stream, LIMIT, enough).unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(found == expected, "{stream}: {:?}, not {:?}", text(&found), text(expected));
}

/// Waits for an allocation's end; gives its status, the task's exit code and its signal.
pub(crate) fn end(alloc: &Alloc) -> (String, i64, i64) {
    let status = alloc.wait_done(LIMIT).unwrap();
    let task = alloc.task(TASK).unwrap();
    let (code, signal) = task.exit().unwrap_or_else(|| panic!("no end: {:?}", task.events()));
    (status, code, signal)
}
