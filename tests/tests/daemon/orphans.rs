//! A task whose allocation's directory is gone is removed by the helper itself.

use crate::{SOON, started};
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::{Config, Rig, wait};
use proto::error::Code;
use proto::wire::Verb;
use std::time::Duration;

fn is_known(client: &Client, task: &Handmade<'_>) -> bool {
    match client.ask(Verb::Status(task.key.clone())).unwrap() {
        Err(refusal) if refusal.code == Code::Unknown => false,
        Ok(_) => true,
        Err(refusal) => panic!("{refusal}"),
    }
}

/// On a host of its own: it takes two looks of the helper, and who kills helpers would wait for it.
#[test]
fn a_task_without_its_allocation_goes_and_others_stay() {
    let rig = &Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let [orphan, other] = [(); 2].map(|()| Handmade::new(rig, "orphan").unwrap());
    for task in [&orphan, &other] {
        started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    }
    let dir = orphan.dir();
    // As the agent does it: the secrets first, then the directory with everything in it.
    rig.run(&["umount", &format!("{dir}/orphan/secrets")]).unwrap();
    rig.run(&["rm", "-r", &dir]).unwrap();
    // The first look may come at once, the second 20 s later.
    wait::true_within("the orphan's removal", Duration::from_secs(60), || {
        Ok(!is_known(&client, &orphan))
    })
    .unwrap();
    assert!(is_known(&client, &other));
    let line = format!("task={}", orphan.key);
    wait::true_within("the line in the journal", SOON, || {
        let journal = rig.journal(crate::HELPER)?;
        Ok(journal.lines().any(|l| l.contains("directory is gone") && l.contains(&line)))
    })
    .unwrap();
    other.remove(&client).unwrap();
}

/// The disk of all allocations is unmounted, and what lies below it is not empty: nothing is known
/// of the allocations then.
#[test]
fn c3_tasks_outlive_a_disk_of_allocations_that_is_unmounted() {
    const ALLOCS: &str = "/var/lib/nomad/alloc";
    let rig = &Rig::up(&Config { agent: false, ..Config::from_env().unwrap() }).unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    rig.sh(&format!("mkdir -p {ALLOCS}/stale && mount -t tmpfs disk {ALLOCS}")).unwrap();
    let task = Handmade::new(rig, "unmounted").unwrap();
    started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    // From the helper's view as well.
    rig.run(&["umount", "--lazy", ALLOCS]).unwrap();
    assert!(!rig.exists(&task.dir()) && rig.exists(&format!("{ALLOCS}/stale")));
    // Three looks.
    std::thread::sleep(Duration::from_secs(62));
    assert!(is_known(&client, &task), "killed for a disk that is not mounted");
    let status = crate::status(&client, &task.key);
    assert_eq!(status.state, proto::wire::State::Running);
    crate::removed(&client, &task.key);
}
