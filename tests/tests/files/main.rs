//! Files of the host inside real containers: what a payload sees of them, who owns what it leaves
//! behind, and what other accounts of the host get from it.
//!
//! Two hosts with the helper alone. On the one, allocations lie behind a closed directory and the
//! policy is strict; on the other they do not, and the policy gives unprotected binds without ID
//! mapping.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod binds;
mod credentials;
mod devices;
mod escapes;
mod mounts;
mod overlays;
mod owners;
mod points;
mod propagation;
mod race;
mod set_uid;

use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Rig};
use proto::error::Refusal;
use proto::path::{Absolute, Component, Relative};
use proto::target::Target;
use proto::task_spec::TaskSpec;
use proto::task_spec::files::{Bind, Files, Mapping, Source};
use proto::wire::Answer;
use std::sync::OnceLock;

const POLICY: &str = r#"
[binds]
read_write = ["/srv"]
read_only = ["/opt/ro"]
unprotected = "@unprotected@"

[devices]
allow = ["/dev/zero:rw", "/dev/full:r", "/dev/fuse:rw", "/dev/test/*:rwm"]
"#;

/// Allocations and /srv/closed are protected.
fn host() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| up("refuse", "0700"))
}

/// Only /srv/closed is protected.
fn open_host() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| up("unmapped", "0755"))
}

fn up(unprotected: &str, mode: &str) -> Rig {
    let config = Config { agent: false, ..Config::from_env().unwrap() };
    let rig = Rig::up(&config).unwrap();
    // The host's root is an overlay, which no kernel can ID-map.
    rig.sh(&format!(
        "set -e; umask 022; mkdir -p /opt/nomad/files /opt/ro; mount --bind /opt/nomad/files /srv; \
         mkdir /srv/open; mkdir -m 0700 /srv/closed; \
         mkdir -p /var/lib/nomad; chmod {mode} /var/lib/nomad"
    ))
    .unwrap();
    rig.set_policy(POLICY.replace("@unprotected@", unprotected)).unwrap();
    rig
}

/// A started task.
struct Task<'a> {
    made: Handmade<'a>,
    client: Client,
    /// First uid of its range on the host.
    base: u32,
    /// Remarks of its start.
    notes: Vec<String>,
}

impl<'a> Task<'a> {
    /// Starts a shell script in an ephemeral busybox, or gives the refusal.
    fn try_start(rig: &'a Rig, files: Files, script: &str) -> Result<Self, Refusal> {
        Self::try_with(rig, |_| files, script, |spec| spec)
    }

    fn start(rig: &'a Rig, files: Files, script: &str) -> Self {
        Self::try_start(rig, files, script).unwrap()
    }

    /// The same where the files depend on the allocation, or more of the specification is changed.
    fn try_with(
        rig: &'a Rig,
        files: impl FnOnce(&Handmade<'a>) -> Files,
        script: &str,
        change: impl FnOnce(TaskSpec) -> TaskSpec,
    ) -> Result<Self, Refusal> {
        let made = Handmade::new(rig, "t").unwrap();
        let client = Door::of(rig).unwrap().enter().unwrap();
        let files = files(&made);
        let spec = TaskSpec { files, ..made.spec(&["/bin/sh", "-c", script]).unwrap() };
        match client.start(&change(spec)).unwrap() {
            Ok(Answer::Started(task)) => {
                let base = task.uid_base.unwrap_or(0);
                Ok(Self { made, client, base, notes: task.notes })
            }
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => {
                made.remove(&client).unwrap();
                Err(refusal)
            }
        }
    }

    /// Waits for its end, which must be a good one; returns what it has written.
    fn output(&self) -> String {
        let exit = self.made.wait_ended(&self.client).unwrap();
        let text = |stream| String::from_utf8(self.made.written(stream).unwrap()).unwrap();
        let (out, err) = (text(0), text(1));
        assert_eq!((exit.code, err.as_str()), (0, ""), "{out}");
        out
    }

    fn remove(self) {
        self.made.remove(&self.client).unwrap();
    }

    /// [`Self::output`], then [`Self::remove`].
    fn finish(self) -> String {
        let out = self.output();
        self.remove();
        out
    }
}

/// Runs a script to its good end.
fn run(rig: &Rig, files: Files, script: &str) -> String {
    Task::start(rig, files, script).finish()
}

/// The text of the refusal that these files meet.
fn refused(rig: &Rig, files: Files) -> String {
    match Task::try_start(rig, files, "exit 0") {
        Err(refusal) => refusal.to_string(),
        Ok(task) => panic!("started: {}", task.finish()),
    }
}

fn path(text: &str) -> Absolute {
    Absolute::parse(text).unwrap()
}

/// A mount point inside.
fn at(text: &str) -> Target {
    Target::parse(text).unwrap()
}

fn relative(text: &str) -> Relative {
    let parts: Result<Vec<_>, _> = text.split('/').map(Component::new).collect();
    Relative::new(parts.unwrap()).unwrap()
}

/// A writable bind of a host's directory or file with what is mounted below.
fn bind(source: &str, target: &str) -> Bind {
    Bind {
        source: Source::Host(path(source)),
        target: at(target),
        read_only: false,
        recursive: true,
        mapping: Mapping::Automatic,
        propagated: false,
    }
}

fn read_only(source: &str, target: &str) -> Bind {
    Bind { read_only: true, ..bind(source, target) }
}

fn binds(all: impl Into<Vec<Bind>>) -> Files {
    Files { binds: all.into(), ..Files::default() }
}
