//! An allocation made by hand, as Nomad makes one, for starts that no Nomad asks for.

use super::{Client, LIMIT};
use crate::{Rig, wait, world};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::OFlag;
use proto::name::{AllocId, ImageName, Instance, TaskKey, TaskName};
use proto::path::Absolute;
use proto::secret::Secret;
use proto::task_spec::{Image, Payload, TaskSpec};
use proto::wire::{Answer, Exit, State, Verb};
use std::fs::File;
use std::io::Read as _;

/// Where the rig's Nomad keeps allocations.
const ALLOCS: &str = "/var/lib/nomad/alloc";

const MAKE: &str = r#"
set -e
mkdir -p "$1/alloc/logs" "$1/alloc/data" "$1/$2/local" "$1/$2/secrets"
mount -t tmpfs -o nosuid,nodev,noexec,mode=0755,size=1m secrets "$1/$2/secrets"
mkfifo -m 0600 "$1/alloc/logs/.$2.stdout.fifo" "$1/alloc/logs/.$2.stderr.fifo"
"#;

/// Directories and FIFOs of one task of one allocation.
#[derive(Debug)]
pub struct Handmade<'a> {
    rig: &'a Rig,
    /// Which run of which task.
    pub key: TaskKey,
    streams: [File; 2],
}

impl<'a> Handmade<'a> {
    /// Makes the directories for a task of this name in a new allocation.
    ///
    /// # Errors
    /// When the name is none, or a step fails.
    pub fn new(rig: &'a Rig, task: &str) -> Result<Self> {
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let alloc: AllocId = uuid.trim().parse()?;
        let key = TaskKey { alloc, task: TaskName::new(task)?, instance: Instance(0x00c0_ffee) };
        let dir = format!("{ALLOCS}/{alloc}");
        rig.run(&["sh", "-c", MAKE, "sh", &dir, task])?;
        let open = |stream: &str| {
            let path = format!("{dir}/alloc/logs/.{task}.{stream}.fifo");
            rig.open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0)
        };
        let streams = [open("stdout")?, open("stderr")?];
        Ok(Self { rig, key, streams })
    }

    /// Makes the directories for another task of the allocation, whose output nobody reads.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn add_task(&self, task: &str) -> Result<TaskKey> {
        let key = TaskKey { task: TaskName::new(task)?, ..self.key.clone() };
        self.rig.run(&["sh", "-c", MAKE, "sh", &self.dir(), task])?;
        Ok(key)
    }

    /// The allocation's directory inside the instance.
    #[must_use]
    pub fn dir(&self) -> String {
        format!("{ALLOCS}/{}", self.key.alloc)
    }

    /// Path of a log FIFO inside the instance.
    #[must_use]
    pub fn fifo(&self, stream: &str) -> String {
        format!("{}/alloc/logs/.{}.{stream}.fifo", self.dir(), self.key.task)
    }

    /// A specification that the helper takes: these words in an ephemeral busybox.
    ///
    /// # Errors
    /// Never in practice: the names are constants.
    pub fn spec(&self, words: &[&str]) -> Result<TaskSpec> {
        Ok(TaskSpec {
            payload: Payload::Command { words: words.iter().map(|w| Secret::new(*w)).collect() },
            ..TaskSpec::new(
                self.key.clone(),
                Absolute::parse(&self.dir())?,
                Image::Named(ImageName::new("busybox")?),
            )
        })
    }

    /// What has been written to standard output (0) or standard error (1) and not been read yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn written(&self, stream: usize) -> Result<Vec<u8>> {
        let mut file = self.streams.get(stream).context("two streams")?;
        let (mut all, mut some) = (Vec::new(), [0; 4096]);
        loop {
            match file.read(&mut some) {
                Ok(0) => return Ok(all),
                Ok(length) => all.extend_from_slice(some.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(all),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the payload has ended.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_ended(&self, client: &Client) -> Result<Exit> {
        wait::until("the payload's end", LIMIT, || {
            match client.ask(Verb::Status(self.key.clone()))? {
                Ok(Answer::Status(task)) => Ok(match task.state {
                    State::Ended(exit) => Some(exit),
                    State::Starting(_) | State::Running => None,
                }),
                other => bail!("status: {other:?}"),
            }
        })
    }

    /// Removes the task and then the allocation's directory.
    ///
    /// # Errors
    /// When something of either stays.
    pub fn remove(self, client: &Client) -> Result<()> {
        match client.ask(Verb::Remove(self.key.clone()))? {
            Ok(Answer::Removed) => {}
            other => bail!("remove: {other:?}"),
        }
        let all = r#"set -e; for m in "$1"/*/secrets; do umount "$m"; done; rm -r "$1""#;
        self.rig.run(&["sh", "-c", all, "sh", &self.dir()])?;
        world::wait_no_traces(self.rig.leader(), &self.key.alloc.to_string())
    }
}
