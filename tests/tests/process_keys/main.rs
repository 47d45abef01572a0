//! How the payload runs, seen from inside: its user, directory and names, what confines it, and the
//! files of name resolution and time zone.
//!
//! Real containers on one host without an agent; the helper is asked directly, as a driver would
//! ask it, with a policy that allows everything.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where something is missing"
)]

mod isolation;
mod names;
mod process;
mod reasons;

use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Rig};
use proto::error::Refusal;
use proto::name::ImageName;
use proto::task_spec::{Image, Root, RootFs, TaskSpec};
use proto::wire::Answer;
use std::sync::LazyLock;

/// What the job could reach is not this file's concern: the launcher's own checks are.
const POLICY: &str = "preset = \"compat\"\n";

/// The host. It goes down with this process.
fn host() -> &'static Rig {
    static RIG: LazyLock<Rig> = LazyLock::new(|| {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
        rig.set_policy(POLICY).unwrap();
        rig
    });
    &RIG
}

/// What a payload has left behind.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn start<'a>(
    client: &Client,
    script: &str,
    change: impl FnOnce(&mut TaskSpec),
) -> (Handmade<'a>, Result<Answer, Refusal>) {
    let task = Handmade::new(host(), "keys").unwrap();
    let mut spec = task.spec(&["/bin/sh", "-c", script]).unwrap();
    change(&mut spec);
    let answer = client.start(&spec).unwrap();
    (task, answer)
}

/// Runs a script to its end, in an ephemeral busybox unless `change` says otherwise.
fn run(script: &str, change: impl FnOnce(&mut TaskSpec)) -> Ran {
    let client = Door::of(host()).unwrap().enter().unwrap();
    let (task, answer) = start(&client, script, change);
    if let Err(refusal) = answer {
        let unit = format!("nomad-nspawn-{}-00c0ffee.service", task.key.alloc.simple());
        panic!("{refusal}\n{}", host().journal(&unit).unwrap());
    }
    let exit = task.wait_ended(&client).unwrap();
    let text = |stream| String::from_utf8(task.written(stream).unwrap()).unwrap();
    let ran = Ran { code: exit.code, stdout: text(0), stderr: text(1) };
    task.remove(&client).unwrap();
    ran
}

/// What a script that must succeed writes.
fn says(script: &str, change: impl FnOnce(&mut TaskSpec)) -> String {
    let ran = run(script, change);
    assert!(ran.code == 0 && ran.stderr.is_empty(), "{ran:?}");
    ran.stdout
}

/// The refusal of a task that must not start.
fn refusal(change: impl FnOnce(&mut TaskSpec)) -> String {
    let client = Door::of(host()).unwrap().enter().unwrap();
    let (task, answer) = start(&client, "exit 0", change);
    let refusal = answer.unwrap_err().to_string();
    task.remove(&client).unwrap();
    refusal
}

/// What is said of a task whose payload cannot run: the refusal, or the remarks on its start, since
/// systemd-nspawn finds out late.
fn complaint(change: impl FnOnce(&mut TaskSpec)) -> String {
    let client = Door::of(host()).unwrap().enter().unwrap();
    let (task, answer) = start(&client, "exit 0", change);
    let text = match answer {
        Ok(Answer::Started(started)) => {
            let exit = task.wait_ended(&client).unwrap();
            assert_ne!(exit.code, 0, "{started:?}");
            started.notes.join("\n")
        }
        other => other.unwrap_err().to_string(),
    };
    task.remove(&client).unwrap();
    text
}

fn debian(spec: &mut TaskSpec) {
    spec.image = Image::Named(ImageName::new("debian").unwrap());
}

/// A copy of the busybox image, for tests that change it or write to it.
struct Copy(String);

impl Copy {
    fn new(name: &str, prepare: &str) -> Self {
        let path = format!("/var/lib/machines/{name}");
        host().run(&["cp", "-a", "/var/lib/machines/busybox", &path]).unwrap();
        host().sh(&format!("cd {path} && {prepare}")).unwrap();
        Self(name.to_owned())
    }

    fn give(&self, spec: &mut TaskSpec, mode: Root) {
        spec.image = Image::Named(ImageName::new(&self.0).unwrap());
        spec.root = RootFs::tree(mode);
    }

    /// Names, kinds, owners and contents of its /etc.
    fn etc(&self) -> String {
        let script = "find . -printf '%p %y %U %m %l\n' | sort; find . -type f | sort | xargs cat";
        host().sh(&format!("cd /var/lib/machines/{}/etc && {script}", self.0)).unwrap()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // A second panic would end the process, and the first one's words with it.
        let gone = host().run(&["rm", "-r", &format!("/var/lib/machines/{}", self.0)]);
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}
