//! Imported images: layers of the store as roots of real tasks, and how they get there.
//!
//! One host with the helper alone, the operator's tool and the converter. Each task is a
//! specification of our own, so that every mode can be tried with and without a user namespace.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod equal;
mod refused;
mod shared;
mod whole;

use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Output, Rig, wait};
use proto::error::Refusal;
use proto::layer::{Digest, IMAGES};
use proto::name::ImageName;
use proto::task_spec::{Image, Layer, Root, RootFs, TaskSpec, Users, Volatile};
use proto::wire::{Answer, Verb};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Every mode that leaves the image as it is.
const MODES: [Root; 7] = [
    Root::ReadOnly,
    Root::Ephemeral(Layer::Disk),
    Root::Ephemeral(Layer::Memory),
    Root::Ephemeral(Layer::Kept),
    Root::Volatile(Volatile::Yes),
    Root::Volatile(Volatile::State),
    Root::Volatile(Volatile::Overlay),
];

/// Imported images are on no list.
const POLICY: &str = r#"
[images]
paths = [{ path = "/var/lib/machines", writable = true }]
[userns]
require = false
"#;

/// The host. It goes down with this process.
fn rig() -> &'static Rig {
    static RIG: OnceLock<Rig> = OnceLock::new();
    RIG.get_or_init(|| {
        let rig = Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
        rig.set_policy(POLICY).unwrap();
        rig.install_ctl().unwrap();
        rig.install_fetch().unwrap();
        // A root of many layers needs a loop device for each.
        rig.add_loop_nodes_up_to(512).unwrap();
        rig
    })
}

/// Lets one test have the store: each looks at all of it, and an import removes what no name means.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client() -> Client {
    Door::of(rig()).unwrap().enter().unwrap()
}

fn ctl(words: &[&str]) -> Output {
    rig().exec(&[&["nomad-nspawnctl", "images"], words].concat()).unwrap()
}

/// Makes a directory by a script, packs it, and imports it under a name; returns the image's id.
fn import(name: &str, script: &str) -> Digest {
    let pack = r#"
        mkdir -p /root/"$0" && cd /root/"$0" && eval "$1"
        tar --numeric-owner --acls --xattrs --xattrs-include='*' -C /root/"$0" -cf /root/"$0".tar ."#;
    rig().run(&["sh", "-ec", pack, name, script]).unwrap();
    import_tar(name)
}

/// Imports an archive that lies in /root.
fn import_tar(name: &str) -> Digest {
    let out = ctl(&["import", &format!("/root/{name}.tar")]);
    assert!(out.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    let said = out.text();
    let id =
        said.strip_prefix(&format!("{name} is image ")).and_then(|rest| rest.split(':').next());
    Digest::parse(id.unwrap()).unwrap()
}

/// A copy of the busybox tree.
const BUSYBOX: &str = "cp -a /var/lib/machines/busybox/. .;";

fn layer_path(id: Digest) -> String {
    format!("{IMAGES}/layers/+import/{id}.erofs")
}

/// Loop devices of a layer, as the kernel lists them.
fn loops(id: Digest) -> usize {
    let script = "cat /sys/block/loop*/loop/backing_file 2>/dev/null | grep -c \"/$0\"";
    let name = format!("{id}.erofs");
    rig().exec(&["sh", "-c", script, &name]).unwrap().text().trim().parse().unwrap()
}

fn wait_no_loops(id: Digest) {
    let gone = || Ok(loops(id) == 0);
    wait::true_within("the layer's loop device to go", Duration::from_secs(10), gone).unwrap();
}

/// An image by its name, in this mode. What a driver would say of its kind is a tree.
fn named(name: &str, mode: Root) -> impl Fn(&mut TaskSpec) + use<> {
    let image = Image::Named(ImageName::new(name).unwrap());
    move |spec| {
        spec.image = image.clone();
        spec.root = RootFs::tree(mode);
    }
}

fn start(
    task: &Handmade<'_>,
    client: &Client,
    change: impl Fn(&mut TaskSpec),
    script: &str,
) -> Result<(), Refusal> {
    let mut spec = task.spec(&["sh", "-c", script]).unwrap();
    change(&mut spec);
    client.start(&spec).unwrap().map(drop)
}

fn end(task: Handmade<'_>, client: &Client) {
    let removed = client.ask(Verb::Remove(task.key.clone())).unwrap();
    assert!(matches!(removed, Ok(Answer::Removed)), "{removed:?}");
    task.remove(client).unwrap();
}

/// One task from its start to its removal: what it wrote, or why it did not start.
fn try_run(change: impl Fn(&mut TaskSpec), script: &str) -> Result<String, Refusal> {
    let (task, client) = (Handmade::new(rig(), "images").unwrap(), client());
    let said = start(&task, &client, change, script).map(|()| {
        task.wait_ended(&client).unwrap();
        let all = [task.written(0).unwrap(), task.written(1).unwrap()].concat();
        String::from_utf8(all).unwrap().trim_end().to_owned()
    });
    end(task, &client);
    said
}

/// As [`try_run`] for a task that must start.
fn run(change: impl Fn(&mut TaskSpec), script: &str) -> String {
    try_run(change, script).unwrap_or_else(|refusal| {
        panic!("{refusal}\n{}", rig().journal_tail(30));
    })
}

/// Why a task must not start.
fn refusal(name: &str, mode: Root) -> Refusal {
    match try_run(named(name, mode), "echo it runs") {
        Ok(said) => panic!("{name} started and wrote {said:?}"),
        Err(refusal) => refusal,
    }
}
