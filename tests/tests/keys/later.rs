//! Keys of later versions: in the schema already, refused when they are used.

use crate::{refusals, sh, stand, with};
use serde_json::{Value, json};

/// Every one of a task, or the block that holds it, with a value.
fn task_keys() -> Vec<(&'static str, Value)> {
    let block =
        json!({ "url": "https://example.org/x.tar", "type": "tar", "auth": { "username": "x" } });
    vec![
        ("image_download", block),
        ("use_image_config", json!(true)),
        ("root_hash", json!("00")),
        ("root_hash_signature", json!("/x")),
        ("verity_data", json!("/x")),
        ("entrypoint", json!(["x"])),
        ("args", json!(["x"])),
        ("prefetch", json!(true)),
        ("wait_for_address", json!("require")),
    ]
}

/// The same of the operator.
fn plugin_keys() -> Vec<(&'static str, Value)> {
    vec![
        ("image_pull_timeout", json!("1m")),
        ("pull_activity_timeout", json!("1m")),
        ("auth", json!({ "config": "/etc/auth.json" })),
        ("registry", json!({ "example.org": {} })),
        ("gc", json!({ "image": false })),
    ]
}

fn keys(name: &str, value: &Value) -> Value {
    match name.split_once('.') {
        Some((block, inner)) => json!({ block: { inner: value } }),
        None => json!({ name: value }),
    }
}

#[test]
fn later_keys_are_refused() {
    for (name, value) in task_keys() {
        let sentence = "this version of the nspawn driver cannot do it yet";
        refusals(&[(keys(name, &value), &[name, sentence, "(remove the key)"])]);
    }
    for (name, value) in plugin_keys() {
        let error = stand().another_plugin_with(&keys(name, &value)).map(drop).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains(name) && text.contains("cannot do it yet"), "{name}: {text}");
    }
    // Their defaults, written down, change nothing.
    let defaults = json!({
        "network_setup": "helper", "wait_for_address": "auto", "ports": [], "port_map": [],
        "prefetch": false, "root_hash": "", "oom_score_adj": 0, "cpu_hard_limit": false, "oom": "process",
        "memory_swap": "0", "properties": [], "egress": [], "slice": "",
    });
    let outcome = stand().run(&sh(defaults, "echo runs")).unwrap();
    assert_eq!(outcome.stdout, "runs\n");
}

/// No key of a later version is without its case here, and none has one by mistake.
#[test]
fn every_later_key_is_tried() {
    let blocks = |table: &str, tried: &[&str]| {
        let rows = crate::documented::rows(table);
        let later: Vec<_> = rows.iter().filter(|row| row.since == "later").collect();
        assert!(!later.is_empty());
        let holds = |key: &str, block: &str| {
            key == block || key.strip_prefix(block).is_some_and(|rest| rest.starts_with('.'))
        };
        for row in &later {
            assert!(tried.iter().any(|block| holds(&row.key, block)), "{} is not tried", row.key);
        }
        for block in tried {
            assert!(later.iter().any(|row| row.key == *block), "{block} is of this version");
        }
    };
    blocks("task keys", &task_keys().iter().map(|(name, _)| *name).collect::<Vec<_>>());
    blocks("plugin keys", &plugin_keys().iter().map(|(name, _)| *name).collect::<Vec<_>>());
}

/// Every problem of a job is told at once, with key, value, rule and what to write instead.
#[test]
fn all_problems_come_in_one_message() {
    let more = json!({
        "hostname": "a_b", "volatile": "maybe", "ulimit": [{ "files": "1" }], "no_such_key": true,
        "tmpfs": ["m"], "pids_limit": 0, "prefetch": true,
    });
    let text = stand().refusal(&with(sh(json!({}), "true"), more)).unwrap().text;
    for part in [
        "hostname = \"a_b\": ",
        "(e.g. web-1)",
        "volatile = \"maybe\": ",
        "ulimit.files: ",
        "no_such_key",
        "tmpfs \"m\"",
        "pids_limit = 0: must be 1 to 4194304",
        "prefetch",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
