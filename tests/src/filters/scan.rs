//! The scanner: starts of every set of options while their cache is damaged, and the filters of each
//! payload at its first instruction.
//!
//! The payload is a program of two instructions, written here, whose first is pause(2): it can have
//! changed nothing, and a filter is never taken back (seccomp(2)), so what it is under whenever it is
//! looked at, it was under at its first instruction. What it must be under is what systemd-nspawn itself has
//! made for the same options, with the cache switched off.

use super::damage::{Cache, Damage};
use super::read::{self, Filters};
use crate::hostile::{Client, Door, Handmade};
use crate::oracle::random::Random;
use crate::{Config, Rig};
use anyhow::{Context as _, Result, bail, ensure};
use proto::capability::Capabilities;
use proto::name::Instance;
use proto::secret::Secret;
use proto::task_spec::process::{SyscallName, SyscallRule};
use proto::task_spec::{Payload, TaskSpec, Users};
use proto::wire::{Answer, Verb};
use std::fmt;
use std::fs;

const POLICY: &str = "[caps]\nallow = [\"all\"]\n[userns]\nrequire = false\n[syscalls]\n\
                      allow_extra = [\"bpf\"]\n";
const PROGRAM: &str = "/var/lib/machines/busybox/pause";
/// Starts that go on at the same time: what one damages another is about to use.
const WORKERS: u64 = 2;
/// With so many starts of one worker in a row without the cache, it is not in use any more.
const SLOW_MAX: u64 = 60;

/// Where the program is mapped.
const BASE: u64 = 0x40_0000;
/// Bytes of its headers; the code follows them.
const HEADERS: u64 = 64 + 56;

/// An ELF executable for x86-64 whose code is `for (;;) pause();`.
fn program() -> Vec<u8> {
    // mov eax, 34; syscall; jmp to the first.
    const CODE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
    let mut all = b"\x7fELF\x02\x01\x01".to_vec();
    all.resize(16, 0);
    let mut put = |bytes: &[u8]| all.extend_from_slice(bytes);
    // ET_EXEC, EM_X86_64, EV_CURRENT; entry, program headers, section headers, flags.
    put(&[2, 0, 62, 0, 1, 0, 0, 0]);
    [BASE + HEADERS, 64, 0].iter().for_each(|number| put(&number.to_le_bytes()));
    put(&[0; 4]);
    [64_u16, 56, 1, 0, 0, 0].iter().for_each(|number| put(&number.to_le_bytes()));
    // PT_LOAD, readable and executable: the whole file.
    put(&[1, 0, 0, 0, 5, 0, 0, 0]);
    let size = HEADERS + 9;
    [0, BASE, BASE, size, size, 4096].iter().for_each(|number| put(&number.to_le_bytes()));
    put(&CODE);
    all
}

/// Whether a process with this /proc/PID/syscall (proc(5)) is the program: in its only call, running,
/// or on its way out of execve(2), the next instruction being its first.
fn is_program(call: &str) -> bool {
    let first = format!(" {:#x}", BASE + HEADERS);
    let is_new = || call.starts_with("59 ") && call.trim_end().ends_with(&first);
    call.starts_with("34 ") || call.starts_with("running") || is_new()
}

type Change = fn(&mut TaskSpec);

fn rule(spec: &mut TaskSpec, allow: bool, name: &str) {
    let name = SyscallName::new(name);
    spec.isolation.syscalls.extend(name.map(|name| SyscallRule { allow, name }));
}

fn capability(name: &str) -> Capabilities {
    Capabilities::named(name)
        .map_or_else(Capabilities::default, |it| Capabilities::default().with(it))
}

/// What filters depend on; the last is for systemd-nspawn to make at each start.
const VARIANTS: [(&str, Change); 6] = [
    ("usual", |_| ()),
    ("capability dropped", |spec| spec.isolation.drop = capability("sys_ptrace")),
    ("capability added", |spec| spec.isolation.add = capability("sys_module")),
    ("call added", |spec| rule(spec, true, "bpf")),
    ("no user namespace", |spec| spec.users = Users::Host),
    ("calls taken out", |spec| rule(spec, false, "@mount")),
];

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Starts.
    pub starts: u64,
    /// Of them with filters of the cache.
    pub cached: u64,
    /// How often each kind of damage was done, in the order of [`Damage::ALL`].
    pub damaged: [u64; Damage::ALL.len()],
    /// Payloads with other filters than they must have, or none, and starts that failed.
    pub wrong: Vec<String>,
}

impl Figures {
    /// Adds those of others.
    pub fn add(&mut self, more: Self) {
        self.starts += more.starts;
        self.cached += more.cached;
        self.damaged.iter_mut().zip(more.damaged).for_each(|(sum, more)| *sum += more);
        self.wrong.extend(more.wrong);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let damaged: u64 = self.damaged.iter().sum();
        let rarest = self.damaged.iter().min().copied().unwrap_or(0);
        let share = self.cached * 100 / self.starts.max(1);
        write!(f, "{share} % with filters of the cache, {damaged} times damaged, ")?;
        write!(f, "each kind at least {rarest} times")
    }
}

/// A host, and what its payloads must be under.
#[derive(Debug)]
pub struct Scanner {
    rig: Rig,
    expected: Vec<Filters>,
}

impl Scanner {
    /// Boots the host, and takes systemd-nspawn's own filters of every variant.
    ///
    /// # Errors
    /// A start fails, or two variants have the same filters.
    pub fn new() -> Result<Self> {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env()? })?;
        rig.write_file(PROGRAM, program(), 0o755)?;
        rig.set_policy(format!("{POLICY}[seccomp]\ncache = false\n"))?;
        let mut scanner = Self { rig, expected: Vec::new() };
        let worker = Worker::new(&scanner, "reference")?;
        let mut expected: Vec<Filters> = Vec::new();
        for (number, (name, change)) in VARIANTS.into_iter().enumerate() {
            let (found, is_cached) = worker.start(u32::try_from(number)?, change)?;
            ensure!(!is_cached && found.len() >= 5, "{name}: {} filters", found.len());
            // Else a start with those of another variant would not be noticed.
            ensure!(!expected.contains(&found) || name == "no user namespace", "{name}");
            expected.push(found);
        }
        worker.task.remove(&worker.client)?;
        scanner.expected = expected;
        scanner.rig.set_policy(POLICY)?;
        Ok(scanner)
    }

    /// Starts so many tasks, and damages the cache before every third one.
    ///
    /// # Errors
    /// The host's.
    pub fn run(&self, seed: u64, starts: u64) -> Result<Figures> {
        let mut all = Figures::default();
        std::thread::scope(|scope| {
            let run = |number| {
                let seed = seed.wrapping_mul(WORKERS).wrapping_add(number);
                scope.spawn(move || self.work(number, seed, starts.div_ceil(WORKERS)))
            };
            let threads: Vec<_> = (0..WORKERS).map(run).collect();
            for thread in threads {
                let Ok(figures) = thread.join() else { bail!("a worker panicked") };
                all.add(figures?);
            }
            Ok(all)
        })
    }

    fn work(&self, number: u64, seed: u64, starts: u64) -> Result<Figures> {
        let (mut random, cache) = (Random::new(seed), Cache::of(&self.rig));
        let worker = Worker::new(self, &format!("scan-{number}"))?;
        let (mut figures, mut slow) = (Figures::default(), 0);
        for start in 0..starts {
            if random.chance(33) {
                let kind = random.below(Damage::ALL.len());
                if let (Some(damage), Some(count)) =
                    (Damage::ALL.get(kind), figures.damaged.get_mut(kind))
                {
                    *count += u64::from(cache.damage(*damage, &mut random)?);
                }
            }
            let variant = random.below(VARIANTS.len());
            let Some((name, change)) = VARIANTS.get(variant) else { bail!("no variant") };
            figures.starts += 1;
            match worker.start(u32::try_from(start)?, *change) {
                Ok((found, is_cached)) => {
                    figures.cached += u64::from(is_cached);
                    slow = if is_cached { 0 } else { slow + 1 };
                    let is_right = self.expected.get(variant) == Some(&found);
                    if !is_right || (is_cached && *name == "calls taken out") {
                        let count = found.len();
                        let wrong = format!("{name}: {count} filters, of the cache: {is_cached}");
                        figures.wrong.push(format!("seed {seed}, start {start}: {wrong}"));
                    }
                }
                Err(error) => {
                    figures.wrong.push(format!("seed {seed}, {start}: {name}: {error:#}"))
                }
            }
            ensure!(slow < SLOW_MAX, "seed {seed}: {SLOW_MAX} starts without the cache");
        }
        worker.task.remove(&worker.client)?;
        Ok(figures)
    }
}

/// One connection, and one task that is started again and again.
struct Worker<'a> {
    scanner: &'a Scanner,
    task: Handmade<'a>,
    client: Client,
}

impl<'a> Worker<'a> {
    fn new(scanner: &'a Scanner, name: &str) -> Result<Self> {
        let task = Handmade::new(&scanner.rig, name)?;
        Ok(Self { scanner, task, client: Door::of(&scanner.rig)?.enter()? })
    }

    /// Starts and removes one; the filters of its payload, and whether they are from the cache.
    fn start(&self, number: u32, change: Change) -> Result<(Filters, bool)> {
        let mut spec = self.task.spec(&[])?;
        spec.payload = Payload::Command { words: vec![Secret::new("/pause")] };
        spec.key.instance = Instance(number);
        change(&mut spec);
        match self.client.start(&spec)? {
            Ok(Answer::Started(_)) => {}
            other => bail!("not started: {other:?}"),
        }
        let seen = self.look();
        match self.client.ask(Verb::Remove(spec.key))? {
            Ok(Answer::Removed) => seen,
            other => bail!("not removed: {other:?}"),
        }
    }

    fn look(&self) -> Result<(Filters, bool)> {
        let found = self.scanner.rig.containers_of(&self.task.key.alloc.to_string(), 1);
        let [init] = found.as_slice() else { bail!("{} payloads", found.len()) };
        let filters = read::of_process(init.pid)?;
        let call = fs::read_to_string(format!("/proc/{}/syscall", init.pid))?;
        ensure!(is_program(&call), "in call {call:?}");
        let status = fs::read_to_string(format!("/proc/{}/status", init.pid))?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let parent = parent.and_then(|pid| pid.trim().parse().ok()).context("no parent")?;
        Ok((filters, read::is_without_own(parent)?))
    }
}
