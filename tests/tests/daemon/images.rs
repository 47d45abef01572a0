//! Who may use an image beside whom, also when the helper has been killed in between.

use crate::{alone, host, next_life, refused, removed, run_of, started};
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Handmade};
use proto::error::Code;
use proto::name::{ImageName, Instance};
use proto::task_spec::{Image, Layer, Ownership, Root, TaskSpec};

const SLEEP: [&str; 2] = ["/bin/sleep", "1000"];

/// A copy of the busybox image.
fn copy(rig: &Rig, name: &str) -> Image {
    let path = format!("/var/lib/machines/{name}");
    rig.run(&["cp", "-a", "/var/lib/machines/busybox", &path]).unwrap();
    Image::Named(ImageName::new(name).unwrap())
}

fn on(task: &Handmade<'_>, image: &Image, mode: Root, ownership: Ownership) -> TaskSpec {
    let mut spec = task.spec(&SLEEP).unwrap();
    spec.image = image.clone();
    (spec.root.mode, spec.root.ownership) = (mode, ownership);
    spec
}

/// The start is refused for that holder.
fn busy(client: &Client, spec: &TaskSpec, holder: &Handmade<'_>, why: &str) {
    let refusal = refused(client, spec);
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    let text = refusal.to_string();
    assert!(text.contains(&holder.key.to_string()) && text.contains(why), "{text}");
}

#[test]
fn owners_are_rewritten_only_when_nobody_else_uses_the_image() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let image = copy(rig, "daemon-owners");
    let [holder, other] = [(); 2].map(|()| Handmade::new(rig, "user").unwrap());
    let reads = Root::Ephemeral(Layer::Disk);
    let chown = on(&other, &image, Root::Plain, Ownership::Chown);
    for mode in [reads, Root::Plain] {
        started(&client, &on(&holder, &image, mode, Ownership::Map));
        busy(&client, &chown, &holder, "rewrite its owners");
        removed(&client, &holder.key);
    }
    started(&client, &on(&holder, &image, reads, Ownership::Map));
    let client = next_life(rig);
    busy(&client, &chown, &holder, "rewrite its owners");
    removed(&client, &holder.key);

    started(&client, &chown);
    let client = next_life(rig);
    for mode in [reads, Root::Plain, Root::ReadOnly] {
        let spec = on(&holder, &image, mode, Ownership::Map);
        busy(&client, &spec, &other, "has it for itself");
    }
    // Another image is not concerned.
    let mut elsewhere = holder.spec(&SLEEP).unwrap();
    elsewhere.key.instance = Instance(7);
    started(&client, &elsewhere);
    removed(&client, &elsewhere.key);
    other.remove(&client).unwrap();
    holder.remove(&client).unwrap();
    rig.run(&["rm", "-rf", "/var/lib/machines/daemon-owners"]).unwrap();
    host.world.assert_same(rig).unwrap();
}

#[test]
fn a_second_writer_is_refused_also_by_the_next_helper() {
    let (_alone, host, client) = alone();
    let rig = &host.rig;
    let image = copy(rig, "daemon-writers");
    let [holder, other] = [(); 2].map(|()| Handmade::new(rig, "writer").unwrap());
    started(&client, &on(&holder, &image, Root::Plain, Ownership::Map));
    let second = on(&other, &image, Root::Plain, Ownership::Map);
    busy(&client, &second, &holder, "writes to it");
    let client = next_life(rig);
    busy(&client, &second, &holder, "writes to it");
    removed(&client, &holder.key);
    started(&client, &second);
    other.remove(&client).unwrap();
    holder.remove(&client).unwrap();
    rig.run(&["rm", "-rf", "/var/lib/machines/daemon-writers"]).unwrap();
    host.world.assert_same(rig).unwrap();
}

#[test]
fn a_kept_layer_serves_one_run_at_a_time() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "kept").unwrap();
    let kept = |instance| {
        let mut spec = run_of(&task, &SLEEP, instance);
        spec.root.mode = Root::Ephemeral(Layer::Kept);
        spec
    };
    started(&client, &kept(1));
    let refusal = refused(&client, &kept(2));
    assert_eq!(refusal.code, Code::Busy, "{refusal}");
    assert!(refusal.reason.contains("run 00000001 of it exists"), "{refusal}");
    removed(&client, &kept(1).key);
    started(&client, &kept(2));
    removed(&client, &kept(2).key);
    task.remove(&client).unwrap();
}
