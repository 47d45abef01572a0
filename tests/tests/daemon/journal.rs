//! The journal: one line for each decision, with who asked for what, and by which rule it was
//! refused.

use crate::{HELPER, SOON, host, refused, removed, started};
use nspawn_tests::hostile::{Door, Handmade};
use nspawn_tests::{Rig, wait};
use proto::path::Absolute;
use proto::target::Target;
use proto::task_spec::files::{Bind, Mapping, Source};
use proto::wire::{Answer, Signal, Verb};

/// The lines about one task, once there are as many.
fn lines(rig: &Rig, task: &Handmade<'_>, count: usize) -> Vec<String> {
    let field = format!("task=\"{}\"", task.key);
    let mut found = Vec::new();
    let all = wait::true_within("the lines of all decisions", SOON, || {
        let journal = rig.journal(HELPER)?;
        let about = journal.lines().filter(|l| l.contains("decision=") && l.contains(&field));
        found = about.map(str::to_owned).collect();
        Ok(found.len() >= count)
    });
    all.unwrap_or_else(|error| panic!("{error:#}: {found:#?}"));
    found
}

#[test]
fn every_decision_is_one_line_that_says_who_what_and_why() {
    let (_life, rig, client) = host();
    let task = Handmade::new(rig, "audited").unwrap();
    let mut forbidden = task.spec(&["/bin/true"]).unwrap();
    forbidden.files.binds = vec![Bind {
        source: Source::Host(Absolute::parse("/home/audited").unwrap()),
        target: Target::parse("/mnt").unwrap(),
        read_only: true,
        recursive: false,
        mapping: Mapping::Automatic,
        propagated: false,
    }];
    let refusal = refused(&client, &forbidden);
    started(&client, &task.spec(&["/bin/sleep", "1000"]).unwrap());
    let key = task.key.clone();
    let signal = Verb::Signal(Signal { key: key.clone(), signal: 1 });
    assert_eq!(client.ask(signal).unwrap(), Ok(Answer::Signaled));
    let kill = Verb::Kill(key.clone());
    assert_eq!(client.ask(kill).unwrap(), Ok(Answer::Killed));
    crate::ended(&client, &key);
    removed(&client, &key);

    let lines = lines(rig, &task, 5);
    let rule = format!("code={:?} rule={refusal}", refusal.code);
    let expected = [
        ("WARN", "start", "refused", rule.as_str()),
        ("INFO", "start", "allowed", ""),
        ("INFO", "signal", "allowed", ""),
        ("INFO", "kill", "allowed", ""),
        ("INFO", "remove", "allowed", ""),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    let uid = Door::of(rig).unwrap().owner();
    let mut last = 0;
    for (line, (level, verb, decision, rule)) in lines.iter().zip(expected) {
        let request = line.split_once("request=").and_then(|(_, rest)| rest.split(' ').next());
        let request: u64 = request.unwrap().parse().unwrap();
        assert!(request > last, "{lines:#?}");
        last = request;
        // The test is no process of the host's: it has no number there.
        let who = format!("uid={uid} pid=0 verb=\"{verb}\" task=\"{key}\"");
        let whole = format!("{level} request={request} {who} decision=\"{decision}\" {rule}");
        assert_eq!(line.trim(), whole.trim());
    }
    task.remove(&client).unwrap();
}
