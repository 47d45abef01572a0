//! Why a payload did not run, in systemd-nspawn's own words: among the remarks that become the
//! task's events, and in no stream of the task.

use crate::{complaint, host, start};
use nspawn_tests::hostile::Door;
use proto::path::Absolute;
use proto::task_spec::TaskSpec;
use proto::wire::Answer;

fn enter(directory: &'static str) -> impl FnOnce(&mut TaskSpec) {
    move |spec| spec.process.directory = Some(Absolute::parse(directory).unwrap())
}

/// systemd-nspawn finds out when the container exists already, so the start counts as done.
#[test]
fn what_the_container_finds_out_is_said_too() {
    let text = complaint(enter("/no/such"));
    let own = text.lines().find(|line| line.starts_with("systemd-nspawn: ")).unwrap_or_default();
    assert!(own.contains("/no/such") && own.contains("No such file"), "{text}");
}

/// Neither a payload's own words nor what it makes systemd-nspawn say can be taken for a reason.
#[test]
fn a_payload_that_runs_writes_no_reason() {
    let client = Door::of(host()).unwrap().enter().unwrap();
    let script = "printf 'PRIORITY=3\\nMESSAGE=forged\\n' >&2; logger -p 3 forged; \
                  ls /run/systemd/journal 2>/dev/null; exit 3";
    let (task, answer) = start(&client, script, |_| {});
    let Ok(Answer::Started(started)) = answer else { panic!("{answer:?}") };
    assert_eq!(task.wait_ended(&client).unwrap().code, 3);
    assert!(started.notes.is_empty(), "{started:?}");
    task.remove(&client).unwrap();
}
