//! A hook, and one task that meets it.

use nspawn_tests::shell::ShellJob;
use nspawn_tests::world::traces;
use nspawn_tests::{Alloc, Job, Rig, wait};
use proto::step::Step;
use std::fmt;
use std::time::Duration;

/// Where test builds of helper and launcher look for hooks.
pub(crate) const HOOKS: &str = "/run/nomad-nspawn/hook";
/// Longest time until everything is as it was.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Makes the directory of hooks, and lets the helper take them away.
pub(crate) fn allow_hooks(rig: &Rig) {
    rig.run(&["mkdir", "-m", "700", HOOKS]).unwrap();
    // The released unit may not write there.
    let unit = "/etc/systemd/system/nomad-nspawn-helper.service.d/hook.conf";
    rig.run(&["mkdir", "-p", "/etc/systemd/system/nomad-nspawn-helper.service.d"]).unwrap();
    let more = format!("[Service]\nReadWritePaths={HOOKS}\n");
    rig.write_file(unit, &more, 0o644).unwrap();
    // Nor those of its workers, of which each has a unit.
    let workers = "/etc/systemd/system/nomad-nspawn-enter-.service.d";
    rig.run(&["mkdir", "-p", workers]).unwrap();
    rig.write_file(&format!("{workers}/hook.conf"), &more, 0o644).unwrap();
    rig.sh("systemctl daemon-reload && systemctl restart nomad-nspawn-helper").unwrap();
}

/// A moment of a step.
#[derive(Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) step: Step,
    pub(crate) moment: &'static str,
}

impl fmt::Display for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.step.name(), self.moment)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

impl Hook {
    /// Lets the next process that meets the moment kill `victim`.
    pub(crate) fn arm(&self, rig: &Rig, victim: &str) {
        rig.write_file(&format!("{HOOKS}/{self}"), victim, 0o600).unwrap();
    }

    /// Whether the moment has not come yet.
    pub(crate) fn is_armed(&self, rig: &Rig) -> bool {
        rig.exists(&format!("{HOOKS}/{self}"))
    }
}

fn run(rig: &Rig, name: &str, restarts: usize, capability: &str) -> (Job, Alloc) {
    let job = ShellJob {
        name,
        kind: "batch",
        count: 1,
        restarts,
        process_two: false,
        port: true,
        kill_timeout: "5s",
        script: "httpd -p 80 -h /etc; trap 'echo usr1' USR1; trap 'exit 0' TERM; echo up; while :; do sleep 60 & wait; done",
    };
    // In a zone: its number, its element and the file of names go as well.
    let more = format!(
        "network_zone = \"steps\"\n        capability = [\"{capability}\"]\n        ephemeral "
    );
    let job = rig.run_job(&job.hcl().replace("ephemeral ", &more)).unwrap();
    let alloc = job.alloc().unwrap();
    (job, alloc)
}

/// Waits until nothing is left of an allocation but what Nomad keeps itself.
fn wait_gone(rig: &Rig, alloc: &Alloc, what: &str) {
    let mut left = Vec::new();
    wait::true_within("nothing to be left of the task", LIMIT, || {
        // The agent keeps the allocation's directory with the secrets mounted in it.
        left = traces(rig.leader(), &alloc.id);
        left.retain(|trace| !trace.contains("/var/lib/nomad/alloc/"));
        Ok(left.is_empty())
    })
    .unwrap_or_else(|error| panic!("{what}: {error:#}: {left:?}\n{}", journal(rig)));
}

/// The end of the journal without the agent's lines about our own questions.
fn journal(rig: &Rig) -> String {
    let command = "journalctl --no-pager -o short-precise | grep -v ' http: ' | tail -80";
    rig.sh(command).unwrap_or_default()
}

/// A running task.
pub(crate) struct Running<'r> {
    rig: &'r Rig,
    name: String,
    job: Job,
    alloc: Alloc,
}

impl<'r> Running<'r> {
    pub(crate) fn start(rig: &'r Rig, name: &str, restarts: usize) -> Self {
        Self::start_with(rig, name, restarts, "kill")
    }

    /// The same with a capability.
    pub(crate) fn start_with(rig: &'r Rig, name: &str, restarts: usize, capability: &str) -> Self {
        let (job, alloc) = run(rig, name, restarts, capability);
        let task = Self { rig, name: name.to_owned(), job, alloc };
        task.wait_logs(b"up\n");
        task
    }

    fn wait_logs(&self, end: &'static [u8]) {
        let found = self.alloc.wait_logs("t", "stdout", LIMIT, |text| text.ends_with(end));
        found.unwrap_or_else(|e| panic!("{}: {e:#}\n{}", self.name, journal(self.rig)));
    }

    /// Nomad knows it: the agent reaches its payload. It is there once, and machinectl shows it.
    pub(crate) fn assert_known(&self) {
        let mut last = String::new();
        wait::true_within("the agent to reach the task", LIMIT, || {
            let sent = self.alloc.signal("t", "SIGUSR1");
            last = format!("{sent:?}");
            Ok(sent.is_ok())
        })
        .unwrap_or_else(|e| panic!("{}: {e:#}: {last}\n{}", self.name, journal(self.rig)));
        self.wait_logs(b"usr1\n");
        let containers = self.rig.containers_of(&self.alloc.id, 1);
        assert_eq!(containers.len(), 1, "{}: {containers:?}", self.name);
        let machine = ["machinectl", "show", &format!("t-{}", self.alloc.id)];
        wait::true_within("machinectl to show it", LIMIT, || {
            Ok(self.rig.exec(&machine)?.success())
        })
        .unwrap_or_else(|e| panic!("{}: {e:#}\n{}", self.name, journal(self.rig)));
    }

    /// Whether its port answers at the address that Nomad chose and on loopback.
    fn answers(&self) -> [bool; 2] {
        let alloc = self.alloc.get().unwrap();
        let port = &alloc["AllocatedResources"]["Shared"]["Ports"][0];
        let (address, number) = (port["HostIP"].as_str().unwrap(), &port["Value"]);
        [address, "127.0.0.1"].map(|address| {
            let url = format!("http://{address}:{number}/passwd");
            self.rig.exec(&["curl", "-sfm", "5", &url]).unwrap().success()
        })
    }

    /// Stops it; nothing of it is left. The job is to be purged later.
    pub(crate) fn stop(self) -> Job {
        assert_eq!(self.answers(), [true; 2], "{}: {}", self.name, journal(self.rig));
        self.job.stop().unwrap();
        wait_gone(self.rig, &self.alloc, &self.name);
        assert_eq!(self.answers(), [false; 2], "{}: {}", self.name, journal(self.rig));
        self.job
    }
}

/// A task that is not started again, whose launcher is killed.
pub(crate) struct Failing<'r> {
    rig: &'r Rig,
    job: Job,
    alloc: Alloc,
    hook: Hook,
}

impl<'r> Failing<'r> {
    /// Returns when the launcher is dead.
    pub(crate) fn start(rig: &'r Rig, hook: Hook) -> Self {
        hook.arm(rig, "self");
        let name = format!("fails-{}", hook.to_string().replace('.', "-"));
        let (job, alloc) = run(rig, &name, 0, crate::capability(&[hook]));
        wait::true_within("the hook to be met", LIMIT, || Ok(!hook.is_armed(rig))).unwrap();
        Self { rig, job, alloc, hook }
    }

    /// Its start has failed and nothing of it is left.
    pub(crate) fn assert_failed(self) {
        self.alloc.wait_status("failed", LIMIT).unwrap();
        wait_gone(self.rig, &self.alloc, &format!("launcher killed {}", self.hook));
        self.job.purge().unwrap();
    }
}
