//! What becomes of an image in every mode of the root file system: seen from inside by real
//! containers, and on the image and the host from outside.
//!
//! One host with the helper alone; each task is a specification of our own. Its policy lets tasks
//! run without a user namespace, so that every mode can be tried with and without.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod disks;
mod kept;
mod modes;
mod owners;
mod pivot;
mod points;

use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Rig};
use proto::error::Refusal;
use proto::name::ImageName;
use proto::task_spec::{Image, ImageKind, Layer, Root, RootFs, TaskSpec, Volatile};
use proto::wire::{Answer, Verb};
use std::sync::OnceLock;

const STORE: &str = "/var/lib/machines";
const UPPERS: &str = "/var/lib/nomad-nspawn";

/// Every mode that leaves the image as it is.
const HARMLESS: [Root; 7] = [
    Root::ReadOnly,
    Root::Ephemeral(Layer::Disk),
    Root::Ephemeral(Layer::Memory),
    Root::Ephemeral(Layer::Kept),
    Root::Volatile(Volatile::Yes),
    Root::Volatile(Volatile::State),
    Root::Volatile(Volatile::Overlay),
];

const POLICY: &str = r#"
[images]
paths = [
  { path = "/var/lib/machines", writable = true },
  "/var/lib/machines/wrong",
  { path = "/dev", writable = true },
]
[userns]
require = false
"#;

/// The host. It goes down with this process.
fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
        rig.run(&["mkdir", "/var/lib/machines/wrong"]).unwrap();
        rig.set_policy(POLICY).unwrap();
        rig.add_loop_nodes().unwrap();
        rig
    })
}

fn client() -> Client {
    Door::of(rig()).unwrap().enter().unwrap()
}

/// A copy of the busybox image under a name of the test's own, changed by a script in it.
fn image(name: &str, script: &str) -> String {
    let path = format!("{STORE}/{name}");
    let words = ["sh", "-ec", "cp -a \"$0/busybox\" \"$1\"; cd \"$1\"; eval \"$2\""];
    rig().run(&[words.as_slice(), &[STORE, &path, script]].concat()).unwrap();
    path
}

fn named(name: &str) -> Image {
    Image::Named(ImageName::new(name).unwrap())
}

/// A tree of the store in this mode.
fn tree(name: &str, mode: Root) -> impl FnOnce(&mut TaskSpec) {
    let image = named(name);
    move |spec| {
        spec.image = image;
        spec.root = RootFs::tree(mode);
    }
}

/// A disk image of the store in this mode.
fn disk(name: &str, mode: Root) -> impl FnOnce(&mut TaskSpec) {
    let change = tree(name, mode);
    move |spec| {
        change(spec);
        spec.root.kind = ImageKind::Disk;
    }
}

/// Starts a shell script in a task.
fn start(
    task: &Handmade<'_>,
    client: &Client,
    change: impl FnOnce(&mut TaskSpec),
    script: &str,
) -> Result<(), Refusal> {
    let mut spec = task.spec(&["sh", "-c", script]).unwrap();
    change(&mut spec);
    client.start(&spec).unwrap().map(drop)
}

/// One run of a task: what it wrote on both streams, or why it did not start.
fn run_of(
    task: &Handmade<'_>,
    change: impl FnOnce(&mut TaskSpec),
    script: &str,
) -> Result<String, Refusal> {
    let client = client();
    let started = start(task, &client, change, script);
    let said = started.map(|()| {
        task.wait_ended(&client).unwrap();
        let all = [task.written(0).unwrap(), task.written(1).unwrap()].concat();
        String::from_utf8(all).unwrap().trim_end().to_owned()
    });
    end_run(task, &client);
    said
}

/// Removes the run, not the allocation.
fn end_run(task: &Handmade<'_>, client: &Client) {
    let removed = client.ask(Verb::Remove(task.key.clone())).unwrap();
    assert!(matches!(removed, Ok(Answer::Removed)), "{removed:?}");
}

/// One task from the making of its allocation to its removal.
fn try_run(change: impl FnOnce(&mut TaskSpec), script: &str) -> Result<String, Refusal> {
    let task = Handmade::new(rig(), "roots").unwrap();
    let said = run_of(&task, change, script);
    let unit = format!("{UPPERS}/{}", proto::unit_id::UnitId::from(&task.key));
    task.remove(&client()).unwrap();
    assert!(!rig().exists(&unit), "{unit} is left");
    said
}

/// As [`try_run`] for a task that must start.
fn run(change: impl FnOnce(&mut TaskSpec), script: &str) -> String {
    try_run(change, script).unwrap_or_else(|refusal| {
        panic!("{refusal}\n{}", rig().journal_tail(30));
    })
}

/// The reason why a task must not start.
fn refused(change: impl FnOnce(&mut TaskSpec)) -> String {
    match try_run(change, "echo it runs") {
        Ok(said) => panic!("it started and wrote {said:?}"),
        Err(refusal) => refusal.to_string(),
    }
}

/// Names, owners, modes, times, links and contents of a whole tree.
fn fingerprint(path: &str) -> String {
    let script = "cd \"$0\"; find . -printf '%p %y %U %G %m %T@ %l\\n' | sort; \
                  find . -type f -print0 | sort -z | xargs -0 sha256sum";
    rig().run(&["sh", "-ec", script, path]).unwrap()
}

/// Lines of text as a test writes them.
fn lines(text: &[&str]) -> String {
    text.join("\n")
}
