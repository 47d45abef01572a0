//! Whether Nomad tries again: each refusal of a real start with its code.

use crate::{host, refused};
use nspawn_tests::hostile::Handmade;
use proto::error::Code;
use proto::name::ImageName;
use proto::path::Absolute;
use proto::task_spec::Image;

const STORE: &str = "/var/lib/machines";

#[test]
fn an_image_that_is_not_there_is_final() {
    let (_life, rig, client) = host();
    rig.sh(&format!("ln -sfn busybox {STORE}/daemon-link; : >{STORE}/daemon-file")).unwrap();
    let task = Handmade::new(rig, "image").unwrap();
    let mut spec = task.spec(&["/bin/true"]).unwrap();
    for (image, text) in [
        (Image::Named(ImageName::new("daemon-none").unwrap()), "daemon-none"),
        (Image::Named(ImageName::new("daemon-link").unwrap()), "daemon-link"),
        (Image::Named(ImageName::new("daemon-file").unwrap()), "daemon-file"),
        (Image::Path(Absolute::parse(&format!("{STORE}/busybox/no/such")).unwrap()), "no/such"),
    ] {
        spec.image = image;
        let refusal = refused(&client, &spec);
        assert_eq!((refusal.code, refusal.step.as_str()), (Code::Invalid, "image"), "{refusal}");
        assert!(!refusal.is_retryable() && refusal.object.contains(text), "{refusal}");
    }
    task.remove(&client).unwrap();
    rig.sh(&format!("rm {STORE}/daemon-link {STORE}/daemon-file")).unwrap();
}

/// The file system of the upper layers has no room for a single file more.
#[test]
fn a_full_disk_is_worth_another_try() {
    let (_alone, host, client) = crate::alone();
    let rig = &host.rig;
    let uppers = "/var/lib/nomad-nspawn";
    rig.run(&["mount", "-t", "tmpfs", "-o", "mode=0700,nr_inodes=2", "full", uppers]).unwrap();
    let task = Handmade::new(rig, "full").unwrap();
    let refusal = refused(&client, &task.spec(&["/bin/true"]).unwrap());
    rig.run(&["umount", uppers]).unwrap();
    assert_eq!((refusal.code, refusal.step.as_str()), (Code::Busy, "root"), "{refusal}");
    assert!(refusal.is_retryable() && refusal.reason.contains("No space left"), "{refusal}");
    task.remove(&client).unwrap();
    host.world.assert_same(rig).unwrap();
}

/// What Nomad made is gone for a moment: that is not the job's fault.
#[test]
fn a_missing_allocation_is_worth_another_try() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "alloc").unwrap();
    let (local, away) = (format!("{}/alloc/local", task.dir()), format!("{}/away", task.dir()));
    rig.run(&["mv", &local, &away]).unwrap();
    let refusal = refused(&client, &task.spec(&["/bin/true"]).unwrap());
    rig.run(&["mv", &away, &local]).unwrap();
    assert_eq!((refusal.code, refusal.step.as_str()), (Code::Failed, "task-dirs"), "{refusal}");
    task.remove(&client).unwrap();
}
