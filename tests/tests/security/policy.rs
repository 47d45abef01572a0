//! The policy file of a running helper: taken whole or not at all.

use crate::{HELPER, bare};
use nspawn_tests::Rig;
use nspawn_tests::hostile::{Client, Door, Handmade};
use nspawn_tests::product::POLICY;
use proto::error::{Code, Refusal};
use proto::task_spec::{Network, TaskSpec};
use proto::wire::{Answer, Verb};

/// Writes the file and has it read; returns what the helper says about it.
fn reload(rig: &Rig, text: &[u8], mode: u32) -> String {
    rig.write_file(POLICY, text, mode).unwrap();
    rig.run(&["chmod", &format!("{mode:o}"), POLICY]).unwrap();
    rig.reload_policy().unwrap()
}

/// What the helper makes of a task in the host's network.
fn host_network(client: &Client, task: &Handmade<'_>) -> Result<Answer, Refusal> {
    let spec = task.spec(&["/bin/true"]).unwrap();
    let answer = client.start(&TaskSpec { network: Network::Host, ..spec }).unwrap();
    let gone = client.ask(Verb::Remove(task.key.clone())).unwrap();
    assert_eq!(gone, Ok(Answer::Removed));
    answer
}

fn refused(client: &Client, task: &Handmade<'_>) {
    let refusal = host_network(client, task).unwrap_err();
    assert_eq!(refusal.code, Code::Policy, "{refusal}");
    assert!(refusal.reason.contains("\"host\" added to [network] allow"), "{refusal}");
}

fn allowed(client: &Client, task: &Handmade<'_>) {
    let answer = host_network(client, task);
    assert!(matches!(answer, Ok(Answer::Started(_))), "{answer:?}");
}

/// Bad files: the text, the mode, and the words with which the helper refuses them.
const BAD: [(&str, u32, &str); 6] = [
    (
        "preset = \"compat\"\n\n[netwrok]\nallow = []\n",
        0o644,
        "line 3: [netwrok]: unknown field `netwrok`",
    ),
    (
        "[network]\nallow = [\n  \"host\",\n  \"everything\"]\n",
        0o644,
        "line 2: allow = [: \"everything\" is not one of",
    ),
    ("[userns]\nrequire = false\nrequire = true\n", 0o644, "line 3: require = true: duplicate key"),
    ("[userns\n", 0o644, "line 1: "),
    ("preset = \"compat\"\n", 0o666, "policy.toml must belong to root"),
    ("preset = \"compat\"\n", 0o664, "policy.toml must belong to root"),
];

#[test]
fn p43_a_bad_policy_file_leaves_the_old_one_in_force_and_the_journal_says_which_line() {
    let (_turn, rig) = bare();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let strict = rig.read_file(POLICY).unwrap();
    let task = Handmade::new(rig, "policy").unwrap();
    let pid = rig.main_pid(HELPER).unwrap();
    refused(&client, &task);
    for (text, mode, words) in BAD {
        let line = reload(rig, text.as_bytes(), mode);
        assert!(line.contains("the old one stays in force") && line.contains(words), "{line}");
        refused(&client, &task);
    }
    // The same the other way round: what was allowed stays allowed.
    let line = reload(rig, b"[network]\nallow = [\"host\", \"private\"]\n", 0o644);
    assert!(line.contains("policy read again"), "{line}");
    allowed(&client, &task);
    let line = reload(rig, b"[network]\nallow = 7\n", 0o644);
    assert!(line.contains("line 2: allow = 7: invalid type: integer `7`"), "{line}");
    allowed(&client, &task);
    // A directory on the way that others may write to is as bad as the file itself.
    rig.run(&["chmod", "0777", "/etc/nomad-nspawn"]).unwrap();
    let line = reload(rig, &strict, 0o644);
    assert!(line.contains("/etc/nomad-nspawn must belong to root"), "{line}");
    allowed(&client, &task);
    rig.run(&["chmod", "0755", "/etc/nomad-nspawn"]).unwrap();
    assert!(reload(rig, &strict, 0o644).contains("policy read again"));
    refused(&client, &task);
    assert_eq!(rig.main_pid(HELPER).unwrap(), pid, "the helper has not been restarted");
    task.remove(&client).unwrap();
}

/// The reload itself, what `systemctl status` shows after it, and what the operator's tool prints.
fn fails(rig: &Rig, words: &str) {
    let reload = rig.exec(&["systemctl", "reload", HELPER]).unwrap();
    assert!(!reload.success(), "the reload succeeds with: {words}");
    let status = rig.exec(&["systemctl", "status", "--no-pager", "--full", HELPER]).unwrap().text();
    assert!(status.contains(words), "{status}");
    let tool = rig.exec(&["nomad-nspawnctl", "reload"]).unwrap();
    assert!(!tool.success() && tool.text().contains(words), "{tool:?}");
}

#[test]
fn a_reload_with_a_bad_policy_file_fails_and_names_the_line() {
    let (_turn, rig) = bare();
    rig.install_ctl().unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let strict = rig.read_file(POLICY).unwrap();
    let task = Handmade::new(rig, "reload").unwrap();
    rig.set_policy("[network]\nallow = [\"host\", \"private\"]\n").unwrap();
    rig.write_file(POLICY, "[network]\nallow = 7\n", 0o644).unwrap();
    fails(rig, "line 2: allow = 7: invalid type: integer `7`");
    allowed(&client, &task);
    // Whoever signals it by hand gets the same.
    let pid = rig.main_pid(HELPER).unwrap().to_string();
    let before = rig.journal(HELPER).unwrap().matches("policy not read").count();
    rig.run(&["kill", "-HUP", &pid]).unwrap();
    nspawn_tests::wait::true_within("the line", std::time::Duration::from_secs(10), || {
        Ok(rig.journal(HELPER)?.matches("policy not read").count() > before)
    })
    .unwrap();
    allowed(&client, &task);
    rig.write_file(POLICY, &strict, 0o644).unwrap();
    let tool = rig.exec(&["nomad-nspawnctl", "reload"]).unwrap();
    assert!(tool.success(), "{tool:?}");
    rig.set_policy(&strict).unwrap();
    refused(&client, &task);
    task.remove(&client).unwrap();
}

#[test]
fn s15_a_policy_file_that_is_gone_keeps_the_old_policy_and_at_start_the_defaults_are_said() {
    let (_turn, rig) = bare();
    rig.install_ctl().unwrap();
    let client = Door::of(rig).unwrap().enter().unwrap();
    let strict = rig.read_file(POLICY).unwrap();
    let task = Handmade::new(rig, "gone").unwrap();
    rig.set_policy("[network]\nallow = [\"host\", \"private\"]\n").unwrap();
    rig.run(&["rm", POLICY]).unwrap();
    fails(rig, "policy.toml is gone");
    allowed(&client, &task);
    rig.run(&["systemctl", "restart", HELPER]).unwrap();
    let said = rig.journal(HELPER).unwrap();
    assert!(said.contains("policy.toml is missing: the strict defaults are in force"), "{said}");
    let client = Door::of(rig).unwrap().enter().unwrap();
    refused(&client, &task);
    rig.set_policy(&strict).unwrap();
    task.remove(&client).unwrap();
}
