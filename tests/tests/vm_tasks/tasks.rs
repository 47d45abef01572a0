//! Tasks on a machine that reboots, or loses its power: what they get to do, what stays on the
//! disk, and that nothing else does.
//!
//! Each task writes a line to a file in the allocation's directory for all that happens to it, so
//! what is read at the next boot is what it did at the end of the last one.

use nspawn_tests::vm::Machine;
use nspawn_tests::wait;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// For what takes seconds on idle cores; longer where the machine is emulated.
const LIMIT: Duration = Duration::from_secs(120);
/// The directory that all tasks share, with a file for each. The agent may not be there to be asked
/// for the allocation, and there is never another.
const DATA: &str = "/var/lib/nomad/alloc/*/alloc/data";
const TASKS: [&str; 4] = ["slow", "chosen", "deaf", "booted"];

/// The number shows which of the earlier starts have left what they wrote to the root. It is on the
/// disk before the line is there that the test waits for.
const BEGIN: &str = "\
f=/alloc/data/$0; echo start >> /own; sync /own; \
echo start $(wc -l < /own) >> $f; sync $f; echo up >> $f";

/// `kill_signal` and `kill_timeout` are Nomad's, and have no effect when the host shuts down.
const JOB: &str = r#"
job "reboot" {
  group "g" {
    restart {
      attempts = 100
      delay    = "1s"
      mode     = "delay"
    }
    network {
      port "http" { static = 8080 }
    }

    task "slow" {
      driver = "nspawn"
      config {
        image     = "plain"
        boot      = false
        ephemeral = false
        command   = ["/bin/sh", "-c", <<-X
          BEGIN
          trap 'sleep 3; echo last; echo last >> $f; exit 0' TERM
          while :; do sleep 1; done
          X
          , "slow"]
      }
      resources { memory = 32 }
    }

    task "chosen" {
      driver      = "nspawn"
      kill_signal = "SIGHUP"
      config {
        image       = "busybox"
        boot        = false
        process_two = true
        ephemeral   = true
        persist     = "alloc"
        ports       = ["http"]
        stop_signal = "SIGUSR1"
        command     = ["/bin/sh", "-c", <<-X
          BEGIN
          trap 'echo hup >> $f' HUP
          trap 'echo usr1 >> $f; exit 3' USR1
          httpd -p 8080 -h /alloc/data
          while :; do sleep 1; done
          X
          , "chosen"]
      }
      resources { memory = 32 }
    }

    task "deaf" {
      driver       = "nspawn"
      kill_timeout = "1s"
      config {
        image            = "busybox"
        boot             = false
        ephemeral        = true
        shutdown_timeout = "10s"
        command          = ["/bin/sh", "-c", <<-X
          BEGIN
          trap 'read up idle < /proc/uptime; echo $up > /alloc/data/asked' TERM
          while :; do read up idle < /proc/uptime; echo $up >> /alloc/data/ticks; sleep 1; done
          X
          , "deaf"]
      }
      resources { memory = 32 }
    }

    task "booted" {
      driver = "nspawn"
      config {
        image     = "boots"
        boot      = true
        ephemeral = true
        command   = [<<-X
          BEGIN
          trap 'echo rtmin+3 >> $f; exit 0' 37
          while :; do sleep 1; done
          X
          , "booted"]
      }
      resources { memory = 32 }
    }
  }
}
"#;

/// The node's images: one that a task may write to, and one with an init.
const IMAGES: &str = r#"set -e
cd /var/lib/machines
cp -a busybox plain
cp -a busybox boots; rm boots/usr/bin/init
printf '#!/bin/sh\nexec /bin/sh -c "$@"\n' > boots/usr/bin/init; chmod 755 boots/usr/bin/init"#;

/// A machine with product and agent.
pub(crate) struct Node<'a> {
    machine: &'a Machine,
    /// What it holds without tasks.
    idle: BTreeSet<String>,
}

impl<'a> Node<'a> {
    /// Installs product, agent and images.
    pub(crate) fn prepare(machine: &'a Machine) -> Self {
        machine.sh(IMAGES).unwrap();
        let mut node = Self { machine, idle: BTreeSet::new() };
        let began = Instant::now();
        node.rig(&["up"]);
        println!("product and agent: {} s", began.elapsed().as_secs());
        node.idle = node.world();
        node
    }

    /// The same node after the machine has ended: another with its disk.
    pub(crate) fn moved_to(self, machine: &Machine) -> Node<'_> {
        Node { machine, idle: self.idle }
    }

    fn rig(&self, words: &[&str]) -> String {
        let rig = Machine::program("rig");
        let all: Vec<&str> = std::iter::once(rig.as_str()).chain(words.iter().copied()).collect();
        let out = self.machine.exec(&all, LIMIT).unwrap();
        assert!(out.success(), "{words:?}: {}{}", out.text(), String::from_utf8_lossy(&out.stderr));
        out.text()
    }

    /// Units, cgroups, locks, links, rules and files, a line each. Without mounts, which no boot has
    /// from the last; without the host's own network namespace, whose line is a list of who is in
    /// it; and without the pool of addresses, which each boot may choose again.
    fn world(&self) -> BTreeSet<String> {
        let all = self.rig(&["world"]);
        let own = ["Mount: ", "NetNamespace: init.scope", "Nft: : set pool"];
        let counts = |line: &&str| !own.iter().any(|start| line.starts_with(start));
        all.lines().filter(counts).map(str::to_owned).collect()
    }

    /// Runs a script that may take long, and panics with the journal.
    fn sh(&self, script: &str) -> String {
        let out = self.machine.exec(&["sh", "-c", script], LIMIT);
        match out {
            Ok(out) if out.success() => out.text().trim_end().to_owned(),
            other => panic!("{script}: {other:?}\n{}", self.journal()),
        }
    }

    fn journal(&self) -> String {
        let script = "tail -n 20 /var/lib/nomad/alloc/*/alloc/data/*; \
            journalctl --no-pager -o short-monotonic -n 200";
        self.machine.sh(script).unwrap_or_else(|error| format!("{error:#}"))
    }

    pub(crate) fn run_job(&self) {
        let job = JOB.replace("BEGIN", BEGIN);
        self.sh(&format!("nomad job run -detach - <<'JOB'\n{job}\nJOB"));
    }

    /// Starts server and agent, in this order: one that asks too early waits for half a minute.
    pub(crate) fn start_agent(&self) {
        let began = Instant::now();
        self.sh("systemctl start nomad-server
            until curl -sf http://127.0.0.1:4646/v1/operator/keyring/keys | grep -q KeyID; do
                sleep 1
            done
            systemctl start nomad");
        println!("server: {} s", began.elapsed().as_secs());
    }

    /// Lines of a file in the shared directory.
    fn written(&self, file: &str) -> Vec<String> {
        self.sh(&format!("cat {DATA}/{file}")).lines().map(str::to_owned).collect()
    }

    /// Each task's starts, with what it found of earlier ones.
    fn assert_starts(&self, times: usize) {
        for task in TASKS {
            let lines = self.written(task);
            let starts = lines.into_iter().filter(|line| line.starts_with("start"));
            let keeps = ["slow", "chosen"].contains(&task);
            let expected = (1..=times).map(|run| format!("start {}", if keeps { run } else { 1 }));
            assert_eq!(starts.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "{task}");
        }
    }

    /// Waits until every task has been started this often, in one allocation; never more often, and
    /// the published port answers.
    pub(crate) fn assert_started(&self, times: usize) {
        let began = Instant::now();
        let tasks = TASKS.join(" ");
        self.sh(&format!(
            "until cd {DATA} 2> /dev/null; do sleep 1; done
            started() {{ [ $(grep -c ^start $1) -ge {times} ] && [ $(tail -n 1 $1) = up ]; }}
            for task in {tasks}; do until started $task 2> /dev/null; do sleep 1; done; done"
        ));
        println!("start {times} of the tasks: {} s", began.elapsed().as_secs());
        self.assert_starts(times);
        let url = "http://127.0.0.1:8080/chosen";
        let ask = format!("curl -sf --retry 20 --retry-delay 1 --retry-all-errors {url}");
        assert_eq!(self.sh(&ask).lines().collect::<Vec<_>>(), self.written("chosen"));
        assert_eq!(self.sh("ls /var/lib/nomad/alloc | wc -l"), "1");
    }

    /// Reboots as an operator does: each task gets its signal and its time.
    pub(crate) fn reboot(&self) {
        let took = self.machine.reboot_by("systemctl reboot").unwrap();
        println!("reboot: {} s", took.as_secs());
        assert_eq!(self.written("slow"), ["start 1", "up", "last"], "3 s after SIGTERM");
        assert_eq!(self.written("chosen"), ["start 1", "up", "usr1"]);
        assert_eq!(self.written("booted"), ["start 1", "up", "rtmin+3"]);
        assert_eq!(self.written("deaf"), ["start 1", "up"]);
        // Nomad's collector outlives the task.
        assert_eq!(self.sh("cat /var/lib/nomad/alloc/*/alloc/logs/slow.stdout.0"), "last");
        let seconds = |file| -> f64 { self.written(file).last().unwrap().parse().unwrap() };
        let ran = seconds("ticks") - seconds("asked");
        println!("a task that ignores its signal ran {ran:.1} s more");
        // Neither 1 s (kill_timeout) nor 30 s (the default); each tick may be late.
        assert!((5.0..25.0).contains(&ran), "10 s, not {ran:.1}: {}", self.journal());
    }

    /// What the last boot's tasks had is gone, but for the layer that is kept, and they have been
    /// started this often.
    pub(crate) fn assert_nothing_stale(&self, times: usize) {
        let began = Instant::now();
        let mut stale = BTreeSet::new();
        wait::true_within("nothing to be left", self.machine.patience(LIMIT / 2), || {
            let now = self.world();
            let left = now.difference(&self.idle).cloned();
            let kept: BTreeSet<String>;
            (kept, stale) = left.partition(|line| line.contains("/var/lib/nomad-nspawn/kept-"));
            assert!(!kept.is_empty(), "nothing is kept: {now:#?}");
            Ok(stale.is_empty())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {stale:#?}\n{}", self.journal()));
        println!("nothing stale after {} s", began.elapsed().as_secs());
        self.assert_starts(times);
    }
}
