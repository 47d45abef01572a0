//! What a specification may put into a unit: devices, labels, limits. And what a start remarks.

use crate::{host, started};
use nspawn_tests::hostile::Handmade;
use proto::spec::Label;
use proto::spec::output::{LabelName, LabelValue};

fn label(name: &str, value: &str) -> Label {
    Label { name: LabelName::new(name).unwrap(), value: LabelValue::new(value).unwrap() }
}

#[test]
fn labels_are_on_every_line_of_the_task_and_the_record_stands() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "labelled").unwrap();
    let mut spec = task.spec(&["/bin/sh", "-c", "echo hello; sleep 1000"]).unwrap();
    spec.logs = proto::spec::Logs::Journal;
    spec.labels = vec![label("TEAM", "blue, 50:50 @home"), label("EMPTY", "")];
    let unit = started(&client, &spec).unit;
    let team = "TEAM=blue, 50:50 @home";
    nspawn_tests::wait::true_within("the line", crate::SOON, || {
        let alloc = format!("NOMAD_ALLOC_ID={}", task.key.alloc);
        let words = ["journalctl", "-o", "cat", "-q", "-u", &unit, team, &alloc];
        Ok(rig.run(&words)?.lines().any(|line| line == "hello"))
    })
    .unwrap();
    task.remove(&client).unwrap();
}

#[test]
fn without_a_limit_of_its_own_a_task_has_that_of_systemds_template() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "limited").unwrap();
    let mut spec = task.spec(&["/bin/sleep", "1000"]).unwrap();
    for (instance, asked, shown) in [(1, None, "16384"), (2, Some(123), "123")] {
        spec.key.instance = proto::name::Instance(instance);
        spec.resources.tasks_max = asked;
        let unit = started(&client, &spec).unit;
        assert_eq!(rig.run(&["systemctl", "show", "-P", "TasksMax", &unit]).unwrap(), shown);
        crate::removed(&client, &spec.key);
    }
    task.remove(&client).unwrap();
}
